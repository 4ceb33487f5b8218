"""The gateway's rules: what is admitted, what names mean, what models can and cost, what refusals mean."""

from __future__ import annotations

import json
from dataclasses import replace
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from chassis.faults import (
    CapabilityMissing,
    Fault,
    ModelNotFound,
    ProviderContextOverflow,
    ProviderCredentialsRefused,
    ProviderPermissionDenied,
    ProviderRateLimited,
    ProviderRequestRefused,
    ProviderResponseInvalid,
    ProviderTimeout,
    ProviderUnavailable,
    RequestInvalid,
)
from provider_gateway.adapters.http.refusals import Refused, fault_of, refusal_in, refusal_of
from provider_gateway.adapters.http.retry_after import retry_after
from provider_gateway.adapters.openai.dialect import HOMES
from provider_gateway.adapters.price_list import known_price
from provider_gateway.domain.admission import admit, needs, require
from provider_gateway.domain.answers import Usage
from provider_gateway.domain.catalogue import Catalogue, dollars
from provider_gateway.domain.chat import (
    Blob,
    ChatRequest,
    FormatKind,
    ImagePart,
    JsonPart,
    Message,
    ReasoningEffort,
    ResponseFormat,
    Role,
    Sampling,
    TextPart,
    ToolCall,
    ToolChoice,
    ToolChoiceMode,
    ToolDefinition,
)
from provider_gateway.domain.models import Capabilities, ModelTraits, Price
from provider_gateway.domain.naming import ModelName, Names
from provider_gateway.domain.routing import Alias
from provider_gateway.operations.pricing import priced_usage
from provider_gateway.settings import HttpSettings, OpenAiSettings

USER = Message(Role.USER, (TextPart("hi"),))
GOOD = ChatRequest((USER,))
NOW = 1_700_000_000.0


@pytest.mark.feature("P1")
@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (ChatRequest(()), "messages"),
        (replace(GOOD, request_id="x" * 129), "request_id"),
        (replace(GOOD, metadata={str(i): "" for i in range(17)}), "metadata"),
        (ChatRequest((replace(USER, tool_calls=(ToolCall("a", "b", b""),)),)), "messages[0].tool_calls"),
        (ChatRequest((Message(Role.TOOL),)), "messages[0].tool_call_id"),
        (ChatRequest((replace(USER, tool_call_id="x"),)), "messages[0].tool_call_id"),
        (ChatRequest((Message(Role.USER, (ImagePart(Blob()),)),)), "messages[0].parts[0]"),
        (ChatRequest((Message(Role.USER, (ImagePart(Blob(data=b"x")),)),)), "messages[0].parts[0].media_type"),
        (ChatRequest((Message(Role.USER, (ImagePart(Blob(url="file:///etc/passwd")),)),)), "messages[0].parts[0].url"),
        (ChatRequest((Message(Role.USER, (JsonPart(b"{"),)),)), "messages[0].parts[0].json"),
        (ChatRequest((Message(Role.ASSISTANT, (), (ToolCall("", "b", b""),)),)), "messages[0].tool_calls[0]"),
        (replace(GOOD, tools=(ToolDefinition("a b"),)), "tools[0].name"),
        (replace(GOOD, tools=(ToolDefinition("a"), ToolDefinition("a"))), "tools[1].name"),
        (replace(GOOD, tools=(ToolDefinition("a", "", b"[]"),)), "tools[0].parameters"),
        (replace(GOOD, tool_choice=ToolChoice(ToolChoiceMode.REQUIRED)), "tool_choice"),
        (replace(GOOD, tools=(ToolDefinition("a"),), tool_choice=ToolChoice(ToolChoiceMode.NAMED, "b")), "tool_choice.name"),
        (replace(GOOD, response_format=ResponseFormat(FormatKind.JSON_SCHEMA)), "response_format.schema"),
        (replace(GOOD, sampling=Sampling(temperature=2.1)), "sampling.temperature"),
        (replace(GOOD, sampling=Sampling(temperature=float("nan"))), "sampling.temperature"),
        (replace(GOOD, sampling=Sampling(top_p=-0.1)), "sampling.top_p"),
        (replace(GOOD, sampling=Sampling(max_output_tokens=0)), "sampling.max_output_tokens"),
        (replace(GOOD, sampling=Sampling(stop=("",))), "sampling.stop"),
    ],
)
def test_a_wrong_field_is_refused_by_path(request_: ChatRequest, field: str) -> None:
    with pytest.raises(RequestInvalid) as caught:
        admit(request_)
    assert [violation.field for violation in caught.value.violations] == [field]


def test_all_mistakes_are_named_at_once() -> None:
    with pytest.raises(RequestInvalid) as caught:
        admit(ChatRequest((), sampling=Sampling(temperature=9, top_p=9)))
    assert [v.field for v in caught.value.violations] == ["messages", "sampling.temperature", "sampling.top_p"]


def test_a_good_request_is_admitted() -> None:
    admit(replace(GOOD, tools=(ToolDefinition("a", "", b'{"type":"object"}'),), tool_choice=ToolChoice(ToolChoiceMode.NAMED, "a")))


@pytest.mark.feature("P9")
@pytest.mark.feature("P10")
def test_every_capability_that_is_missing_is_named() -> None:
    request = ChatRequest(
        (Message(Role.USER, (ImagePart(Blob(url="https://x")),)),),
        tools=(ToolDefinition("a"),),
        response_format=ResponseFormat(FormatKind.JSON_SCHEMA, "", b"{}"),
        sampling=Sampling(reasoning_effort=ReasoningEffort.LOW),
    )
    assert needs(GOOD) == frozenset()
    with pytest.raises(CapabilityMissing) as caught:
        require(request, Capabilities(), "p/m")
    assert caught.value.metadata == {"model": "p/m", "missing": "json_schema,reasoning,tools,vision"}
    require(request, Capabilities(tools=True, json_schema=True, vision=True, reasoning=True), "p/m")
    require(replace(GOOD, sampling=Sampling(reasoning_effort=ReasoningEffort.NONE)), Capabilities(), "p/m")


NAMES = Names(
    ("openai", "anthropic", "local"),
    {"openai": ["gpt-4o", "both"], "anthropic": ["claude-sonnet-4"], "local": ["both"]},
    {"fast": Alias.of("openai/gpt-4o")},
    "fast",
)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("openai/gpt-4o", ModelName("openai", "gpt-4o")),
        ("local/org/model:tag", ModelName("local", "org/model:tag")),
        ("openai/not-yet-listed", ModelName("openai", "not-yet-listed")),
        ("claude-sonnet-4", ModelName("anthropic", "claude-sonnet-4")),
        ("fast", ModelName("openai", "gpt-4o")),
        ("", ModelName("openai", "gpt-4o")),
    ],
)
def test_a_name_means_a_provider_and_its_model(name: str, meant: ModelName) -> None:
    assert NAMES.resolve(name) == meant


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("openia/gpt-4o", "nearest: openai/gpt-4o"),
        ("gpt4o", "nearest: openai/gpt-4o"),
        ("antropic/claude-9", "anthropic/…"),
        ("fats", "nearest: fast"),
        ("both", "write local/both or openai/both"),
        ("openai/", "no model 'openai/'"),
        ("zzz", "write provider/model, an alias, or nothing"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, says: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        NAMES.resolve(name)
    assert says in caught.value.message


def test_no_name_and_no_default_says_what_to_set() -> None:
    with pytest.raises(ModelNotFound, match="default_model"):
        Names((), {}, {}).resolve("")


@pytest.mark.feature("P9")
def test_the_catalogue_prefers_the_configuration_and_knows_dated_versions() -> None:
    configured = {"openai": {"gpt-4o": ModelTraits(price=Price(1, 2)), "new": ModelTraits(Capabilities(tools=True))}}
    catalogue = Catalogue(configured, frozenset({"openai"}))
    assert catalogue.traits("openai", "openai", "gpt-4o").price == Price(1, 2)
    own = catalogue.traits("openai", "openai", "gpt-4o").capabilities
    assert own is not None
    assert own.tools
    assert catalogue.traits("openai", "openai", "gpt-4o-mini-2024-07-18").price == dollars(0.15, 0.6, 0.075)
    assert catalogue.traits("openai", "openai", "unheard-of") == ModelTraits()
    assert catalogue.traits("local", "openai", "gpt-4o") == ModelTraits()
    assert {"gpt-4o", "new"} <= set(catalogue.names("openai", "openai"))
    assert catalogue.names("local", "openai") == []


@pytest.mark.feature("P9")
def test_a_vendor_has_the_same_models_by_each_of_its_protocols() -> None:
    catalogue = Catalogue({}, frozenset({"chat", "responses"}))
    assert catalogue.names("responses", "openai-responses") == catalogue.names("chat", "openai") != []
    assert catalogue.traits("responses", "openai-responses", "gpt-5") == catalogue.traits("chat", "openai", "gpt-5") != ModelTraits()


@pytest.mark.feature("P22")
def test_a_price_counts_cached_tokens_at_their_own_rate() -> None:
    price = dollars(3, 15, 0.3, 3.75)
    usage = Usage(input_tokens=1000, output_tokens=100, cache_read_tokens=800, cache_write_tokens=100)
    assert price.of(usage) == 100 * 3000 + 800 * 300 + 100 * 3750 + 100 * 15000
    assert Price(10, 20).of(usage) == 1000 * 10 + 100 * 20


@pytest.mark.feature("P22")
def test_the_kept_price_list_knows_vendors_models_and_says_nothing_of_others() -> None:
    assert known_price("https://api.openai.com/v1", "gpt-4o-2024-08-06") == dollars(2.5, 10, 1.25)
    assert known_price("https://api.openai.com/v1", "no-such-model") is None
    assert known_price("https://generativelanguage.googleapis.com/v1beta", "gemini-2.5-flash") == dollars(0.3, 2.5, 0.03)
    assert known_price("", "gpt-4o") is None


@pytest.mark.feature("P22")
@pytest.mark.parametrize(
    ("dialect", "model"),
    [
        ("groq", "llama-3.3-70b-versatile"),
        ("mistral", "mistral-small-latest"),
        ("deepseek", "deepseek-chat"),
        ("openrouter", "openai/gpt-4o"),
        ("moonshot", "kimi-k2-0905-preview"),
        ("xai", "grok-4"),
        ("perplexity", "sonar"),
    ],
)
def test_the_kept_price_list_knows_vendors_by_their_address(dialect: str, model: str) -> None:
    price = known_price(HOMES[dialect].base_url, model)
    assert price is not None and price.output > 0
    assert known_price("http://127.0.0.1:8000/v1", model) is None, "a server of one's own is another matter"


@pytest.mark.feature("P22")
def test_what_a_provider_charges_is_truer_than_a_list_and_what_is_configured_than_either() -> None:
    charged = Usage(10, 10, cost_nano_usd=7, cost_known=True)
    assert priced_usage(charged, Price(1, 1, listed=True)) == charged
    assert priced_usage(charged, Price(1, 1)).cost_nano_usd == 20
    assert priced_usage(Usage(10, 10), Price(1, 1, listed=True)).cost_nano_usd == 20


@pytest.mark.feature("P22")
def test_a_long_prompt_costs_the_price_of_long_prompts_for_all_of_its_tokens() -> None:
    price = known_price("https://generativelanguage.googleapis.com/v1beta", "gemini-2.5-pro")
    assert price is not None
    assert price.of(Usage(input_tokens=200_000, output_tokens=10)) == 200_000 * 1250 + 10 * 10_000
    assert price.of(Usage(input_tokens=200_001, output_tokens=10)) == 200_001 * 2500 + 10 * 15_000
    assert price.of(Usage(input_tokens=100_000, cache_read_tokens=100_000)) == 100_000 * 125
    assert price.of(Usage(input_tokens=300_000, cache_read_tokens=300_000)) == 300_000 * 250


def error(**fields: object) -> bytes:
    return json.dumps({"error": fields}).encode()


def google(kind: str, **fields: object) -> dict[str, object]:
    return {"@type": f"type.googleapis.com/google.rpc.{kind}", **fields}


WHO = Refused("acme", "m-1", "sk-secret-key-1234")


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error(message="bad", type="invalid_request_error"), ProviderRequestRefused),
        (400, error(message="x", code="context_length_exceeded"), ProviderContextOverflow),
        (400, error(message="This model's maximum context length is 8192 tokens", type="invalid_request_error"), ProviderContextOverflow),
        (400, error(message="prompt is too long: 200001 tokens > 200000 maximum", type="invalid_request_error"), ProviderContextOverflow),
        (400, error(message="the request exceeds the available context size", type="exceed_context_size_error"), ProviderContextOverflow),
        (413, error(message="Request too large", type="request_too_large"), ProviderRequestRefused),
        (400, error(message="Your credit balance is too low", type="billing_error"), ProviderPermissionDenied),
        (401, error(message="bad key"), ProviderCredentialsRefused),
        (402, b"", ProviderPermissionDenied),
        (403, error(message="no"), ProviderPermissionDenied),
        (404, error(message="The model `x` does not exist", code="model_not_found"), ModelNotFound),
        (404, error(message="model: claude-9", type="not_found_error"), ModelNotFound),
        (404, b"<html><h1>404 page not found</h1></html>", ProviderRequestRefused),
        (408, b"", ProviderTimeout),
        (409, error(message="conflict"), ProviderUnavailable),
        (418, b"teapot", ProviderRequestRefused),
        (422, json.dumps({"detail": [{"loc": ["body", "messages"], "msg": "field required"}]}).encode(), ProviderRequestRefused),
        (429, error(message="slow down", type="rate_limit_error"), ProviderRateLimited),
        (500, error(message="oops", type="server_error"), ProviderUnavailable),
        (502, b"<html>Bad Gateway</html>", ProviderUnavailable),
        (503, b'"overloaded"', ProviderUnavailable),
        (501, error(message="This server does not support embeddings", type="not_supported_error"), ProviderRequestRefused),
        (504, b"", ProviderTimeout),
        (529, error(message="Overloaded", type="overloaded_error"), ProviderUnavailable),
        (302, b"", ProviderResponseInvalid),
        (400, b'[{"error":{"code":400,"message":"API key not valid","status":"INVALID_ARGUMENT"}}]', ProviderRequestRefused),
        (
            400,
            error(code=400, message="no", status="INVALID_ARGUMENT", details=[google("ErrorInfo", reason="API_KEY_INVALID")]),
            ProviderCredentialsRefused,
        ),
        (400, error(code=400, message="The input token count (9) exceeds the maximum", status="INVALID_ARGUMENT"), ProviderContextOverflow),
        (403, error(code=403, message="no", status="PERMISSION_DENIED"), ProviderPermissionDenied),
        (404, error(code=404, message="models/x is not found for API version v1beta", status="NOT_FOUND"), ModelNotFound),
        (429, error(code=429, message="quota", status="RESOURCE_EXHAUSTED"), ProviderRateLimited),
        (503, error(code=503, message="overloaded", status="UNAVAILABLE"), ProviderUnavailable),
        (504, error(code=504, message="late", status="DEADLINE_EXCEEDED"), ProviderTimeout),
        (400, b'{"error":"just text"}', ProviderRequestRefused),
        (400, b'{"message":"flat","type":"invalid_request_error"}', ProviderRequestRefused),
    ],
)
def test_a_refusal_of_any_shape_has_its_fault(status: int, body: bytes, expected: type[Fault]) -> None:
    fault = fault_of(refusal_of(status, body), WHO)
    assert type(fault) is expected
    assert fault.metadata["status"] == str(status)
    assert "acme" in fault.message


@pytest.mark.parametrize(
    ("document", "expected"),
    [
        ({"error": {"type": "overloaded_error", "message": "x"}}, ProviderUnavailable),
        ({"error": {"type": "rate_limit_error", "message": "x"}}, ProviderRateLimited),
        ({"error": {"type": "authentication_error", "message": "x"}}, ProviderCredentialsRefused),
        ({"error": {"type": "invalid_request_error", "message": "prompt is too long"}}, ProviderContextOverflow),
        ({"error": {"type": "timeout_error", "message": "x"}}, ProviderTimeout),
        ({"error": {"message": "x", "code": 502}}, ProviderUnavailable),
        ({"error": {"message": "x", "code": 429}}, ProviderRateLimited),
        ({"error": {"message": "x", "status": "RESOURCE_EXHAUSTED"}}, ProviderRateLimited),
        ({"error": {"message": "x", "status": "UNAVAILABLE"}}, ProviderUnavailable),
        ({"error": {"message": "x", "status": "DEADLINE_EXCEEDED"}}, ProviderTimeout),
        ({"error": {"message": "x", "status": "UNAUTHENTICATED"}}, ProviderCredentialsRefused),
        ({"error": "what"}, ProviderUnavailable),
    ],
)
def test_a_refusal_within_a_stream_has_its_fault_without_a_status(document: object, expected: type[Fault]) -> None:
    assert type(fault_of(refusal_in(document), WHO)) is expected


@pytest.mark.feature("P21")
@pytest.mark.parametrize(
    "said",
    [
        "Incorrect API key provided: sk-secret-key-1234. You can find yours",
        "Incorrect API key provided: sk-proj-********************abcd.",
        "bad header Bearer abc.def.ghi",
        "key gsk_abcdefghijkl was revoked",
    ],
)
def test_no_key_is_repeated(said: str) -> None:
    fault = fault_of(refusal_of(401, error(message=said, code="sk-secret-key-1234")), WHO)
    whole = f"{fault.message} {fault.metadata}"
    for piece in ("sk-secret", "abcd", "abc.def", "gsk_", "****"):
        assert piece not in whole
    assert "[key]" in fault.message


def test_long_bodies_are_shortened_and_html_is_stripped() -> None:
    fault = fault_of(refusal_of(500, b"<p>" + b"x" * 100_000), WHO)
    assert len(fault.message) < 800
    assert "<p>" not in fault.message


@pytest.mark.feature("P11")
@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.25"}, 0.25),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 1.5),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0.0),
        ({"retry-after": "-5"}, 0.0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "1s"}, 1.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "6m0s"}, 360.0),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "20ms"}, 0.02),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "1h2m3.5s"}, 3723.5),
        ({"x-ratelimit-remaining-tokens": "17", "x-ratelimit-reset-tokens": "6m0s"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "soon"}, None),
        ({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": ""}, None),
        (
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "2s",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "1.5s",
            },
            2.0,
        ),
        ({"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "9s", "retry-after": "1"}, 1.0),
        (
            {"anthropic-ratelimit-input-tokens-remaining": "0", "anthropic-ratelimit-input-tokens-reset": "2023-11-14T22:13:35Z"},
            15.0,
        ),
        ({}, None),
    ],
)
def test_the_wish_to_wait_is_read_from_seconds_milliseconds_dates_and_exhausted_limits(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers, NOW) == seconds


@pytest.mark.feature("P11")
@pytest.mark.parametrize(
    ("details", "seconds"),
    [
        ([google("RetryInfo", retryDelay="34.4s")], 34.4),
        ([google("RetryInfo", retryDelay="0s")], 0.0),
        ([google("RetryInfo", retryDelay={"seconds": "2", "nanos": 500_000_000})], 2.5),
        ([google("RetryInfo", retryDelay="soon")], None),
        ([google("RetryInfo", retryDelay="infs")], None),
        ([google("RetryInfo", retryDelay=3)], None),
        ([google("RetryInfo", retryDelay={"seconds": []})], 0.0),
        ([google("QuotaFailure", violations="x"), "odd", google("ErrorInfo")], None),
        ({"retryDelay": "3s"}, None),
    ],
)
def test_the_wish_to_wait_may_stand_in_the_error_itself(details: object, seconds: float | None) -> None:
    body = error(code=429, message="x", status="RESOURCE_EXHAUSTED", details=details)
    assert fault_of(refusal_of(429, body), WHO).retry_after == seconds
    assert fault_of(refusal_of(429, body), WHO, {"retry-after": "1"}).retry_after == 1.0, "the header is the nearer one"


@given(st.text(max_size=30))
def test_no_header_whatever_breaks_the_reading(value: str) -> None:
    found = retry_after({"retry-after": value, "retry-after-ms": value}, NOW)
    assert found is None or found >= 0
    found = retry_after({"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": value}, NOW)
    assert found is None or found >= 0


@given(
    st.integers(300, 599),
    st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.text(max_size=5) | st.integers(),
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.sampled_from(["error", "message", "code", "type", "detail", "status"]), inner, max_size=3)
            ),
            max_leaves=6,
        ).map(lambda document: json.dumps(document).encode()),
    ),
)
def test_no_error_body_whatever_breaks_the_reading(status: int, body: bytes) -> None:
    fault = fault_of(refusal_of(status, body), WHO)
    assert fault.message
    assert all(isinstance(value, str) for value in fault.metadata.values())


@pytest.mark.parametrize("url", ["ftp://x", "http://", "https:///v1", "http://x:port", "http://[x"])
def test_an_address_without_scheme_or_host_is_refused_when_settings_are_read(url: str) -> None:
    with pytest.raises(ValidationError, match=r"it names no host|does not begin with"):
        OpenAiSettings(base_url=url)
    with pytest.raises(ValidationError, match=r"it is not http://host:port"):
        HttpSettings(proxy=url)
