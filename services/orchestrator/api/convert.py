"""Requests to the domain's words, checked; pure."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence

from behest.agent.v1 import agent_pb2
from behest.chat.v1 import chat_pb2
from behest.run.v1 import run_pb2, run_service_pb2
from chassis.faults import InputEmpty, InputTooLong, RequestInvalid, Violation
from orchestrator.domain.values import Agent, Entry, OnBusy, Priority, SessionId
from orchestrator.operations.runs import Wish
from orchestrator.wire import agent_from_proto, entry_from_proto

MOST_INPUT_BYTES = 1 << 20
MOST_REQUEST_ID = 128
MOST_METADATA = 16
MOST_KEY, MOST_VALUE = 128, 1024
MOST_NAME = 256
TITLE = 200
SESSION_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
NO_JSON = object()
USER_CONTENT = frozenset({"text", "json", "image", "document"})


def wish(request: run_service_pb2.CreateRunRequest, agent: Agent, message_id: str) -> Wish:
    """An order, checked. Raises RequestInvalid, InputEmpty, InputTooLong."""
    refuse(_violations(request))
    check_input(request.input)
    resolved = _with_overrides(agent, request)
    refuse(_tool_violations(request.tool_choice, resolved))
    return Wish(
        request_id=request.request_id,
        session_id=SessionId(request.session_id) if request.session_id else None,
        agent=resolved,
        entry=entry(request.input, message_id),
        title=_title(request.input),
        payload_digest=_payload_digest(request),
        input_digest=_digest(part.SerializeToString(deterministic=True) for part in request.input),
        on_busy=OnBusy(request.on_busy or OnBusy.REJECT),
        priority=Priority(request.priority or Priority.NORMAL),
        tool_choice=request.tool_choice if request.HasField("tool_choice") else None,
        response_format=_response_format(request, resolved),
        metadata=dict(request.metadata),
    )


def entry(parts: Sequence[chat_pb2.Part], message_id: str) -> Entry:
    """A user message of these parts."""
    return entry_from_proto(message_id, chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=parts))


def check_input(parts: Sequence[chat_pb2.Part]) -> None:
    """Refuses input that says nothing, is over 1 MiB, or is not what a user can say."""
    kinds = [part.WhichOneof("content") for part in parts]
    wrong = [
        Violation(f"input[{i}]", f"holds {kind or 'nothing'}; set text, json, image or document")
        for i, kind in enumerate(kinds)
        if kind not in USER_CONTENT
    ]
    if not parts or all(kind == "text" and not part.text.strip() for kind, part in zip(kinds, parts, strict=True)):
        raise InputEmpty("the input is empty; say what is to be done", violations=(Violation("input", "is empty"),))
    refuse(wrong)
    size = sum(part.ByteSize() for part in parts)
    if size > MOST_INPUT_BYTES:
        raise InputTooLong(
            f"the input has {size} bytes; at most {MOST_INPUT_BYTES} are allowed: send a summary, or a document by URL",
            metadata={"bytes": str(size), "limit": str(MOST_INPUT_BYTES)},
        )
    refuse(_malformed(parts))


def refuse(violations: Iterable[Violation]) -> None:
    """Raises RequestInvalid naming every violation, if there is one."""
    found = tuple(violations)
    if found:
        text = "; ".join(f"{v.field} {v.description}" for v in found)
        raise RequestInvalid(f"the request is invalid: {text}", violations=found)


Commanding = run_service_pb2.SendInputRequest | run_service_pb2.CancelRunRequest | run_service_pb2.ResolveApprovalRequest


def digest_without_id(request: Commanding) -> str:
    """The digest of a command's payload."""
    bare = type(request).FromString(request.SerializeToString())
    bare.request_id = ""
    return _digest([bare.SerializeToString(deterministic=True)])


def id_violations(request_id: str) -> list[Violation]:
    """What is wrong with a request id."""
    return [Violation("request_id", f"has {len(request_id)} characters; at most 128")] if len(request_id) > MOST_REQUEST_ID else []


def _violations(request: run_service_pb2.CreateRunRequest) -> list[Violation]:
    return [
        *id_violations(request.request_id),
        *_names(request),
        *_format(request.response_format),
        *_metadata(request.metadata),
        *_choice(request.tool_choice),
        *_limits(request.limits),
        *_sampling(request.sampling),
        *_closed_sets(request),
    ]


def _metadata(metadata: Mapping[str, str]) -> list[Violation]:
    found = [Violation("metadata", f"has {len(metadata)} pairs; at most {MOST_METADATA}")] if len(metadata) > MOST_METADATA else []
    wrong = [key for key, value in metadata.items() if not 0 < len(key) <= MOST_KEY or len(value) > MOST_VALUE]
    return found + [
        Violation(f"metadata[{key[:MOST_KEY]}]", f"keys have 1 to {MOST_KEY} characters, values at most {MOST_VALUE}") for key in wrong
    ]


def _names(request: run_service_pb2.CreateRunRequest) -> list[Violation]:
    found = [] if len(request.model) <= MOST_NAME else [Violation("model", f"has {len(request.model)} characters; at most {MOST_NAME}")]
    if request.session_id and SESSION_ID.fullmatch(request.session_id) is None:
        found.append(Violation("session_id", "is none: ids have 1 to 128 of a-z, A-Z, 0-9, _, ., : and -"))
    return found


def _format(wanted: chat_pb2.ResponseFormat) -> list[Violation]:
    kinds = chat_pb2.ResponseFormat.Kind
    if wanted.kind not in kinds.values():
        return [Violation("response_format.kind", f"is {wanted.kind}, which is none of ResponseFormat.Kind")]
    if wanted.kind != kinds.KIND_JSON_SCHEMA:
        return [Violation("response_format.schema", "is set without KIND_JSON_SCHEMA")] if wanted.schema else []
    schema = _json(wanted.schema)
    return [] if isinstance(schema, dict) else [Violation("response_format.schema", "is no JSON Schema: it must be a JSON object, UTF-8")]


def _malformed(parts: Sequence[chat_pb2.Part]) -> list[Violation]:
    """What no model could be sent: it would stay in the session and spoil every later run."""
    return [violation for i, part in enumerate(parts) for violation in _part(part, f"input[{i}]")]


def _part(part: chat_pb2.Part, path: str) -> list[Violation]:
    kind = part.WhichOneof("content")
    if kind == "json":
        return [Violation(f"{path}.json", "is no JSON document, UTF-8")] if _json(part.json) is NO_JSON else []
    if kind not in ("image", "document"):
        return []
    blob = part.image if kind == "image" else part.document
    if not blob.url and not blob.data:
        return [Violation(f"{path}.{kind}", "has neither url nor data; set one")]
    missing = bool(blob.data) and not blob.media_type
    return [Violation(f"{path}.{kind}.media_type", "is empty; data needs one, such as image/png")] if missing else []


def _json(data: bytes) -> object:
    """The value that the bytes say, NO_JSON when they say none."""
    try:
        value: object = json.loads(data.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return NO_JSON
    return value


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _tool_violations(choice: chat_pb2.ToolChoice, agent: Agent) -> list[Violation]:
    modes = chat_pb2.ToolChoice.Mode
    if choice.mode == modes.MODE_REQUIRED and not agent.tools:
        return [Violation("tool_choice.mode", f"requires a tool, but agent {agent.name!r} has none")]
    if choice.mode != modes.MODE_NAMED or agent.may_call(choice.name):
        return []
    has = ", ".join(agent.tools) or "none"
    return [Violation("tool_choice.name", f"{choice.name[:MOST_NAME]!r} is no tool of agent {agent.name!r}, which has: {has}")]


def _choice(choice: chat_pb2.ToolChoice) -> list[Violation]:
    if choice.mode not in chat_pb2.ToolChoice.Mode.values():
        return [Violation("tool_choice.mode", f"is {choice.mode}, which is none of ToolChoice.Mode")]
    named = choice.mode == chat_pb2.ToolChoice.MODE_NAMED
    if named and not choice.name:
        return [Violation("tool_choice.name", "is empty; name the tool to call")]
    return [Violation("tool_choice.name", "is set without MODE_NAMED")] if choice.name and not named else []


def _limits(limits: agent_pb2.Limits) -> list[Violation]:
    lowest = {"max_continuations": -1}
    return [
        Violation(f"limits.{field.name}", f"is {value}; the least is {lowest.get(field.name, 0)}")
        for field, value in limits.ListFields()
        if value < lowest.get(field.name, 0)
    ]


def _sampling(sampling: chat_pb2.Sampling) -> list[Violation]:
    bounds = {"temperature": (0, 2), "top_p": (0, 1), "max_output_tokens": (1, 2**31)}
    found = [
        Violation(f"sampling.{name}", f"is {getattr(sampling, name)}; it lies between {low} and {high}")
        for name, (low, high) in bounds.items()
        if sampling.HasField(name) and not low <= getattr(sampling, name) <= high  # type: ignore[arg-type]  # names of optional fields
    ]
    if sampling.reasoning_effort not in chat_pb2.ReasoningEffort.values():
        found.append(Violation("sampling.reasoning_effort", f"is {sampling.reasoning_effort}, which is none of ReasoningEffort"))
    if not all(sampling.stop):
        found.append(Violation("sampling.stop", "has an empty text; leave it out"))
    return found + ([Violation("sampling.stop", f"has {len(sampling.stop)} texts; at most 16")] if len(sampling.stop) > 16 else [])


def _closed_sets(request: run_service_pb2.CreateRunRequest) -> list[Violation]:
    given = (("on_busy", request.on_busy, run_pb2.BusyPolicy), ("priority", request.priority, run_pb2.RunPriority))
    unknown = [(field, value, kind.DESCRIPTOR.name) for field, value, kind in given if value not in kind.values()]
    return [Violation(field, f"is {value}, which is none of {name}") for field, value, name in unknown]


def _with_overrides(agent: Agent, request: run_service_pb2.CreateRunRequest) -> Agent:
    body = agent_pb2.Agent()
    assert isinstance(agent.body, agent_pb2.Agent)
    body.CopyFrom(agent.body)
    body.model = request.model or body.model
    if request.sampling.stop:
        del body.sampling.stop[:]
    body.sampling.MergeFrom(request.sampling)
    body.limits.MergeFrom(request.limits)
    return agent_from_proto(body)


def _response_format(request: run_service_pb2.CreateRunRequest, agent: Agent) -> chat_pb2.ResponseFormat | None:
    assert isinstance(agent.body, agent_pb2.Agent)
    if request.HasField("response_format"):
        return request.response_format
    if not agent.body.output_schema:
        return None
    return chat_pb2.ResponseFormat(kind=chat_pb2.ResponseFormat.KIND_JSON_SCHEMA, name="answer", schema=agent.body.output_schema)


def _title(parts: Sequence[chat_pb2.Part]) -> str:
    text = " ".join(part.text for part in parts if part.HasField("text"))
    return " ".join(text[: 4 * TITLE].split())[:TITLE]


def _payload_digest(request: run_service_pb2.CreateRunRequest) -> str:
    bare = run_service_pb2.CreateRunRequest()
    bare.CopyFrom(request)
    bare.request_id = ""
    return _digest([bare.SerializeToString(deterministic=True)])


def _digest(pieces: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(len(piece).to_bytes(8))
        digest.update(piece)
    return digest.hexdigest()
