"""The carrier mux, calling side: many calls on one stream, in batches. How a stream works is link.py's, which there are links.py's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message import Message

from chassis.faults import Internal, MessageTooLarge
from chassis.rpc.call import Call
from chassis.rpc.link import MuxIncoming
from chassis.rpc.links import Dial, Links
from chassis.rpc.methods import Requests
from chassis.rpc.plain import DEFAULT_TIMEOUT, MAX_MESSAGE
from chassis.rpc.stubs import Incoming, Rpc, StubChannel

Affinity = Callable[[Any], str]


def no_affinity(_: Any) -> str:
    """No request has a key."""
    return ""


class MuxChannel(StubChannel):
    """Carries all its calls on one stream per replica, or a few. Connects when it is called.

    `affinity` gives a request's key: calls of one key go to the same replica, from whatever process, as long as that one can be reached.
    """

    def __init__(
        self,
        target: str,
        dial: Dial,
        *,
        streams: int = 1,
        timeout: float | None = DEFAULT_TIMEOUT,
        idempotent: frozenset[str] = frozenset(),
        max_message: int = MAX_MESSAGE,
        affinity: Affinity = no_affinity,
    ) -> None:
        super().__init__(timeout=timeout, idempotent=idempotent)
        self.links = Links(target, dial, streams)
        self.affinity = affinity
        self._max_message = max_message

    async def unary(self, rpc: Rpc, call: Call, requests: Requests) -> Message:
        """The one response."""
        if rpc.request_streaming:
            return await self._single(rpc, self.stream(rpc, call, requests))
        payload = self.encoded(rpc, requests)
        key = self.affinity(requests)
        link = self.links.pick(key) or await self.links.connect(call, key)
        if link.outbox.full:
            await link.outbox.room()
        return await link.ask(rpc, call, payload)

    async def _single(self, rpc: Rpc, incoming: Incoming) -> Message:
        try:
            return await incoming.receive()
        except StopAsyncIteration:
            raise Internal(f"{rpc.path} ended without a response; both sides must run compatible versions") from None
        finally:
            incoming.cancel()

    def stream(self, rpc: Rpc, call: Call, requests: Requests) -> Incoming:
        """The responses."""
        return MuxIncoming(self, rpc, call, requests)

    def encoded(self, rpc: Rpc, request: Any) -> bytes:
        """The request's bytes; raises MessageTooLarge before the stream would break of them."""
        payload = rpc.serialize(request)
        if len(payload) > self._max_message:
            raise too_large(rpc.path, len(payload), self._max_message)
        return payload

    async def close(self, grace: float | None = None) -> None:
        """Cancels the calls under way and closes the connections."""
        await self.links.close()


def too_large(path: str, size: int, limit: int) -> MessageTooLarge:
    """The fault for a message over the limit."""
    text = f"a message of {path} has {size} bytes, more than the {limit} allowed; send less at once"
    return MessageTooLarge(text, metadata={"size": str(size), "limit": str(limit)})
