"""Which requests are worth sending: everything wrong with a request at once, and what the model lacks for it."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Iterator

from chassis.faults import CapabilityMissing, RequestInvalid, Violation
from provider_gateway.domain.chat import (
    Blob,
    ChatRequest,
    DocumentPart,
    FormatKind,
    ImagePart,
    JsonPart,
    Message,
    ReasoningEffort,
    Role,
    Sampling,
    TextPart,
    ToolChoiceMode,
)
from provider_gateway.domain.models import Capabilities

MAX_REQUEST_ID = 128
MAX_METADATA = 16
MAX_MODEL = 512
MAX_BUDGET_KEY = 128
MAX_STOPS = 16
_NO_REASONING = (ReasoningEffort.UNSPECIFIED, ReasoningEffort.NONE)
_TOOL_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def admit(request: ChatRequest) -> None:
    """Raises RequestInvalid naming every field that is wrong."""
    violations = tuple(_violations(request))
    if violations:
        summary = "; ".join(f"{v.field}: {v.description}" for v in violations)
        raise RequestInvalid(f"the request cannot be sent: {summary}", violations=violations)


def require(request: ChatRequest, capabilities: Capabilities, model: str) -> None:
    """Raises CapabilityMissing naming everything that the request needs and the model lacks."""
    missing = lacking(needs(request), capabilities)
    if missing:
        raise CapabilityMissing(
            f"{model} lacks {', '.join(missing)}; choose a model that has it, or correct the model's capabilities in the configuration",
            metadata={"model": model, "missing": ",".join(missing)},
        )


def lacking(needed: Iterable[str], capabilities: Capabilities) -> list[str]:
    """What of the needed the capabilities do not have, sorted."""
    return sorted(need for need in needed if not getattr(capabilities, need))


def needs(request: ChatRequest) -> frozenset[str]:
    """The capabilities that a request cannot do without, by field name of Capabilities."""
    found: set[str] = set()
    if request.tools:
        found.add("tools")
    if request.response_format.kind is FormatKind.JSON_SCHEMA:
        found.add("json_schema")
    if request.sampling.reasoning_effort not in _NO_REASONING:
        found.add("reasoning")
    if any(isinstance(part, ImagePart) for message in request.messages for part in message.parts):
        found.add("vision")
    return frozenset(found)


def _violations(request: ChatRequest) -> Iterator[Violation]:
    if not request.messages:
        yield Violation("messages", "at least one message is needed")
    if len(request.request_id) > MAX_REQUEST_ID:
        yield Violation("request_id", f"{len(request.request_id)} characters; at most {MAX_REQUEST_ID}")
    yield from model_name(request.model)
    yield from budget_key(request.budget_key)
    if request.response_caching.max_age_seconds < 0:
        yield Violation(
            "response_caching.max_age_seconds", f"{request.response_caching.max_age_seconds} is negative; leave it 0 for any age"
        )
    if len(request.metadata) > MAX_METADATA:
        yield Violation("metadata", f"{len(request.metadata)} pairs; at most {MAX_METADATA}")
    for place, message in enumerate(request.messages):
        # nearly every message is a plain one of a long history: no generator and no path for those
        if not _is_plain(message):
            yield from _message(f"messages[{place}]", message)
    yield from _tools(request)
    yield from _format(request)
    yield from _sampling(request.sampling)


def model_name(model: str) -> Iterator[Violation]:
    """What is wrong with a model's name: it becomes part of addresses, names and rows."""
    if len(model) > MAX_MODEL or not model.isprintable():
        yield Violation("model", f"at most {MAX_MODEL} printable characters")
    elif ".." in model.split("/"):
        yield Violation("model", f"{model!r} leads elsewhere; write provider/model or an alias")


def budget_key(key: str) -> Iterator[Violation]:
    """What is wrong with a budget key: it becomes part of names and rows."""
    if len(key) > MAX_BUDGET_KEY or not key.isprintable():
        yield Violation("budget_key", f"at most {MAX_BUDGET_KEY} printable characters")


def _is_plain(message: Message) -> bool:
    """Whether nothing can be wrong with the message: text, and tool calls and answers where they belong."""
    role = message.role
    if (role is Role.TOOL) is not bool(message.tool_call_id) or (message.tool_calls and role is not Role.ASSISTANT):
        return False
    for part in message.parts:
        if not isinstance(part, TextPart):
            return False
    for call in message.tool_calls:  # noqa: SIM110 — see above
        if not call.id or not call.name:
            return False
    return True


def _message(path: str, message: Message) -> Iterator[Violation]:
    if message.tool_calls and message.role is not Role.ASSISTANT:
        yield Violation(f"{path}.tool_calls", "only assistant messages call tools")
    if message.role is Role.TOOL and not message.tool_call_id:
        yield Violation(f"{path}.tool_call_id", "a tool message names the call that it answers")
    if message.role is not Role.TOOL and message.tool_call_id:
        yield Violation(f"{path}.tool_call_id", "only tool messages answer a call")
    for place, part in enumerate(message.parts):
        if isinstance(part, ImagePart | DocumentPart):
            yield from _blob(f"{path}.parts[{place}]", part.blob)
        elif isinstance(part, JsonPart) and not is_json(part.data):
            yield Violation(f"{path}.parts[{place}].json", "not valid JSON in UTF-8")
    for place, call in enumerate(message.tool_calls):
        if not call.id or not call.name:
            yield Violation(f"{path}.tool_calls[{place}]", "a tool call has an id and a name")


def _blob(path: str, blob: Blob) -> Iterator[Violation]:
    if not blob.url and not blob.data:
        yield Violation(path, "set url or data")
    if blob.data and not blob.media_type:
        yield Violation(f"{path}.media_type", "required with data")
    if blob.url and not blob.url.startswith(("https://", "http://")):
        yield Violation(f"{path}.url", "an https URL is needed; send the bytes as data instead")


def _tools(request: ChatRequest) -> Iterator[Violation]:
    names = [tool.name for tool in request.tools]
    for place, tool in enumerate(request.tools):
        if not _TOOL_NAME.fullmatch(tool.name):
            yield Violation(f"tools[{place}].name", f"{tool.name!r} is not 1 to 64 of a-z, A-Z, 0-9, _ and -")
        if names.index(tool.name) != place:
            yield Violation(f"tools[{place}].name", f"{tool.name!r} is there twice")
        if tool.parameters and not is_json_object(tool.parameters):
            yield Violation(f"tools[{place}].parameters", "not a JSON Schema object in UTF-8")
    choice = request.tool_choice
    if choice.forces and not request.tools:
        yield Violation("tool_choice", "demands a tool but the request has no tools")
    if choice.mode is ToolChoiceMode.NAMED and request.tools and choice.name not in names:
        yield Violation("tool_choice.name", f"{choice.name!r} is none of the request's tools")


def _format(request: ChatRequest) -> Iterator[Violation]:
    answer = request.response_format
    if answer.kind is FormatKind.JSON_SCHEMA and not is_json_object(answer.schema):
        yield Violation("response_format.schema", "not a JSON Schema object in UTF-8")


def _sampling(sampling: Sampling) -> Iterator[Violation]:
    if sampling.temperature is not None and not 0 <= sampling.temperature <= 2:
        yield Violation("sampling.temperature", f"{sampling.temperature} is not between 0 and 2")
    if sampling.top_p is not None and not 0 <= sampling.top_p <= 1:
        yield Violation("sampling.top_p", f"{sampling.top_p} is not between 0 and 1")
    if sampling.max_output_tokens is not None and sampling.max_output_tokens < 1:
        yield Violation("sampling.max_output_tokens", f"{sampling.max_output_tokens} is not positive; leave it unset for the default")
    if len(sampling.stop) > MAX_STOPS or "" in sampling.stop:
        yield Violation("sampling.stop", f"at most {MAX_STOPS} texts, none of them empty")


@functools.lru_cache(maxsize=512)  # tool schemas come again with every turn
def is_json_object(data: bytes) -> bool:
    """Whether data is a JSON object in UTF-8."""
    return isinstance(_parsed(data), dict)


def is_json(data: bytes) -> bool:
    """Whether data is JSON in UTF-8."""
    return _parsed(data) is not _INVALID


_INVALID = object()


def _no_constant(name: str) -> None:
    """NaN and the infinities are Python's, not JSON's."""
    raise ValueError(name)


_JSON = json.JSONDecoder(parse_constant=_no_constant)


def _parsed(data: bytes) -> object:
    try:
        return _JSON.decode(data.decode())
    except (ValueError, RecursionError):  # the second: nested deeper than anybody can read
        return _INVALID
