"""Between the contract's messages and the domain's values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeVar

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_pb2, provider_service_pb2
from chassis.faults import RequestInvalid, Violation
from provider_gateway.domain.answers import (
    ChatEvent,
    ChatResult,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    Seam,
    Started,
    TextDelta,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    UsageReport,
)
from provider_gateway.domain.chat import (
    NO_NOTES,
    Blob,
    CacheLifetime,
    CacheMark,
    CachingMode,
    ChatRequest,
    Citation,
    DocumentPart,
    FormatKind,
    ImagePart,
    JsonPart,
    Message,
    Notes,
    OpaquePart,
    OpaqueState,
    Part,
    PromptCaching,
    ReasoningEffort,
    ReasoningPart,
    RefusalPart,
    ResponseCaching,
    ResponseFormat,
    Role,
    Sampling,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    ToolDefinition,
)
from provider_gateway.domain.models import Capabilities, Model, Price, ProviderStatus, TargetStatus
from provider_gateway.wire import fault_to, usage_to

E = TypeVar("E", Role, ToolChoiceMode, FormatKind, ReasoningEffort, CachingMode, CacheLifetime)

# A request carries its whole history, so what is done per message and part is done often: members are found in tables, and where
# something lies is only written down for an error.
_ROLES: Mapping[int, Role] = {role.value: role for role in Role}
_MARKS: Mapping[int, CacheMark] = {lifetime.value: CacheMark(lifetime) for lifetime in CacheLifetime}
_NO_CHOICE, _NO_FORMAT, _NO_SAMPLING = ToolChoice(), ResponseFormat(), Sampling()
_NO_PROMPT_CACHING, _NO_RESPONSE_CACHING = PromptCaching(), ResponseCaching()
_TEXT = chat_pb2.Part.DESCRIPTOR.fields_by_name["text"]


def request_from(message: provider_service_pb2.ChatRequest) -> ChatRequest:
    """The request; raises RequestInvalid for values that the contract does not have."""
    return ChatRequest(
        messages=tuple([message_from(m, place) for place, m in enumerate(message.messages)]),
        model=message.model,
        request_id=message.request_id,
        tools=tuple([_tool_from(tool, place) for place, tool in enumerate(message.tools)]),
        tool_choice=_choice_from(message.tool_choice) if message.HasField("tool_choice") else _NO_CHOICE,
        response_format=_format_from(message.response_format) if message.HasField("response_format") else _NO_FORMAT,
        sampling=_sampling_from(message.sampling) if message.HasField("sampling") else _NO_SAMPLING,
        metadata=dict(message.metadata),
        parallel_tool_calls=message.parallel_tool_calls if message.HasField("parallel_tool_calls") else None,
        prompt_caching=_prompt_caching_from(message.prompt_caching) if message.HasField("prompt_caching") else _NO_PROMPT_CACHING,
        response_caching=_response_caching_from(message.response_caching) if message.HasField("response_caching") else _NO_RESPONSE_CACHING,
        budget_key=message.budget_key,
    )


def message_from(message: chat_pb2.Message, place: int | None = None) -> Message:
    """One message of a conversation; `place` is its index among the request's messages."""
    role = _ROLES.get(message.role)
    if role is None:
        raise _unknown(Role, message.role, f"{_path(place)}.role")
    calls, states = message.tool_calls, message.provider_state
    try:
        parts = tuple(map(_part_from, message.parts))
    except RequestInvalid:  # once more, for the place
        parts = tuple([_part_from(part, f"{_path(place)}.parts[{number}]") for number, part in enumerate(message.parts)])
    return Message(
        role,
        parts,
        tuple(map(_call_from, calls)) if calls else (),
        message.tool_call_id,
        message.tool_name,
        message.is_error,
        _states_from(states) if states else (),
    )


def message_to(message: Message) -> chat_pb2.Message:
    """One message of a conversation."""
    return chat_pb2.Message(
        role=message.role.value,  # type: ignore[arg-type] # the domain's numbers are the contract's
        parts=[_part_to(part) for part in message.parts],
        tool_calls=[_call_to(call) for call in message.tool_calls],
        tool_call_id=message.tool_call_id,
        tool_name=message.tool_name,
        is_error=message.is_error,
        provider_state=[_state_to(state) for state in message.provider_state],
    )


def result_to(result: ChatResult) -> provider_pb2.ChatResult:
    """A complete answer."""
    return provider_pb2.ChatResult(
        message=message_to(result.message),
        finish_reason=result.finish_reason.value,  # type: ignore[arg-type] # the domain's numbers are the contract's
        finish_reason_raw=result.finish_reason_raw,
        usage=usage_to(result.usage),
        provider=result.provider,
        model=result.model,
        response_id=result.response_id,
        warnings=[provider_pb2.Warning(field=w.field, message=w.message) for w in result.warnings],
        seams=[_seam_to(seam) for seam in result.seams],
        cached=result.cached,
    )


def response_to(events: Iterable[ChatEvent]) -> provider_service_pb2.StreamChatResponse:
    """Steps of a streamed answer."""
    return provider_service_pb2.StreamChatResponse(events=[event_to(event) for event in events])


def event_to(event: ChatEvent) -> provider_pb2.ChatEvent:
    """One step of a streamed answer."""
    match event:
        case TextDelta(text):
            return provider_pb2.ChatEvent(text_delta=text)
        case ReasoningDelta(text):
            return provider_pb2.ChatEvent(reasoning_delta=text)
        case RefusalDelta(text):
            return provider_pb2.ChatEvent(refusal_delta=text)
        case ToolCallDelta(index, arguments):
            return provider_pb2.ChatEvent(tool_call_delta=provider_pb2.ToolCallDelta(index=index, arguments=arguments))
        case ToolCallStarted(index, id_, name):
            return provider_pb2.ChatEvent(tool_call_started=provider_pb2.ToolCallStarted(index=index, id=id_, name=name))
        case ToolCallCompleted(index, call):
            return provider_pb2.ChatEvent(tool_call_completed=provider_pb2.ToolCallCompleted(index=index, call=_call_to(call)))
        case Started(provider, model, response_id):
            started = provider_pb2.ChatStarted(provider=provider, model=model, response_id=response_id)
            return provider_pb2.ChatEvent(started=started)
        case UsageReport(usage):
            return provider_pb2.ChatEvent(usage=usage_to(usage))
        case Seam():
            return provider_pb2.ChatEvent(seam=_seam_to(event))
        case Finished(result):
            return provider_pb2.ChatEvent(finished=result_to(result))


def model_to(model: Model) -> provider_pb2.Model:
    """A model that can be called."""
    price = model.traits.price
    return provider_pb2.Model(
        name=model.name,
        provider=model.provider,
        model=model.model,
        capabilities=_capabilities_to(model.traits.capabilities or Capabilities()),
        price=None if price is None else _price_to(price),
    )


def provider_to(status: ProviderStatus) -> provider_pb2.Provider:
    """A configured provider."""
    return provider_pb2.Provider(
        name=status.name,
        adapter=status.adapter,
        base_url=status.base_url,
        ready=not status.problem,
        problem=status.problem,
        targets=[_target_to(target) for target in status.targets],
    )


def _target_to(target: TargetStatus) -> provider_pb2.TargetHealth:
    message = provider_pb2.TargetHealth(
        model=target.model,
        circuit=target.circuit.value,  # type: ignore[arg-type] # the domain's numbers are the contract's
        in_flight=target.in_flight,
        concurrency_limit=target.concurrency_limit,
        last_failure=target.last_failure,
    )
    if target.cooling_until is not None:
        message.cooling_until.FromNanoseconds(round(target.cooling_until * 1e6) * 1000)
    return message


def _enum(kind: type[E], number: int, path: str) -> E:
    try:
        return kind(number)
    except ValueError:
        raise _unknown(kind, number, path) from None


def _unknown(kind: type[E], number: int, path: str) -> RequestInvalid:
    text = f"{path} is {number}, which the contract does not have; set one of {', '.join(member.name for member in kind)}"
    return RequestInvalid(text, violations=(Violation(path, f"{number} is not known"),))


def _path(place: int | None) -> str:
    return "message" if place is None else f"messages[{place}]"


def _part_from(part: chat_pb2.Part, path: str = "") -> Part:
    """The part. Nearly every one is a text without notes, which is seen at one look."""
    fields = part.ListFields()
    if len(fields) == 1 and fields[0][0] is _TEXT:
        return TextPart(fields[0][1])
    notes = _notes_from(part, path)
    match part.WhichOneof("content"):
        case "text":
            return TextPart(part.text, notes)
        case "json":
            return JsonPart(part.json, notes)
        case "image":
            return ImagePart(_blob_from(part.image), notes)
        case "document":
            return DocumentPart(_blob_from(part.document), notes)
        case "reasoning":
            state = _state_from(part.reasoning.state) if part.reasoning.HasField("state") else None
            return ReasoningPart(part.reasoning.text, state, notes)
        case "refusal":
            return RefusalPart(part.refusal, notes)
        case "opaque":
            return OpaquePart(_state_from(part.opaque), notes)
    raise RequestInvalid(f"{path} has no content; set one of its fields", violations=(Violation(path, "no content"),))


def _part_to(part: Part) -> chat_pb2.Part:
    message = _content_to(part)
    if part.notes is not NO_NOTES:
        _note(message, part.notes)
    return message


def _content_to(part: Part) -> chat_pb2.Part:
    match part:
        case TextPart(text):
            return chat_pb2.Part(text=text)
        case JsonPart(data):
            return chat_pb2.Part(json=data)
        case ImagePart(blob):
            return chat_pb2.Part(image=_blob_to(blob))
        case DocumentPart(blob):
            return chat_pb2.Part(document=_blob_to(blob))
        case ReasoningPart(text, state):
            return chat_pb2.Part(reasoning=chat_pb2.Reasoning(text=text, state=None if state is None else _state_to(state)))
        case RefusalPart(text):
            return chat_pb2.Part(refusal=text)
        case OpaquePart(state):
            return chat_pb2.Part(opaque=_state_to(state))


def _notes_from(part: chat_pb2.Part, path: str) -> Notes:
    cache = _mark_from(part.cache, f"{path}.cache") if part.HasField("cache") else None
    citations, states = part.citations, part.provider_state
    if cache is None and not citations and not states:
        return NO_NOTES
    return Notes(cache, tuple(map(_citation_from, citations)), _states_from(states))


def _note(part: chat_pb2.Part, notes: Notes) -> None:
    """Writes the notes beside the part's content."""
    if notes.cache is not None:
        part.cache.CopyFrom(_mark_to(notes.cache))
    part.citations.extend(map(_citation_to, notes.citations))
    part.provider_state.extend(map(_state_to, notes.provider_state))


def _mark_from(mark: chat_pb2.CacheMark, path: str) -> CacheMark:
    known = _MARKS.get(mark.lifetime)
    if known is None:
        raise _unknown(CacheLifetime, mark.lifetime, f"{path}.lifetime")
    return known


def _mark_to(mark: CacheMark) -> chat_pb2.CacheMark:
    return chat_pb2.CacheMark(lifetime=mark.lifetime.value)  # type: ignore[arg-type] # the domain's numbers are the contract's


def _citation_from(citation: chat_pb2.Citation) -> Citation:
    return Citation(
        citation.url,
        citation.title,
        citation.quote,
        citation.start if citation.HasField("start") else None,
        citation.end if citation.HasField("end") else None,
    )


def _citation_to(citation: Citation) -> chat_pb2.Citation:
    return chat_pb2.Citation(url=citation.url, title=citation.title, quote=citation.quote, start=citation.start, end=citation.end)


def _tool_from(tool: chat_pb2.ToolDefinition, place: int) -> ToolDefinition:
    cache = _mark_from(tool.cache, f"tools[{place}].cache") if tool.HasField("cache") else None
    return ToolDefinition(tool.name, tool.description, tool.parameters, tool.strict, cache)


def _blob_from(blob: chat_pb2.Blob) -> Blob:
    return Blob(blob.url, blob.data, blob.media_type, blob.name)


def _blob_to(blob: Blob) -> chat_pb2.Blob:
    if blob.url:
        return chat_pb2.Blob(url=blob.url, media_type=blob.media_type, name=blob.name)
    return chat_pb2.Blob(data=blob.data, media_type=blob.media_type, name=blob.name)


def _state_from(state: chat_pb2.OpaqueState) -> OpaqueState:
    return OpaqueState(state.provider, state.kind, state.data)


def _states_from(states: Iterable[chat_pb2.OpaqueState]) -> tuple[OpaqueState, ...]:
    return tuple(map(_state_from, states))


def _state_to(state: OpaqueState) -> chat_pb2.OpaqueState:
    return chat_pb2.OpaqueState(provider=state.provider, kind=state.kind, data=state.data)


def _call_from(call: chat_pb2.ToolCall) -> ToolCall:
    states = call.provider_state
    return ToolCall(call.id, call.name, call.arguments, _states_from(states) if states else ())


def _call_to(call: ToolCall) -> chat_pb2.ToolCall:
    states = [_state_to(state) for state in call.provider_state]
    return chat_pb2.ToolCall(id=call.id, name=call.name, arguments=call.arguments, provider_state=states)


def _seam_to(seam: Seam) -> provider_pb2.Seam:
    fault = fault_to(seam.fault)
    return provider_pb2.Seam(fault=fault, provider=seam.provider, model=seam.model, text_characters=seam.text_characters)


def _choice_from(choice: chat_pb2.ToolChoice) -> ToolChoice:
    return ToolChoice(_enum(ToolChoiceMode, choice.mode, "tool_choice.mode"), choice.name)


def _format_from(answer: chat_pb2.ResponseFormat) -> ResponseFormat:
    return ResponseFormat(_enum(FormatKind, answer.kind, "response_format.kind"), answer.name, answer.schema, answer.strict)


def _sampling_from(sampling: chat_pb2.Sampling) -> Sampling:
    return Sampling(
        temperature=sampling.temperature if sampling.HasField("temperature") else None,
        top_p=sampling.top_p if sampling.HasField("top_p") else None,
        max_output_tokens=sampling.max_output_tokens if sampling.HasField("max_output_tokens") else None,
        stop=tuple(sampling.stop),
        reasoning_effort=_enum(ReasoningEffort, sampling.reasoning_effort, "sampling.reasoning_effort"),
        seed=sampling.seed if sampling.HasField("seed") else None,
    )


def _prompt_caching_from(caching: provider_service_pb2.PromptCaching) -> PromptCaching:
    mode = _enum(CachingMode, caching.mode, "prompt_caching.mode")
    return PromptCaching(mode, _enum(CacheLifetime, caching.lifetime, "prompt_caching.lifetime"))


def _response_caching_from(caching: provider_service_pb2.ResponseCaching) -> ResponseCaching:
    return ResponseCaching(caching.enabled, caching.max_age_seconds)


def _capabilities_to(capabilities: Capabilities) -> provider_pb2.Capabilities:
    return provider_pb2.Capabilities(**{name: getattr(capabilities, name) for name in Capabilities.__slots__})


def _price_to(price: Price) -> provider_pb2.Price:
    return provider_pb2.Price(
        input_nano_usd=price.input,
        output_nano_usd=price.output,
        cache_read_nano_usd=price.input if price.cache_read is None else price.cache_read,
        cache_write_nano_usd=price.input if price.cache_write is None else price.cache_write,
    )
