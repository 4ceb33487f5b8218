"""What each kind of server is sent: a request with everything in it, and how every quirk changes it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import FieldNotExpressible, SettingsInvalid
from kit.provider_oracle import check_chat
from provider_gateway.adapters.openai import OpenAiWire, server_of
from provider_gateway.adapters.openai.call_ids import accepted_id
from provider_gateway.adapters.openai.dialect import DIALECTS, HOMES, dialect_at, variable_at
from provider_gateway.domain.chat import (
    Blob,
    ChatRequest,
    FormatKind,
    ImagePart,
    Message,
    OpaqueState,
    ReasoningEffort,
    ReasoningPart,
    ResponseFormat,
    Role,
    Sampling,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    ToolDefinition,
)
from provider_gateway.domain.embeddings import EmbedRequest
from provider_gateway.operations.ports import EmbedCall, ModelCall
from provider_gateway.settings import DialectName, OpenAiSettings

pytestmark = pytest.mark.feature("P5")

USER = Message(Role.USER, (TextPart("hi"),))
CLOSED = b'{"type":"object","properties":{},"additionalProperties":false,"required":[]}'
TOOLS = (ToolDefinition("weather", "Tells it", CLOSED, strict=True), ToolDefinition("time"))
LONG_ID = "call_" + "x" * 60
FULL = ChatRequest(
    (
        Message(Role.SYSTEM, (TextPart("be brief"),)),
        Message(Role.USER, (TextPart("look"), ImagePart(Blob(url="https://x/y.png")))),
        Message(Role.ASSISTANT, (TextPart("one moment"),), (ToolCall(LONG_ID, "weather", b'{"city":"Paris"}'),)),
        Message(Role.TOOL, (TextPart("18 C"),), tool_call_id=LONG_ID, tool_name="weather"),
        USER,
    ),
    tools=TOOLS,
    tool_choice=ToolChoice(ToolChoiceMode.AUTO),
    response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "", CLOSED, strict=True),
    sampling=Sampling(0.5, 0.9, 100, ("END",), ReasoningEffort.LOW, 7),
    metadata={"user_id": "u1"},
    parallel_tool_calls=False,
)
BEYOND = {
    "mistral": {"random_seed"},
    "deepseek": {"thinking"},
    "openrouter": {"reasoning"},
    "moonshot": {"thinking"},
    "alibaba": {"enable_thinking"},
    "llama-cpp": {"chat_template_kwargs"},
}
"""Fields that a server has and OpenAI has not."""


def wire_of(dialect: str, **extra: Any) -> OpenAiWire:
    return OpenAiWire("acme", DIALECTS[dialect], extra=extra)


def sent(dialect: str, request: ChatRequest, **extra: Any) -> dict[str, Any]:
    return json.loads(wire_of(dialect, **extra).encode(ModelCall(request, "m-1"), stream=False).body)


def warned(dialect: str, request: ChatRequest) -> list[str]:
    return [warning.field for warning in wire_of(dialect).encode(ModelCall(request, "m-1"), stream=False).warnings]


def expressible(dialect: str, request: ChatRequest) -> ChatRequest:
    """The request without what the server has no words for."""
    spoken = DIALECTS[dialect]
    kind = FormatKind.JSON_SCHEMA if spoken.json_schema else FormatKind.JSON_OBJECT
    return replace(request, response_format=ResponseFormat(kind, "", CLOSED if spoken.json_schema else b"", strict=True))


@pytest.mark.feature("P1")
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_a_server_is_sent_is_what_openai_s_own_library_could_send_and_its_own_fields(dialect: str, stream: bool) -> None:
    encoded = wire_of(dialect).encode(ModelCall(expressible(dialect, FULL), "m-1"), stream=stream)
    check_chat(json.loads(encoded.body), BEYOND.get(dialect, ()))


@pytest.mark.feature("P1")
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_field_that_is_set_is_sent_or_warned_about(dialect: str) -> None:
    """The body changes with each field, or the answer will say that it could not."""
    request = expressible(dialect, FULL)
    bare: dict[str, Any] = {
        "temperature": None,
        "top_p": None,
        "max_output_tokens": None,
        "stop": (),
        "reasoning_effort": ReasoningEffort.UNSPECIFIED,
        "seed": None,
    }
    for field, unset in bare.items():
        without = replace(request, sampling=replace(request.sampling, **{field: unset}))
        assert sent(dialect, request) != sent(dialect, without) or f"sampling.{field}" in warned(dialect, request), field
    for field, unset in {"tools": (), "metadata": {}, "parallel_tool_calls": None, "response_format": ResponseFormat()}.items():
        without = replace(request, **{field: unset})
        assert sent(dialect, request) != sent(dialect, without) or field in warned(dialect, request), field


def test_every_dialect_can_be_configured_by_its_name() -> None:
    assert set(get_args(DialectName)) == set(DIALECTS)
    assert {name: DIALECTS[name].name for name in DIALECTS} == {name: name for name in DIALECTS}
    assert set(HOMES) <= set(DIALECTS)


@pytest.mark.parametrize(
    ("url", "dialect", "variable"),
    [
        ("https://api.openai.com/v1", "openai", "OPENAI_API_KEY"),
        ("https://api.groq.com/openai/v1", "groq", "GROQ_API_KEY"),
        ("https://api.mistral.ai/v1", "mistral", "MISTRAL_API_KEY"),
        ("https://api.deepseek.com", "deepseek", "DEEPSEEK_API_KEY"),
        ("https://openrouter.ai/api/v1", "openrouter", "OPENROUTER_API_KEY"),
        ("https://me.openai.azure.com", "azure", "AZURE_OPENAI_API_KEY"),
        ("https://dashscope.aliyuncs.com/compatible-mode/v1", "alibaba", "DASHSCOPE_API_KEY"),
        ("http://127.0.0.1:11434/v1", "ollama", ""),
        ("http://127.0.0.1:8000/v1", "compatible", ""),
        ("https://evil.example/api.openai.com/v1", "compatible", ""),
        ("https://api.openai.com.evil.example/v1", "compatible", ""),
    ],
)
def test_an_address_tells_the_dialect_and_a_vendor_s_own_one_the_variable_of_its_key(url: str, dialect: str, variable: str) -> None:
    assert (dialect_at(url), variable_at(url)) == (dialect, variable)


def test_a_dialect_without_address_is_its_vendor_s_own_service() -> None:
    assert server_of("providers.x", None, "groq", {}).base_url == "https://api.groq.com/openai/v1"
    assert server_of("providers.x", None, None, {}).base_url == "https://api.openai.com/v1"
    with pytest.raises(SettingsInvalid, match=r"providers\.x\.base_url is not set; the dialect vllm"):
        server_of("providers.x", None, "vllm", {})


def test_quirks_can_be_set_one_by_one() -> None:
    own = OpenAiSettings(base_url="http://h:1/v1", max_tokens_field="max_completion_tokens", stream_usage=False, embed_inputs=7)
    dialect = server_of("providers.x", own.base_url, own.dialect, own.quirks()).dialect
    assert (dialect.name, dialect.max_tokens_field, dialect.stream_usage, dialect.embed_inputs) == (
        "compatible",
        "max_completion_tokens",
        False,
        7,
    )


# the output limit, the seed, the user, the stops


@pytest.mark.parametrize(("dialect", "field"), [("openai", "max_completion_tokens"), ("vllm", "max_tokens"), ("mistral", "max_tokens")])
def test_the_output_limit_has_the_server_s_name(dialect: str, field: str) -> None:
    assert sent(dialect, ChatRequest((USER,), sampling=Sampling(max_output_tokens=5)))[field] == 5


def test_mistral_has_its_own_words() -> None:
    request = replace(FULL, tool_choice=ToolChoice(ToolChoiceMode.REQUIRED))
    body = json.loads(wire_of("mistral").encode(ModelCall(request, "m"), stream=True).body)
    assert (body["random_seed"], body["tool_choice"]) == (7, "any")
    assert not {"seed", "user", "stream_options"} & set(body)
    assert "metadata" in warned("mistral", request)


@pytest.mark.feature("P1")
def test_more_stops_than_a_server_takes_are_refused_here() -> None:
    request = ChatRequest((USER,), sampling=Sampling(stop=tuple("abcde")))
    assert sent("vllm", request)["stop"] == list("abcde")
    with pytest.raises(FieldNotExpressible, match=r"sampling\.stop; it takes at most 4"):
        sent("groq", request)


# tools


@pytest.mark.feature("P1")
def test_a_choice_that_a_server_does_not_look_at_is_refused_and_none_means_no_tools() -> None:
    for mode in (ToolChoiceMode.REQUIRED, ToolChoiceMode.NAMED):
        with pytest.raises(FieldNotExpressible, match="tool_choice"):
            sent("ollama", ChatRequest((USER,), tools=TOOLS, tool_choice=ToolChoice(mode, "time")))
    assert "tools" not in sent("ollama", ChatRequest((USER,), tools=TOOLS, tool_choice=ToolChoice(ToolChoiceMode.NONE)))
    assert "tool_choice" not in sent("ollama", ChatRequest((USER,), tools=TOOLS, tool_choice=ToolChoice(ToolChoiceMode.AUTO)))


def test_where_a_tool_cannot_be_named_it_is_the_only_one_and_required() -> None:
    body = sent("llama-cpp", ChatRequest((USER,), tools=TOOLS, tool_choice=ToolChoice(ToolChoiceMode.NAMED, "time")))
    assert ([tool["function"]["name"] for tool in body["tools"]], body["tool_choice"]) == (["time"], "required")


def test_what_a_server_does_not_know_of_tools_is_left_out_and_said_to_be() -> None:
    request = ChatRequest((USER,), tools=TOOLS, parallel_tool_calls=False)
    body = sent("deepseek", request)
    assert "parallel_tool_calls" not in body
    assert "strict" not in body["tools"][1]["function"]
    assert warned("deepseek", request) == ["tools[0].strict", "parallel_tool_calls"]
    assert warned("deepseek", replace(request, parallel_tool_calls=True)) == ["tools[0].strict"]


@pytest.mark.feature("P1")
def test_a_form_of_answer_that_a_server_lacks_is_refused() -> None:
    with pytest.raises(FieldNotExpressible, match="KIND_JSON_OBJECT and describe"):
        sent("deepseek", ChatRequest((USER,), response_format=ResponseFormat(FormatKind.JSON_SCHEMA, schema=b"{}")))
    with pytest.raises(FieldNotExpressible, match="KIND_JSON_SCHEMA instead"):
        sent("perplexity", ChatRequest((USER,), response_format=ResponseFormat(FormatKind.JSON_OBJECT)))


@given(st.text(max_size=80), st.sampled_from([DIALECTS["mistral"], DIALECTS["openai"], DIALECTS["vllm"]]))
def test_ids_of_calls_have_the_form_that_a_server_takes_and_stay_the_same(call_id: str, dialect: Any) -> None:
    made = accepted_id(call_id, dialect)
    assert accepted_id(call_id, dialect) == accepted_id(made, dialect) == made
    if dialect.call_id_exactly:
        assert len(made) == 9 and made.isascii() and made.isalnum()
    elif dialect.call_id_longest:
        assert len(made) <= 40
    else:
        assert made == call_id


@given(st.lists(st.text(max_size=60), min_size=2, max_size=5, unique=True))
def test_different_calls_keep_different_ids(ids: list[str]) -> None:
    for name in ("mistral", "openai"):
        assert len({accepted_id(call_id, DIALECTS[name]) for call_id in ids}) == len(ids)


def test_a_call_and_its_answer_keep_the_same_id() -> None:
    messages = sent("mistral", replace(FULL, response_format=ResponseFormat()))["messages"]
    assert messages[2]["tool_calls"][0]["id"] == messages[3]["tool_call_id"] != LONG_ID


# reasoning


EFFORTS: list[tuple[str, ReasoningEffort, dict[str, Any], bool]] = [
    ("openai", ReasoningEffort.NONE, {"reasoning_effort": "none"}, False),
    ("openai", ReasoningEffort.MINIMAL, {"reasoning_effort": "minimal"}, False),
    ("groq", ReasoningEffort.MINIMAL, {"reasoning_effort": "low"}, True),
    ("groq", ReasoningEffort.NONE, {"reasoning_effort": "none"}, False),
    ("openrouter", ReasoningEffort.HIGH, {"reasoning": {"effort": "high"}}, False),
    ("deepseek", ReasoningEffort.NONE, {"thinking": {"type": "disabled"}}, False),
    ("deepseek", ReasoningEffort.HIGH, {"thinking": {"type": "enabled"}, "reasoning_effort": "high"}, False),
    ("moonshot", ReasoningEffort.NONE, {"thinking": {"type": "disabled"}}, False),
    ("moonshot", ReasoningEffort.LOW, {"thinking": {"type": "enabled"}}, True),
    ("alibaba", ReasoningEffort.NONE, {"enable_thinking": False}, False),
    ("alibaba", ReasoningEffort.HIGH, {"enable_thinking": True}, True),
    ("vllm", ReasoningEffort.NONE, {"chat_template_kwargs": {"enable_thinking": False}}, False),
    ("vllm", ReasoningEffort.MEDIUM, {"reasoning_effort": "medium"}, False),
    ("llama-cpp", ReasoningEffort.MEDIUM, {"chat_template_kwargs": {"reasoning_effort": "medium"}}, False),
]


@pytest.mark.parametrize(("dialect", "effort", "fields", "adapted"), EFFORTS)
def test_how_hard_to_think_is_said_in_the_server_s_words(
    dialect: str, effort: ReasoningEffort, fields: dict[str, Any], adapted: bool
) -> None:
    request = ChatRequest((USER,), sampling=Sampling(reasoning_effort=effort))
    body = sent(dialect, request)
    assert {name: value for name, value in body.items() if name not in ("model", "messages")} == fields
    assert warned(dialect, request) == (["sampling.reasoning_effort"] if adapted else [])


def thought(calls: tuple[ToolCall, ...] = ()) -> Message:
    return Message(Role.ASSISTANT, (ReasoningPart("hm", OpaqueState("openai/acme", "reasoning_content", b"")), TextPart("x")), calls)


CALL = ToolCall("c1", "weather", b"{}")
RESULT = Message(Role.TOOL, (TextPart("18 C"),), tool_call_id="c1")


@pytest.mark.feature("P2")
def test_deepseek_gets_the_reasoning_of_its_tool_calls_back_in_every_later_turn() -> None:
    history = ChatRequest((USER, thought((CALL,)), RESULT, thought(), USER))
    assert [message.get("reasoning_content") for message in sent("deepseek", history)["messages"]] == [None, "hm", None, None, None]
    assert [message.get("reasoning_content") for message in sent("vllm", history)["messages"]] == [None] * 5


@pytest.mark.feature("P2")
def test_deepseek_gets_an_empty_reasoning_for_a_call_that_another_model_made() -> None:
    history = ChatRequest((USER, Message(Role.ASSISTANT, (), (CALL,)), RESULT))
    assert sent("deepseek", history)["messages"][1]["reasoning_content"] == ""
    assert "reasoning_content" not in sent("vllm", history)["messages"][1]


@pytest.mark.feature("P2")
def test_openrouter_gets_its_details_back_and_not_their_text_beside() -> None:
    details = OpaqueState("openai/acme", "reasoning_details", b'[{"type":"reasoning.text","text":"hm"}]')
    plain = OpaqueState("openai/acme", "reasoning", b"")
    message = Message(Role.ASSISTANT, (ReasoningPart("hm", plain), ReasoningPart("", details), TextPart("x")))
    body = sent("openrouter", ChatRequest((USER, message)))["messages"][1]
    assert body == {"role": "assistant", "content": "x", "reasoning_details": [{"type": "reasoning.text", "text": "hm"}]}


# what a server is sent beside


def test_extra_fields_go_with_every_request_and_never_against_it() -> None:
    extra = {"provider": {"order": ["groq"]}, "temperature": 1, "chat_template_kwargs": {"tools_in_user": True}}
    request = ChatRequest((USER,), sampling=Sampling(temperature=0.5, reasoning_effort=ReasoningEffort.NONE))
    body = sent("vllm", request, **extra)
    assert (body["provider"], body["temperature"]) == ({"order": ["groq"]}, 0.5)
    assert body["chat_template_kwargs"] == {"tools_in_user": True, "enable_thinking": False}


def test_extra_fields_that_the_gateway_sets_itself_are_refused_at_the_start() -> None:
    with pytest.raises(ValueError, match="messages, stream cannot be set here"):
        OpenAiSettings(extra={"stream": False, "messages": []})


# Azure


@pytest.mark.parametrize(
    ("base_url", "url"),
    [
        ("https://me.openai.azure.com", "https://me.openai.azure.com/openai/deployments/gpt%204/chat/completions?api-version=2024-10-21"),
        (
            "https://me.openai.azure.com/openai",
            "https://me.openai.azure.com/openai/deployments/gpt%204/chat/completions?api-version=2024-10-21",
        ),
        ("https://me.openai.azure.com/openai/v1", "https://me.openai.azure.com/openai/v1/chat/completions"),
    ],
)
def test_azure_has_the_deployment_in_the_path_or_a_newer_interface(base_url: str, url: str) -> None:
    server = server_of("providers.x", base_url, None, {})
    wire = OpenAiWire("acme", server.dialect)
    assert server.base_url + wire.encode(ModelCall(ChatRequest((USER,)), "gpt 4"), stream=False).path == url
    assert wire.headers("k3y") == {"api-key": "k3y"}


def test_azure_s_version_can_be_set_in_either_interface() -> None:
    for base_url in ("https://me.openai.azure.com", "https://me.openai.azure.com/openai/v1"):
        wire = OpenAiWire("acme", server_of("providers.x", base_url, None, {"api_version": "preview"}).dialect)
        assert wire.encode(ModelCall(ChatRequest((USER,)), "m"), stream=False).path.endswith("/chat/completions?api-version=preview")
        assert wire.encode_embed(EmbedCall(EmbedRequest(("a",)), "m")).path.endswith("/embeddings?api-version=preview")


# embeddings


@pytest.mark.feature("P19")
def test_mistral_embeds_text_in_its_own_words() -> None:
    body = json.loads(wire_of("mistral").encode_embed(EmbedCall(EmbedRequest(("a", "b"), dimensions=3), "mistral-embed")).body)
    assert body == {"model": "mistral-embed", "input": ["a", "b"], "output_dimension": 3}
    with pytest.raises(FieldNotExpressible, match="send text"):
        wire_of("mistral").encode_embed(EmbedCall(EmbedRequest(((1, 2),)), "m"))


@pytest.mark.feature("P19")
@pytest.mark.parametrize("dialect", ["deepseek", "moonshot", "perplexity"])
def test_servers_without_embeddings_say_so(dialect: str) -> None:
    assert wire_of(dialect).embed_limit == 0
