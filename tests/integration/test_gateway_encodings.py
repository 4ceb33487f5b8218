"""Answers as servers and what stands before them may send them: any line ending, compressed though nobody asked, cut anywhere."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from behest.provider.v1 import provider_service_pb2 as pb
from chassis.faults import Fault, ProviderResponseInvalid, ProviderUnavailable, StreamIncomplete
from kit.provider_gateway import open_gateway, settings_of
from kit.provider_requests import ask, ask_stream
from kit.provider_upstream import Conversation, Reply, open_upstream
from kit.provider_wires import OPENAI_TEXT, OPENAI_WHOLE

TEXT = "Grüß Gott 🌍"


def stream_of(ending: str) -> bytes:
    lines = [f"data: {json.dumps(document, ensure_ascii=False)}{ending}{ending}" for document in OPENAI_TEXT]
    return "".join([f": keep-alive{ending}{ending}", *lines, f"data: [DONE]{ending}{ending}"]).encode()


def squeezed(data: bytes) -> bytes:
    """As a proxy compresses a stream: every event can be read when it is there."""
    packer = zlib.compressobj(wbits=31)
    return (
        b"".join(packer.compress(data[at : at + 40]) + packer.flush(zlib.Z_SYNC_FLUSH) for at in range(0, len(data), 40)) + packer.flush()
    )


def pieces(data: bytes, size: int, **headers: str) -> Reply:
    async def reply(conversation: Conversation) -> None:
        await conversation.head(content_type="text/event-stream", transfer_encoding="chunked", **headers)
        for at in range(0, len(data), size):
            await conversation.chunk(data[at : at + size])
        await conversation.send(b"0\r\n\r\n")

    return reply


async def streamed(reply: Reply) -> tuple[str, pb.StreamChatResponse]:
    async with open_upstream(reply) as upstream:
        provider = {"adapter": "openai", "base_url": upstream.url, "limits": {"idle_seconds": 5}}
        async with open_gateway(settings_of({"up": provider}, retries={"attempts": 1})) as stub:
            responses = [response async for response in stub.StreamChat(ask_stream("hi", "up/m-1"), timeout=10)]
    return "".join(step.text_delta for response in responses for step in response.events), responses[-1]


@pytest.mark.feature("P6")
@pytest.mark.parametrize("size", [1, 7, 100_000])
@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"], ids=["LF", "CRLF", "CR"])
async def test_a_stream_reads_the_same_however_it_is_sent(ending: str, packed: bool, size: int) -> None:
    data = stream_of(ending)
    headers = {"content_encoding": "gzip"} if packed else {}
    text, last = await streamed(pieces(squeezed(data) if packed else data, size, **headers))
    assert text == TEXT and last.events[-1].finished.usage.output_tokens == 5


@pytest.mark.feature("P5")
async def test_a_whole_answer_may_come_compressed() -> None:
    packed = gzip.compress(json.dumps(OPENAI_WHOLE).encode())

    async def reply(conversation: Conversation) -> None:
        await conversation.head(content_type="application/json", content_encoding="gzip", content_length=str(len(packed)))
        await conversation.send(packed)

    async with open_upstream(reply) as upstream, open_gateway(settings_of({"up": {"adapter": "openai", "base_url": upstream.url}})) as stub:
        result = (await stub.Chat(ask("hi", "up/m-1"), timeout=10)).result
    assert result.message.parts[0].text == "Hi"


@pytest.mark.feature("P7")
@pytest.mark.parametrize("damage", ["cut", "garbage"])
async def test_a_compressed_stream_that_breaks_is_a_typed_failure(damage: str) -> None:
    data = squeezed(stream_of("\n"))
    half = data[: len(data) // 2]
    with pytest.raises(Fault) as failed:
        await streamed(pieces(half if damage == "cut" else half + b"\x00garbage" * 20, 50, content_encoding="gzip"))
    assert isinstance(failed.value, StreamIncomplete | ProviderResponseInvalid | ProviderUnavailable), failed.value
