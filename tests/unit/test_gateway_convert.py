"""Between the contract and the domain nothing is lost, either way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from chassis.faults import Fault, ProviderTimeout, RequestInvalid, StreamIncomplete
from kit.provider_requests import MESSAGES, REQUESTS, request_to
from provider_gateway.api import convert
from provider_gateway.domain import chat
from provider_gateway.domain.answers import ChatResult, FinishReason, RequestWarning, Seam, Usage, burst
from provider_gateway.domain.chat import ChatRequest, Message
from provider_gateway.domain.models import Capabilities, Model, ModelTraits, Price, ProviderStatus

counts = st.integers(0, 2**62)
faults: st.SearchStrategy[Fault] = st.builds(StreamIncomplete, st.text(max_size=5)) | st.builds(ProviderTimeout, st.text(max_size=5))
seams = st.builds(Seam, faults, st.text(max_size=5), st.text(max_size=5), counts)
results = st.builds(
    ChatResult,
    MESSAGES,
    st.sampled_from(FinishReason),
    st.text(max_size=5),
    st.builds(Usage, counts, counts, counts, counts, counts, counts, st.booleans(), counts),
    st.text(max_size=5),
    st.text(max_size=5),
    st.text(max_size=5),
    st.lists(st.builds(RequestWarning, st.text(max_size=5), st.text(max_size=5)), max_size=2).map(tuple),
    st.lists(seams, max_size=2).map(tuple),
    st.booleans(),
)


TEXT = chat_pb2.Part(text="x")
UNKNOWN_MARK = chat_pb2.CacheMark(lifetime=99)


@pytest.mark.feature("P1")
@given(REQUESTS)
def test_a_request_comes_back_from_the_contract_as_it_was(request: ChatRequest) -> None:
    wire = request_to(request).SerializeToString()
    assert convert.request_from(pb.ChatRequest.FromString(wire)) == request


@pytest.mark.feature("P2")
@given(MESSAGES)
def test_a_message_comes_back_from_the_contract_as_it_was(message: Message) -> None:
    wire = convert.message_to(message).SerializeToString()
    assert convert.message_from(chat_pb2.Message.FromString(wire)) == message


@pytest.mark.feature("P2")
@given(MESSAGES)
def test_a_message_of_the_contract_comes_back_from_the_domain_as_it_was(message: Message) -> None:
    wire = convert.message_to(message)
    assert convert.message_to(convert.message_from(wire)) == wire


@given(results)
def test_a_result_keeps_every_field(result: ChatResult) -> None:
    wire = convert.result_to(result)
    assert convert.message_from(wire.message) == result.message
    assert FinishReason(wire.finish_reason) is result.finish_reason
    kept = (wire.finish_reason_raw, wire.provider, wire.model, wire.response_id)
    assert kept == (result.finish_reason_raw, result.provider, result.model, result.response_id)
    assert Usage(**{field.name: getattr(wire.usage, field.name) for field in wire.usage.DESCRIPTOR.fields}) == result.usage
    assert tuple(RequestWarning(w.field, w.message) for w in wire.warnings) == result.warnings
    assert wire.cached is result.cached
    told = [(s.fault.reason, s.fault.message, s.fault.retryable, s.provider, s.model, s.text_characters) for s in wire.seams]
    assert told == [(s.fault.reason, s.fault.message, True, s.provider, s.model, s.text_characters) for s in result.seams]


@pytest.mark.feature("P3")
@given(results)
def test_steps_keep_their_kind_and_order(result: ChatResult) -> None:
    names = {
        "Started": "started",
        "TextDelta": "text_delta",
        "ReasoningDelta": "reasoning_delta",
        "RefusalDelta": "refusal_delta",
        "ToolCallStarted": "tool_call_started",
        "ToolCallDelta": "tool_call_delta",
        "ToolCallCompleted": "tool_call_completed",
        "UsageReport": "usage",
        "Finished": "finished",
    }
    events = burst(result)
    response = convert.response_to(events)
    assert [event.WhichOneof("event") for event in response.events] == [names[type(event).__name__] for event in events]
    assert response.events[-1].finished == convert.result_to(result)


@pytest.mark.feature("P12")
@given(seams)
def test_a_seam_in_a_stream_says_what_it_says_in_the_result(seam: Seam) -> None:
    event = convert.event_to(seam)
    assert event.WhichOneof("event") == "seam"
    result = ChatResult(Message(chat.Role.ASSISTANT), FinishReason.STOP, seams=(seam,))
    assert [event.seam] == list(convert.result_to(result).seams)


@pytest.mark.parametrize(
    "kind",
    [chat.Role, chat.ToolChoiceMode, chat.FormatKind, chat.ReasoningEffort, chat.CacheLifetime, chat.CachingMode, FinishReason],
)
def test_the_domains_numbers_are_the_contracts(kind: type[chat.Role]) -> None:
    ours = {member.value for member in kind}
    wire = {
        chat.Role: chat_pb2.Role.values(),
        chat.ToolChoiceMode: chat_pb2.ToolChoice.Mode.values(),
        chat.FormatKind: chat_pb2.ResponseFormat.Kind.values(),
        chat.ReasoningEffort: chat_pb2.ReasoningEffort.values(),
        chat.CacheLifetime: chat_pb2.CacheMark.Lifetime.values(),
        chat.CachingMode: pb.PromptCaching.Mode.values(),
        FinishReason: chat_pb2.FinishReason.values(),
    }
    assert set(wire[kind]) - ours <= {0}
    assert ours <= set(wire[kind])


@pytest.mark.parametrize(
    ("request_", "path"),
    [
        (pb.ChatRequest(messages=[chat_pb2.Message()]), "messages[0].role"),
        (pb.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part()])]), "messages[0].parts[0]"),
        (
            pb.ChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[TEXT, chat_pb2.Part(text="x", cache=UNKNOWN_MARK)])]),
            "messages[0].parts[1].cache.lifetime",
        ),
        (pb.ChatRequest(tools=[chat_pb2.ToolDefinition(cache=UNKNOWN_MARK)]), "tools[0].cache.lifetime"),
        (pb.ChatRequest(prompt_caching=pb.PromptCaching(mode=99)), "prompt_caching.mode"),
        (pb.ChatRequest(prompt_caching=pb.PromptCaching(lifetime=99)), "prompt_caching.lifetime"),
        (pb.ChatRequest(tool_choice=chat_pb2.ToolChoice(mode=99)), "tool_choice.mode"),
    ],
)
def test_values_that_the_contract_does_not_have_are_refused_by_path(request_: pb.ChatRequest, path: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        convert.request_from(request_)
    assert [violation.field for violation in caught.value.violations] == [path]


@pytest.mark.feature("P9")
def test_models_and_providers_tell_what_is_known() -> None:
    known = Model("p", "m", ModelTraits(Capabilities(tools=True, context_tokens=5), Price(1000, 2000, cache_read=100)))
    wire = convert.model_to(known)
    assert (wire.name, wire.capabilities.tools, wire.capabilities.vision, wire.capabilities.context_tokens) == ("p/m", True, False, 5)
    assert (wire.price.cache_read_nano_usd, wire.price.cache_write_nano_usd) == (100, 1000)
    assert not convert.model_to(Model("p", "m", ModelTraits())).HasField("price")
    assert convert.provider_to(ProviderStatus("p", "openai", "u", "no key")).problem == "no key"
    assert convert.provider_to(ProviderStatus("p", "openai", "u", "")).ready
