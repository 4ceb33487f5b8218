"""Answers kept for requests that come again exactly: opt-in with each request, a tenant's own, bounded, in this process's memory."""

from __future__ import annotations

import enum
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol

from chassis.rpc import current_call
from chassis.world import Clock
from provider_gateway.domain.admission import admit
from provider_gateway.domain.answers import ChatEvent, ChatResult, Finished, FinishReason, Usage, burst
from provider_gateway.domain.chat import ChatRequest, ResponseCaching

NOTHING = Usage(cost_known=True, calls=0)
_COMPLETE = (FinishReason.STOP, FinishReason.TOOL_CALLS)
_OVERHEAD = 2048  # bytes of an entry beside its texts
_ANY = ResponseCaching()


class Answering(Protocol):
    """Answers conversations; see Chats."""

    async def complete(self, request: ChatRequest, deadline: float | None) -> ChatResult:
        """The whole answer."""

    def stream(self, request: ChatRequest, deadline: float | None) -> AsyncGenerator[list[ChatEvent], None]:
        """The answer as it comes."""


@dataclass(frozen=True, slots=True)
class CacheBounds:
    """How much is kept, and for how many seconds."""

    entries: int = 1000
    size: int = 64 * 1024 * 1024
    age: float = 3600.0


@dataclass(frozen=True, slots=True)
class _Entry:
    result: ChatResult
    size: int
    since: float


class ResponseCache:
    """Results by key. The one that was not asked for the longest goes first."""

    def __init__(self, bounds: CacheBounds, clock: Clock) -> None:
        self._bounds, self._clock = bounds, clock
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: bytes, max_age: float) -> ChatResult | None:
        """The result, when it is not older than so many seconds; 0 is as old as results get here."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        age = self._clock.monotonic() - entry.since
        if age > self._bounds.age:
            self._drop(key)
            return None
        if max_age and age > max_age:
            return None
        self._entries.move_to_end(key)
        return entry.result

    def keep(self, key: bytes, result: ChatResult) -> None:
        """Keeps a result if it is complete and not larger than all that may be kept."""
        if result.finish_reason not in _COMPLETE or result.seams:
            return
        size = _OVERHEAD + _size(result)
        if size > self._bounds.size:
            return
        self._drop(key)
        self._entries[key] = _Entry(result, size, self._clock.monotonic())
        self.size += size
        while len(self._entries) > self._bounds.entries or self.size > self._bounds.size:
            self._drop(next(iter(self._entries)))

    def _drop(self, key: bytes) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry.size


class CachedChats:
    """Chats that answer from the cache where the request allows it. `targets` gives what a model's name stands for."""

    def __init__(self, chats: Answering, cache: ResponseCache, targets: Callable[[str], Sequence[str]]) -> None:
        self._chats, self._cache, self._targets = chats, cache, targets

    async def complete(self, request: ChatRequest, deadline: float | None) -> ChatResult:
        """The whole answer, of now or of before."""
        if not request.response_caching.enabled:
            return await self._chats.complete(request, deadline)
        key, known = self._look(request)
        if known is not None:
            return known
        result = await self._chats.complete(request, deadline)
        self._cache.keep(key, result)
        return result

    async def stream(self, request: ChatRequest, deadline: float | None) -> AsyncGenerator[list[ChatEvent], None]:
        """The answer as it comes, or one of before at once."""
        key, known = self._look(request) if request.response_caching.enabled else (b"", None)
        if known is not None:
            yield burst(known)
            return
        async with aclosing(self._chats.stream(request, deadline)) as batches:
            async for batch in batches:
                if key:
                    self._hear(key, batch)
                yield batch

    def _look(self, request: ChatRequest) -> tuple[bytes, ChatResult | None]:
        admit(request)
        key = cache_key(current_call().tenant, request, self._targets(request.model))
        known = self._cache.find(key, request.response_caching.max_age_seconds)
        return key, None if known is None else replace(known, usage=NOTHING, cached=True)

    def _hear(self, key: bytes, batch: Iterable[ChatEvent]) -> None:
        for event in batch:
            if isinstance(event, Finished):
                self._cache.keep(key, event.result)


def cache_key(tenant: str, request: ChatRequest, targets: Sequence[str]) -> bytes:
    """What tells apart requests that may be answered differently.

    The request's id, its labels, whose budget it is for and the wish for caching make no difference; everything else does. Its model is
    looked at as what it stands for.
    """
    asked = replace(request, model="", request_id="", metadata={}, budget_key="", response_caching=_ANY)
    digest = hashlib.sha256()
    _feed(digest.update, (tenant, tuple(sorted(targets)), asked))
    return digest.digest()


def _feed(update: Callable[[bytes], None], value: Any) -> None:
    """Every value with its kind and length before it, so that no two values are the same bytes."""
    if is_dataclass(value):
        update(f"{type(value).__name__}(".encode())
        for field in fields(value):
            _feed(update, getattr(value, field.name))
    elif isinstance(value, tuple):
        update(f"t{len(value)}(".encode())
        for item in value:
            _feed(update, item)
    elif isinstance(value, str | bytes):
        data = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        update(f"{'s' if isinstance(value, str) else 'b'}{len(data)}:".encode())
        update(data)
    elif isinstance(value, enum.Enum):
        update(f"{type(value).__name__}.{value.name};".encode())
    elif value is None or isinstance(value, int | float | dict):
        assert not value or not isinstance(value, dict), "labels make no difference"
        update(f"{value!r};".encode())
    else:
        raise AssertionError(f"a {type(value).__name__} in a request")


def _size(value: Any) -> int:
    """Bytes of the texts and data in a value, about."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, tuple):
        return sum(map(_size, value))
    if is_dataclass(value):
        return 64 + sum(_size(getattr(value, field.name)) for field in fields(value))
    return 0
