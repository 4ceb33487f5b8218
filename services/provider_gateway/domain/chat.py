"""Conversations as the gateway sees them: messages, parts, tools, and the request that carries them."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field


class Role(enum.Enum):
    """Who speaks; values are the contract's numbers."""

    SYSTEM = 1
    USER = 2
    ASSISTANT = 3
    TOOL = 4


class ToolChoiceMode(enum.Enum):
    """How free the model is to call tools; values are the contract's numbers."""

    UNSPECIFIED = 0
    AUTO = 1
    NONE = 2
    REQUIRED = 3
    NAMED = 4


class FormatKind(enum.Enum):
    """What kind of text the answer is; values are the contract's numbers."""

    UNSPECIFIED = 0
    TEXT = 1
    JSON_OBJECT = 2
    JSON_SCHEMA = 3


class ReasoningEffort(enum.Enum):
    """How much to think; values are the contract's numbers."""

    UNSPECIFIED = 0
    NONE = 1
    MINIMAL = 2
    LOW = 3
    MEDIUM = 4
    HIGH = 5


class CacheLifetime(enum.Enum):
    """How long a provider keeps a marked prefix; values are the contract's numbers. UNSPECIFIED is five minutes."""

    UNSPECIFIED = 0
    FIVE_MINUTES = 1
    ONE_HOUR = 2


class CachingMode(enum.Enum):
    """Who sets the marks for the provider's prompt cache; values are the contract's numbers."""

    UNSPECIFIED = 0
    AUTO = 1
    EXPLICIT = 2
    OFF = 3


@dataclass(frozen=True, slots=True)
class OpaqueState:
    """State that only `provider` understands: kept byte for byte, sent back to it and to no other."""

    provider: str
    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class CacheMark:
    """A point up to which a provider may cache the prompt."""

    lifetime: CacheLifetime = CacheLifetime.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a piece of an answer comes from; `start` and `end` are places in the part's text, None when the provider does not say."""

    url: str = ""
    title: str = ""
    quote: str = ""
    start: int | None = None
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Notes:
    """What is said about a part beside its content. Nearly no part has any, so that they are one field of it."""

    cache: CacheMark | None = None
    citations: tuple[Citation, ...] = ()
    provider_state: tuple[OpaqueState, ...] = ()


NO_NOTES = Notes()


class _Noted:
    """The notes of a part, each by its name in the contract."""

    __slots__ = ()
    notes: Notes

    @property
    def cache(self) -> CacheMark | None:
        """The mark after this part."""
        return self.notes.cache

    @property
    def citations(self) -> tuple[Citation, ...]:
        """What the text rests on, in the text's order."""
        return self.notes.citations

    @property
    def provider_state(self) -> tuple[OpaqueState, ...]:
        """State that the provider wants back with this part."""
        return self.notes.provider_state


@dataclass(frozen=True, slots=True)
class Blob:
    """Binary content: either a `url` or `data` with its media type."""

    url: str = ""
    data: bytes = b""
    media_type: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class TextPart(_Noted):
    """Plain text."""

    text: str
    notes: Notes = NO_NOTES


@dataclass(frozen=True, slots=True)
class JsonPart(_Noted):
    """A JSON document, UTF-8."""

    data: bytes
    notes: Notes = NO_NOTES


@dataclass(frozen=True, slots=True)
class ImagePart(_Noted):
    """A picture."""

    blob: Blob
    notes: Notes = NO_NOTES


@dataclass(frozen=True, slots=True)
class DocumentPart(_Noted):
    """A document, such as a PDF."""

    blob: Blob
    notes: Notes = NO_NOTES


@dataclass(frozen=True, slots=True)
class ReasoningPart(_Noted):
    """What the model thought; `state` is the provider's signature or encrypted form."""

    text: str
    state: OpaqueState | None = None
    notes: Notes = NO_NOTES


@dataclass(frozen=True, slots=True)
class RefusalPart(_Noted):
    """The model's explanation of why it will not answer."""

    text: str
    notes: Notes = NO_NOTES


@dataclass(frozen=True, slots=True)
class OpaquePart(_Noted):
    """A block that only its provider understands."""

    state: OpaqueState
    notes: Notes = NO_NOTES


Part = TextPart | JsonPart | ImagePart | DocumentPart | ReasoningPart | RefusalPart | OpaquePart


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A model's request to run a tool; `arguments` is JSON as the model wrote it, so possibly invalid."""

    id: str
    name: str
    arguments: bytes
    provider_state: tuple[OpaqueState, ...] = ()


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a conversation."""

    role: Role
    parts: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str = ""
    tool_name: str = ""
    is_error: bool = False
    provider_state: tuple[OpaqueState, ...] = ()

    def text(self) -> str:
        """The text parts, joined."""
        return "".join(part.text for part in self.parts if isinstance(part, TextPart))


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool as a model sees it; `parameters` is a JSON Schema, UTF-8."""

    name: str
    description: str = ""
    parameters: bytes = b""
    strict: bool = False
    cache: CacheMark | None = None


@dataclass(frozen=True, slots=True)
class ToolChoice:
    """Which tools the model may or must call."""

    mode: ToolChoiceMode = ToolChoiceMode.UNSPECIFIED
    name: str = ""

    @property
    def forces(self) -> bool:
        """Whether the model must call a tool."""
        return self.mode in (ToolChoiceMode.REQUIRED, ToolChoiceMode.NAMED)


@dataclass(frozen=True, slots=True)
class ResponseFormat:
    """The form of the answer."""

    kind: FormatKind = FormatKind.UNSPECIFIED
    name: str = ""
    schema: bytes = b""
    strict: bool = False


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to draw the answer; None and UNSPECIFIED leave the provider's default."""

    temperature: float | None = None
    top_p: float | None = None
    max_output_tokens: int | None = None
    stop: tuple[str, ...] = ()
    reasoning_effort: ReasoningEffort = ReasoningEffort.UNSPECIFIED
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class PromptCaching:
    """What a provider may keep of a prompt: who sets the marks, and how long those of the gateway's own last."""

    mode: CachingMode = CachingMode.UNSPECIFIED
    lifetime: CacheLifetime = CacheLifetime.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class ResponseCaching:
    """Whether an earlier answer to exactly this request will do, and how old it may be: 0 is as old as the gateway keeps them."""

    enabled: bool = False
    max_age_seconds: int = 0


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A conversation to answer. Nothing set here is silently dropped."""

    messages: tuple[Message, ...]
    model: str = ""
    request_id: str = ""
    tools: tuple[ToolDefinition, ...] = ()
    tool_choice: ToolChoice = field(default_factory=ToolChoice)
    response_format: ResponseFormat = field(default_factory=ResponseFormat)
    sampling: Sampling = field(default_factory=Sampling)
    metadata: Mapping[str, str] = field(default_factory=dict)
    parallel_tool_calls: bool | None = None
    prompt_caching: PromptCaching = field(default_factory=PromptCaching)
    response_caching: ResponseCaching = field(default_factory=ResponseCaching)
    budget_key: str = ""
