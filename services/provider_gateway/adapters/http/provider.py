"""A provider behind HTTP: sends what its wire encodes, reads what comes back, and makes a typed fault of everything else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace

from chassis.faults import (
    Fault,
    ProviderCredentialsMissing,
    ProviderResponseInvalid,
    ProviderTimeout,
    ProviderUnavailable,
    SettingsInvalid,
    StreamIncomplete,
    UpstreamFault,
)
from chassis.world import Clock
from provider_gateway.adapters.http.keys import Keys
from provider_gateway.adapters.http.refusals import Refused, fault_of, refusal_of
from provider_gateway.adapters.http.sse import MAX_EVENT_BYTES
from provider_gateway.adapters.http.transport import (
    BodyCut,
    ConnectFailed,
    ConnectTimedOut,
    Http,
    HttpResponse,
    NotHttp,
    TransportError,
)
from provider_gateway.adapters.wire import Encoded, RefusedInStream, Wire
from provider_gateway.domain.answers import ChatEvent, ChatResult, Finished, RequestWarning, burst, is_output
from provider_gateway.domain.embeddings import EmbedResult
from provider_gateway.operations.ports import EmbedCall, ModelCall

MAX_BODY_BYTES = 64 * 1024 * 1024
NOT_OFFERED = frozenset({"404", "405", "501"})
MAX_ERROR_BYTES = 64 * 1024
LAST_SECONDS = 1.0  # that a server may take to end its stream after the end marker
LEAST_SECRET = 8  # characters of a header that may be a secret
MOST_RELAXED = 3  # optional fields that one call may find refused, one after the other
_HEADERS = {"content-type": "application/json", "accept-encoding": "identity"}  # inflating costs more than it saves on small events


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a provider is and how to get in: reading a key or a header raises SettingsInvalid when it is not there; None needs no key.

    `more_keys` take turns with the first. After the first output a stream is read once in `window` seconds.
    """

    base_url: str
    key: Callable[[], str] | None = None
    headers: Mapping[str, Callable[[], str]] = field(default_factory=dict)
    event_bytes: int = MAX_EVENT_BYTES
    window: float = 0.0
    more_keys: Sequence[Callable[[], str]] = ()


class HttpProvider:
    """A provider that speaks `wire` at `endpoint`."""

    def __init__(self, name: str, wire: Wire, endpoint: Endpoint, http: Http, clock: Clock) -> None:
        self.name, self.adapter, self.base_url = name, wire.adapter, endpoint.base_url
        self._wire, self._endpoint, self._http, self._clock = wire, endpoint, http, clock
        self._keys = Keys([*([endpoint.key] if endpoint.key else []), *endpoint.more_keys], clock)

    def problem(self) -> str:
        """Why it cannot be called; empty when it can."""
        try:
            self._keys.check()
            self._secrets()
        except SettingsInvalid as fault:
            return self._lacking(fault).message
        except ProviderCredentialsMissing as fault:
            return fault.message
        return ""

    async def complete(self, call: ModelCall) -> ChatResult:
        """The whole answer, asked for without streaming."""
        wire = self._wire
        for _ in range(MOST_RELAXED):
            try:
                return await self._complete(call, wire)
            except Fault as fault:
                wire = self._relaxed(wire, fault)
        return await self._complete(call, wire)

    async def stream(self, call: ModelCall) -> AsyncGenerator[Sequence[ChatEvent], None]:
        """The answer as it comes."""
        begun, wire = False, self._wire
        for _ in range(MOST_RELAXED):
            try:
                async with aclosing(self._stream(call, wire)) as batches:
                    async for batch in batches:
                        begun = True
                        yield batch
                return
            except Fault as fault:
                if begun:
                    raise
                wire = self._relaxed(wire, fault)
        async with aclosing(self._stream(call, wire)) as batches:
            async for batch in batches:
                yield batch

    @property
    def embed_limit(self) -> int:
        """Inputs that one call may have."""
        return self._wire.embed_limit

    @property
    def embed_tokens(self) -> int:
        """Tokens that the inputs of one call may have together."""
        return self._wire.embed_tokens

    async def embed(self, call: EmbedCall) -> EmbedResult:
        """One vector for each input."""
        wire = self._wire
        for _ in range(MOST_RELAXED):
            try:
                return await self._embed(call, wire)
            except Fault as fault:
                wire = self._relaxed(wire, fault)
        return await self._embed(call, wire)

    async def count(self, call: ModelCall) -> int | None:
        """Input tokens as the provider counts them."""
        encoded = self._wire.encode_count(call)
        if encoded is None:
            return None
        try:
            async with self._exchange(call.model, encoded, "application/json") as response:
                return self._wire.decode_count(await self._body(response))
        except UpstreamFault as fault:
            if fault.metadata.get("status") in NOT_OFFERED:  # a server that speaks the protocol but for this method
                return None
            raise

    def _relaxed(self, wire: Wire, fault: Fault) -> Wire:
        """The wire without the optional field that the server refused; raises the fault when it was something else.

        From now on calls go without it. Those that were under way together are refused together, and each is made again.
        """
        relaxed = wire.relaxed(fault)
        if relaxed is None:
            raise fault
        if self._wire is wire:
            self._wire = relaxed
        return relaxed

    async def _embed(self, call: EmbedCall, wire: Wire) -> EmbedResult:
        encoded = wire.encode_embed(call)
        async with self._exchange(call.model, encoded, "application/json") as response:
            result = wire.decode_embed(await self._body(response), call)
        return replace(result, warnings=encoded.warnings + result.warnings) if encoded.warnings else result

    async def _complete(self, call: ModelCall, wire: Wire) -> ChatResult:
        encoded = wire.encode(call, stream=False)
        async with self._exchange(call.model, encoded, "application/json") as response:
            return _warned(wire.decode(await self._body(response)), encoded.warnings)

    async def _stream(self, call: ModelCall, wire: Wire) -> AsyncGenerator[Sequence[ChatEvent], None]:
        encoded = wire.encode(call, stream=True)
        async with self._exchange(call.model, encoded, "text/event-stream") as response:
            if _is_whole(response.headers.get("content-type", "")):  # an error in a 200, or a server that does not stream
                result = _warned(wire.decode(await self._body(response)), encoded.warnings)
                yield burst(result)
                return
            async for batch in self._batches(response, wire):
                yield _finished_warned(batch, encoded.warnings)

    async def _batches(self, response: HttpResponse, wire: Wire) -> AsyncGenerator[list[ChatEvent], None]:
        parser, decoder, begun = wire.parser(self._endpoint.event_bytes), wire.decoder(), False
        while piece := await response.read(self._endpoint.window if begun else 0.0):
            try:
                batch = decoder.feed(parser.feed(piece))
            except (RefusedInStream, ProviderResponseInvalid, RecursionError):
                if begun:  # what came before the trouble is part of what was produced
                    yield decoder.drain()
                raise
            begun = begun or any(map(is_output, batch))
            yield batch
            if decoder.done:
                await _rest_of(response)
                yield decoder.end()
                return
        try:
            rest = decoder.feed(parser.end())
        except ProviderResponseInvalid:  # the last event was cut in the middle
            raise self._incomplete("the last event is cut") from None
        yield rest + decoder.end()

    @asynccontextmanager
    async def _exchange(self, model: str, encoded: Encoded, accept: str) -> AsyncIterator[HttpResponse]:
        """A successful response; everything that goes wrong in it comes out as a fault."""
        tried: list[str] = []
        while True:
            key, own = self._secrets(tried)
            tried.append(key)
            refused = Refused(self.name, model, key, _told_by(own))
            headers = {**_HEADERS, "accept": accept, **self._wire.headers(key), **own}
            try:
                async with self._http.post(self._url(encoded), headers, encoded.body) as response:
                    if 200 <= response.status < 300:
                        yield response
                        return
                    refusal = refusal_of(response.status, await self._start_of(response))
                    fault = fault_of(refusal, refused, response.headers, self._clock.now())
            except RefusedInStream as error:
                fault = fault_of(error.refusal, refused)
                self._keys.turned_away(key, fault)
                raise fault from None
            except RecursionError:
                raise ProviderResponseInvalid(
                    f"{self.name} sent JSON that is nested too deeply; check what stands between", metadata={"provider": self.name}
                ) from None
            except TransportError as error:
                raise self._transport_fault(error, streaming=accept == "text/event-stream") from None
            if not self._keys.turned_away(key, fault, tried):
                fault.retry_after = self._keys.patience(fault)
                raise fault

    def _url(self, encoded: Encoded) -> str:
        base_url = self._endpoint.base_url
        return f"{base_url.removesuffix('/v1') if encoded.beside_v1 else base_url}{encoded.path}"

    async def _body(self, response: HttpResponse) -> bytes:
        pieces, size = [], 0
        while piece := await response.read():
            pieces.append(piece)
            size += len(piece)
            if size > MAX_BODY_BYTES:
                raise ProviderResponseInvalid(
                    f"{self.name} sent a body of more than {MAX_BODY_BYTES} bytes; ask for less output", metadata={"provider": self.name}
                )
        return b"".join(pieces)

    async def _start_of(self, response: HttpResponse) -> bytes:
        body = b""
        while len(body) < MAX_ERROR_BYTES and (piece := await response.read()):
            body += piece
        return body

    def _secrets(self, tried: Sequence[str] = ()) -> tuple[str, dict[str, str]]:
        """A key that was not tried yet, empty where none is needed, and the provider's own headers."""
        try:
            key, headers = self._keys.take(tried), {name: read() for name, read in self._endpoint.headers.items()}
        except SettingsInvalid as fault:
            raise self._lacking(fault) from None
        for where, value in (("api_key", key), *((f"headers.{name}", value) for name, value in headers.items())):
            if not value.isprintable():
                text = f"{self.name} has a secret that no header can hold: {where} has a line break or another control character"
                raise ProviderCredentialsMissing(f"{text}; write it on one line", metadata={"provider": self.name, "field": where})
        return key, headers

    def _lacking(self, fault: SettingsInvalid) -> ProviderCredentialsMissing:
        text = f"{self.name} lacks a secret: {fault.message}"
        return ProviderCredentialsMissing(text, metadata={"provider": self.name, **fault.metadata})

    def _transport_fault(self, error: TransportError, streaming: bool) -> Fault:
        metadata = {"provider": self.name}
        where = self.base_url
        match error:
            case ConnectTimedOut():
                return ProviderTimeout(
                    f"{self.name} accepts no connection at {where} in time; check base_url and the network", metadata=metadata
                )
            case ConnectFailed():
                return ProviderUnavailable(
                    f"{self.name} cannot be reached at {where}: {error}; check base_url and the network", metadata=metadata
                )
            case BodyCut() if streaming:
                return self._incomplete(str(error))
            case NotHttp():
                return ProviderResponseInvalid(f"{self.name} does not speak HTTP at {where}: {error}; check base_url", metadata=metadata)
        return ProviderUnavailable(f"{self.name} broke off its answer: {error}; retry", metadata=metadata)

    def _incomplete(self, why: str) -> StreamIncomplete:
        return StreamIncomplete(
            f"{self.name} broke off the stream ({why}); what came is a part of the answer", metadata={"provider": self.name}
        )


async def _rest_of(response: HttpResponse) -> None:
    """Reads to the end, after which the connection can be used again; an answer that is complete neither waits long for it nor fails."""
    with contextlib.suppress(TimeoutError, TransportError):
        async with asyncio.timeout(LAST_SECONDS):
            while await response.read():
                pass


def _is_whole(content_type: str) -> bool:
    """Whether a body of this type is one JSON document; lines of JSON are a stream."""
    return "json" in content_type and "ndjson" not in content_type


def _told_by(headers: Mapping[str, str]) -> tuple[str, ...]:
    """What must not be told of configured headers: all that is long enough for a secret, with and without a word such as Bearer."""
    values = {word for value in headers.values() for word in (value, value.rpartition(" ")[2])}
    return tuple(sorted((value for value in values if len(value) >= LEAST_SECRET), key=len, reverse=True))


def _warned(result: ChatResult, warnings: tuple[RequestWarning, ...]) -> ChatResult:
    return replace(result, warnings=warnings + result.warnings) if warnings else result


def _finished_warned(batch: list[ChatEvent], warnings: tuple[RequestWarning, ...]) -> list[ChatEvent]:
    if warnings and batch and isinstance(batch[-1], Finished):
        batch[-1] = Finished(_warned(batch[-1].result, warnings))
    return batch
