"""An upstream that speaks OpenAI's Chat Completions, from bytes made beforehand. The model's name says what to send as a stream.

`chunks-400-gap-20` is an answer of 400 chunks, 20 ms apart; a gap of 0 sends all at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import re
from collections.abc import AsyncIterator
from typing import Any, cast

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
END = b"0\r\n\r\n"
_MODEL = re.compile(rb'"model":\s*"chunks-(\d+)-gap-(\d+)"')
_STREAM = re.compile(rb'"stream":\s*true')
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)


def model_name(chunks: int, gap: int) -> str:
    """The model that answers in so many chunks, so many milliseconds apart."""
    return f"chunks-{chunks}-gap-{gap}"


def _event(delta: dict[str, Any], **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": more.pop("finish_reason", None)}
    head = {
        "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "object": "chat.completion.chunk",
        "created": 1741570283,
        "model": "gpt-4.1-mini",
    }
    body = b"data: " + json.dumps(head | {"system_fingerprint": "fp_fc9f1d7035", "choices": [choice]} | more).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(body), body)


FIRST = _event({"role": "assistant", "content": "", "refusal": None})
# All of one length; and not the same again and again, which some gateways take for a model that is stuck.
PIECES = [_event({"content": f" {word}"}) for word in ("every", "chunk", "reads", "other", "words", "since", "peers", "watch", "loops")]
LAST = _event({}, finish_reason="stop", usage={"prompt_tokens": 19, "completion_tokens": 400, "total_tokens": 419})
DONE = b"e\r\ndata: [DONE]\n\n\r\n"


_ANSWER = json.dumps(
    {
        "id": "chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG",
        "object": "chat.completion",
        "created": 1741570283,
        "model": "gpt-4.1-mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": " token"}, "logprobs": None, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 19, "completion_tokens": 1, "total_tokens": 20},
    }
).encode()
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_ANSWER), _ANSWER)


@functools.cache
def _whole(chunks: int) -> bytes:
    return HEAD + FIRST + b"".join(PIECES[number % len(PIECES)] for number in range(chunks)) + LAST + DONE + END


class _Upstream(asyncio.Protocol):
    """One connection, kept alive from request to request."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is none by name

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if blank and length and len(body) >= int(length[1]):
            self._received = b""
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        found = _MODEL.search(body)
        assert found, body
        chunks, gap = int(found[1]), int(found[2])
        if not _STREAM.search(body):
            self._transport.write(WHOLE)
            return
        if not gap:
            self._transport.write(_whole(chunks))
            return
        self._transport.write(HEAD + FIRST)
        loop = asyncio.get_running_loop()
        self._tick(loop, chunks, gap / 1000, loop.time() + gap / 1000)

    def _tick(self, loop: asyncio.AbstractEventLoop, left: int, gap: float, at: float) -> None:
        if self._transport.is_closing():
            return
        if not left:
            self._transport.write(LAST + DONE + END)
            return
        self._transport.write(PIECES[left % len(PIECES)])
        loop.call_at(at, self._tick, loop, left - 1, gap, at + gap)


@contextlib.asynccontextmanager
async def serve_upstream() -> AsyncIterator[str]:
    """The upstream's base URL."""
    server = await asyncio.get_running_loop().create_server(_Upstream, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    server.close()
