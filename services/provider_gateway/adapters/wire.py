"""What an HTTP provider's protocol is made of: a pure mapping from request to bytes and from bytes to answer."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import msgspec

from chassis.faults import CapabilityMissing, Fault, FieldNotExpressible, ProviderResponseInvalid
from provider_gateway.adapters.http.refusals import Refusal
from provider_gateway.adapters.http.sse import SseEvent, SseParser
from provider_gateway.domain.answers import ChatEvent, ChatResult, RequestWarning
from provider_gateway.domain.chat import (
    Blob,
    CacheLifetime,
    CachingMode,
    ChatRequest,
    JsonPart,
    Message,
    OpaqueState,
    Part,
    Role,
    TextPart,
    ToolCall,
    ToolDefinition,
)
from provider_gateway.domain.embeddings import EmbedResult
from provider_gateway.domain.prompt_cache import marked_paths
from provider_gateway.domain.schemas import Inexpressible, Subset, adapt
from provider_gateway.operations.ports import EmbedCall, ModelCall


@dataclass(frozen=True, slots=True)
class Encoded:
    """A request ready to send: the path below the base URL, or beside its /v1, the body, and what was adapted."""

    path: str
    body: bytes
    warnings: tuple[RequestWarning, ...] = ()
    beside_v1: bool = False


class RefusedInStream(Exception):
    """The provider reported an error inside a successful response; the caller makes a fault of the refusal."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


class StreamParser(Protocol):
    """Turns the bytes of one stream into events, however they were cut. Bounded: an event too large is ProviderResponseInvalid."""

    def feed(self, chunk: bytes) -> list[SseEvent]:
        """The events that chunk completes."""

    def end(self) -> list[SseEvent]:
        """The event that the end of the stream completes, if one is under way."""


class StreamDecoder(Protocol):
    """Turns events of one response into steps of one answer."""

    @property
    def done(self) -> bool:
        """Whether the protocol's end marker came: what follows is no part of the answer. Always False where there is no such marker."""

    def feed(self, events: Iterable[SseEvent]) -> list[ChatEvent]:
        """What these events mean. Raises RefusedInStream for an error event, ProviderResponseInvalid for garbage."""

    def drain(self) -> list[ChatEvent]:
        """What was understood before feed raised."""

    def end(self) -> list[ChatEvent]:
        """What the end of the stream means: the rest of the answer, or StreamIncomplete when the end marker did not come."""


class Wire(Protocol):
    """One provider protocol, without I/O."""

    @property
    def adapter(self) -> str:
        """What the protocol is called in the configuration."""

    def headers(self, key: str) -> Mapping[str, str]:
        """The headers that carry the key; key may be empty where the provider needs none."""

    def encode(self, call: ModelCall, *, stream: bool) -> Encoded:
        """The request. Raises FieldNotExpressible naming the field that the protocol has no words for."""

    def decode(self, body: bytes) -> ChatResult:
        """The answer that was given at once. Raises RefusedInStream or ProviderResponseInvalid."""

    def decoder(self) -> StreamDecoder:
        """A decoder for one streamed answer."""

    def parser(self, max_event_bytes: int) -> StreamParser:
        """What cuts a stream into events."""

    @property
    def embed_limit(self) -> int:
        """Inputs that one call may have; 0 when the protocol embeds nothing."""

    @property
    def embed_tokens(self) -> int:
        """Tokens that the inputs of one call may have together; 0 where nothing is known."""

    def encode_embed(self, call: EmbedCall) -> Encoded:
        """The request for vectors. Raises FieldNotExpressible; CapabilityMissing where the protocol has none."""

    def decode_embed(self, body: bytes, call: EmbedCall) -> EmbedResult:
        """The vectors, one for each input, in order."""

    def encode_count(self, call: ModelCall) -> Encoded | None:
        """The request that counts input tokens; None where the protocol has none."""

    def decode_count(self, body: bytes) -> int:
        """The count."""

    def relaxed(self, fault: Fault) -> Self | None:
        """The same protocol without the optional field that fault complains about, None when it complains about something else."""


class Wordless:
    """What a protocol answers that streams server-sent events and neither embeds nor counts. Wires begin with it and say what differs."""

    __slots__ = ()
    adapter: str
    provider: str

    def parser(self, max_event_bytes: int) -> StreamParser:
        """One for server-sent events."""
        return SseParser(max_event_bytes)

    @property
    def embed_limit(self) -> int:
        """None."""
        return 0

    @property
    def embed_tokens(self) -> int:
        """Not known."""
        return 0

    def encode_embed(self, call: EmbedCall) -> Encoded:
        """Refuses."""
        raise CapabilityMissing(
            f"{self.provider} embeds nothing: its protocol, {self.adapter}, has no words for it; choose another provider",
            metadata={"model": call.model, "missing": "embeddings"},
        )

    def decode_embed(self, body: bytes, call: EmbedCall) -> EmbedResult:
        """Cannot come to pass."""
        raise AssertionError(f"{self.adapter} embeds nothing")

    def encode_count(self, call: ModelCall) -> Encoded | None:
        """None."""
        return None

    def decode_count(self, body: bytes) -> int:
        """Cannot come to pass."""
        raise AssertionError(f"{self.adapter} counts nothing")


def not_expressible(path: str, provider: str, remedy: str) -> FieldNotExpressible:
    """The fault for a field that a provider has no words for."""
    return FieldNotExpressible(f"{provider} cannot express {path}; {remedy}", metadata={"field": path, "provider": provider})


def adapted_schema(schema: bytes, subset: Subset, path: str, provider: str, warnings: list[RequestWarning]) -> bytes:
    """The JSON Schema that stands at `path` of the request as the provider takes it; bounds that it lost on the way are warned of.

    Raises FieldNotExpressible naming the place within the schema that the provider has no words for.
    """
    try:
        adapted = adapt(schema, subset)
    except Inexpressible as error:
        raise not_expressible(f"{path}{error.path}", provider, error.remedy) from None
    if adapted.loosened:
        told = f"{provider} does not hold the model to it; check what it gives"
        warnings += [RequestWarning(f"{path}{place}", told) for place in adapted.loosened]
    return adapted.schema


def unmarkable(request: ChatRequest, provider: str) -> list[RequestWarning]:
    """What to say of wishes for prompt caching to a provider that takes no marks because it keeps what repeats by itself, or nothing."""
    told = [RequestWarning(path, f"left out: {provider} takes no marks in prompts") for path in marked_paths(request)]
    caching = request.prompt_caching
    if caching.mode is CachingMode.OFF:
        told.append(RequestWarning("prompt_caching.mode", f"left out: {provider} cannot be told what not to keep"))
    if caching.lifetime is CacheLifetime.ONE_HOUR:
        told.append(RequestWarning("prompt_caching.lifetime", f"left out: {provider} decides itself how long it keeps a prompt"))
    return told


def in_order(tools: Sequence[ToolDefinition]) -> list[tuple[int, ToolDefinition]]:
    """The tools by name, each with its place in the request: however the caller collected them, the same tools are the same prefix."""
    return sorted(enumerate(tools), key=lambda placed: placed[1].name)


def malformed(provider: str, what: str, data: bytes) -> ProviderResponseInvalid:
    """The fault for bytes that are not the provider's protocol; shows their beginning."""
    shown = data[:200].decode("utf-8", "replace")
    return ProviderResponseInvalid(
        f"{provider} sent {what} that is not its protocol: {shown!r}; check the provider's base_url and what stands between",
        metadata={"provider": provider},
    )


def data_url(blob: Blob) -> str:
    """A blob's bytes as a data URL."""
    return f"data:{blob.media_type};base64,{base64.b64encode(blob.data).decode()}"


def blob_of_url(url: str) -> Blob:
    """A blob from an URL, which may be a data URL."""
    if not url.startswith("data:"):
        return Blob(url=url)
    head, _, payload = url[5:].partition(",")
    return Blob(data=base64.b64decode(payload), media_type=head.removesuffix(";base64"))


def states(owner: Message, provider: str, kind: str) -> list[bytes]:
    """The message's states of one kind that belong to provider."""
    return [state.data for state in owner.provider_state if state.provider == provider and state.kind == kind]


def raw(data: bytes) -> msgspec.Raw:
    """JSON that is embedded as it stands. Whoever calls has seen that it is JSON: anything else could pass for the rest of the request."""
    return msgspec.Raw(data)


def state_value(data: bytes, path: str, provider: str, kind: Any = Any) -> Any:
    """The JSON value of state that comes back by way of a caller. Raises FieldNotExpressible for what cannot have come from there."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise _altered(path, provider) from None


def state_raw(data: bytes, path: str, provider: str) -> msgspec.Raw:
    """State as JSON that is embedded as it stands. Raises FieldNotExpressible for what is no JSON."""
    state_value(data, path, provider)
    return raw(data)


def state_text(data: bytes, path: str, provider: str) -> str:
    """State that is a text. Raises FieldNotExpressible for what is none."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise _altered(path, provider) from None


def _altered(path: str, provider: str) -> FieldNotExpressible:
    return not_expressible(path, provider, "it is not what came from there; send back what came, byte for byte, or leave it out")


def arguments_value(arguments: bytes) -> Any:
    """The value of a tool call's arguments; None for what is not JSON, or nested deeper than anybody can read."""
    try:
        return msgspec.json.decode(arguments)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def json_bytes(value: Any) -> bytes:
    """A value as JSON bytes."""
    return msgspec.json.encode(value)


def opaque(provider: str, kind: str, value: Any) -> OpaqueState:
    """A JSON value as state that belongs to provider."""
    return OpaqueState(provider, kind, json_bytes(value))


def leading_systems(messages: Sequence[Message]) -> int:
    """How many system messages a conversation begins with."""
    return next((place for place, message in enumerate(messages) if message.role is not Role.SYSTEM), len(messages))


def system_text(path: str, part: Part, provider: str) -> str:
    """A part of a system message as text; raises FieldNotExpressible for what is none."""
    match part:
        case TextPart(text):
            return text
        case JsonPart(data):
            return data.decode()
    raise not_expressible(path, provider, "system messages hold text and JSON only; move the rest into a user message")


def object_arguments(path: str, call: ToolCall, warnings: list[RequestWarning]) -> Any:
    """A call's arguments for a protocol that takes objects only: what is none is wrapped, with a warning."""
    if isinstance(arguments_value(call.arguments), dict):
        return raw(call.arguments)
    warnings.append(RequestWarning(f"{path}.arguments", "not a JSON object; sent as {'invalid_arguments': text}"))
    return {"invalid_arguments": call.arguments.decode("utf-8", "replace")}
