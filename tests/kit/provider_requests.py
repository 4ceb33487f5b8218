"""Requests to the gateway, as values to generate and as messages to send."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from provider_gateway.api.convert import message_to
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


def ask(text: str, model: str = "", **fields: Any) -> pb.ChatRequest:
    """A request with one user message."""
    part = chat_pb2.Part(text=text)
    return pb.ChatRequest(model=model, messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[part])], **fields)


def ask_stream(text: str, model: str = "", **fields: Any) -> pb.StreamChatRequest:
    """The same for a stream."""
    return pb.StreamChatRequest(request=ask(text, model, **fields))


def request_to(request: ChatRequest) -> pb.ChatRequest:
    """A request as a client would send it."""
    sampling = request.sampling
    optional = {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}
    optional["max_output_tokens"] = sampling.max_output_tokens
    message = pb.ChatRequest(
        request_id=request.request_id,
        model=request.model,
        messages=[message_to(m) for m in request.messages],
        tools=[_tool_to(tool) for tool in request.tools],
        tool_choice=chat_pb2.ToolChoice(mode=request.tool_choice.mode.value, name=request.tool_choice.name),
        response_format=chat_pb2.ResponseFormat(
            kind=request.response_format.kind.value,
            name=request.response_format.name,
            schema=request.response_format.schema,
            strict=request.response_format.strict,
        ),
        sampling=chat_pb2.Sampling(
            stop=sampling.stop,
            reasoning_effort=sampling.reasoning_effort.value,
            **{name: value for name, value in optional.items() if value is not None},
        ),
        metadata=request.metadata,
        prompt_caching=pb.PromptCaching(mode=request.prompt_caching.mode.value, lifetime=request.prompt_caching.lifetime.value),
        response_caching=pb.ResponseCaching(
            enabled=request.response_caching.enabled, max_age_seconds=request.response_caching.max_age_seconds
        ),
        budget_key=request.budget_key,
    )
    if request.parallel_tool_calls is not None:
        message.parallel_tool_calls = request.parallel_tool_calls
    return message


def _tool_to(tool: ToolDefinition) -> chat_pb2.ToolDefinition:
    cache = None if tool.cache is None else chat_pb2.CacheMark(lifetime=tool.cache.lifetime.value)
    return chat_pb2.ToolDefinition(
        name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict, cache=cache
    )


_text = st.text(max_size=8)
_bytes = st.binary(max_size=8)
_state = st.builds(OpaqueState, _text, _text, _bytes)
_states = st.lists(_state, max_size=2).map(tuple)
_blob = st.one_of(
    st.builds(Blob, url=st.text(min_size=1, max_size=8), media_type=_text, name=_text),
    st.builds(Blob, data=_bytes, media_type=_text, name=_text),
)
_mark = st.builds(CacheMark, st.sampled_from(CacheLifetime))
_place = st.none() | st.integers(-(2**31), 2**31 - 1)
_citation = st.builds(Citation, _text, _text, _text, _place, _place)
_plain = st.just(NO_NOTES)
_noted = st.builds(Notes, st.none() | _mark, st.lists(_citation, max_size=2).map(tuple), _states)
_notes = st.one_of(_plain, _plain, _plain, _noted)  # nearly none has any, and those that do take their time to generate
_part = st.one_of(
    st.builds(TextPart, _text, _notes),
    st.builds(JsonPart, _bytes, _notes),
    st.builds(ImagePart, _blob, _notes),
    st.builds(DocumentPart, _blob, _notes),
    st.builds(ReasoningPart, _text, st.none() | _state, _notes),
    st.builds(RefusalPart, _text, _notes),
    st.builds(OpaquePart, _state, _notes),
)
_call = st.builds(ToolCall, _text, _text, _bytes, _states)
MESSAGES = st.builds(
    Message,
    st.sampled_from(Role),
    st.lists(_part, max_size=3).map(tuple),
    st.lists(_call, max_size=2).map(tuple),
    _text,
    _text,
    st.booleans(),
    _states,
)
_finite = st.floats(allow_nan=False, allow_infinity=False)
REQUESTS = st.builds(
    ChatRequest,
    messages=st.lists(MESSAGES, max_size=3).map(tuple),
    model=_text,
    request_id=_text,
    tools=st.lists(st.builds(ToolDefinition, _text, _text, _bytes, st.booleans(), st.none() | _mark), max_size=2).map(tuple),
    tool_choice=st.builds(ToolChoice, st.sampled_from(ToolChoiceMode), _text),
    response_format=st.builds(ResponseFormat, st.sampled_from(FormatKind), _text, _bytes, st.booleans()),
    sampling=st.builds(
        Sampling,
        st.none() | _finite,
        st.none() | _finite,
        st.none() | st.integers(-(2**31), 2**31 - 1),
        st.lists(_text, max_size=2).map(tuple),
        st.sampled_from(ReasoningEffort),
        st.none() | st.integers(-(2**63), 2**63 - 1),
    ),
    metadata=st.dictionaries(_text, _text, max_size=3),
    parallel_tool_calls=st.none() | st.booleans(),
    prompt_caching=st.builds(PromptCaching, st.sampled_from(CachingMode), st.sampled_from(CacheLifetime)),
    response_caching=st.builds(ResponseCaching, st.booleans(), st.integers(0, 2**62)),
    budget_key=_text,
)
