"""Answers larger than memory should hold, and callers slower than their provider: the gateway in a process of its own, over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.bench.serving import Server, open_server_process

from behest.provider.v1.provider_service_pb2_grpc import ProviderServiceStub
from chassis.faults import ProviderResponseInvalid
from chassis.rpc import open_channel
from kit.provider_requests import ask_stream
from kit.provider_upstream import Conversation, open_upstream

MEGABYTE = 1_000_000
PIECE = "0123456789" * 1000
END = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def event(text: str) -> bytes:
    delta = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": text}}]}
    return b"data: " + json.dumps(delta).encode() + b"\n\n"


@dataclass
class Flood:
    """A provider that streams so many bytes of text, as fast as they are taken."""

    size: int
    sent: int = 0

    async def __call__(self, conversation: Conversation) -> None:
        await conversation.head(content_type="text/event-stream")
        one = event(PIECE)
        while self.sent < self.size:
            await conversation.send(one)
            self.sent += len(PIECE)
        await conversation.send(END)


@contextlib.asynccontextmanager
async def open_flood(flood: Flood) -> AsyncIterator[tuple[ProviderServiceStub, Server]]:
    """A gateway in front of it."""
    async with open_upstream(flood) as upstream:
        serving = open_server_process("tests.bench.contenders.gateway:serve_gateway", upstream=upstream.url)
        async with serving as server, open_channel(server.address, "grpc") as channel:
            yield ProviderServiceStub(channel), server


def most_memory(server: Server) -> int:
    """The most bytes that the process had resident so far."""
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


@pytest.mark.feature("P7")
@pytest.mark.feature("O9")
async def test_a_hundred_megabytes_of_answer_are_given_up_typed_and_never_held_whole() -> None:
    async with open_flood(Flood(100 * MEGABYTE)) as (stub, server):
        before, size = most_memory(server), 0
        with pytest.raises(ProviderResponseInvalid, match="characters"):
            async for response in stub.StreamChat(ask_stream("go on", "fake/m"), timeout=60):
                size += sum(len(step.text_delta) for step in response.events)
        assert 10 * MEGABYTE < size < 50 * MEGABYTE
        assert most_memory(server) - before < 100 * MEGABYTE


@pytest.mark.feature("P16")
@pytest.mark.feature("O9")
async def test_a_caller_who_does_not_read_holds_the_provider_back_and_misses_nothing() -> None:
    flood = Flood(30 * MEGABYTE)
    async with open_flood(flood) as (stub, _):
        responses = aiter(stub.StreamChat(ask_stream("go on", "fake/m"), timeout=60))
        size = sum(len(step.text_delta) for step in (await anext(responses)).events)
        stood = -1
        while stood != flood.sent:  # until the provider cannot get rid of anything for a while
            stood = flood.sent
            await asyncio.sleep(1)
        assert stood < 20 * MEGABYTE
        async for response in responses:
            size += sum(len(step.text_delta) for step in response.events)
        assert size == flood.size == flood.sent
