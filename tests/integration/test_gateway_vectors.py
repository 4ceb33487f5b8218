"""Embeddings and counts over gRPC in front of providers over HTTP, each as its vendor has it."""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager
from typing import Any

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openai.types import CreateEmbeddingResponse, EmbeddingCreateParams
from pydantic import TypeAdapter

from behest.provider.v1 import provider_service_pb2 as pb
from chassis.faults import (
    CapabilityMissing,
    FieldNotExpressible,
    ModelNotFound,
    ProviderCredentialsRefused,
    ProviderRateLimited,
    ProviderRequestRefused,
    ProviderResponseInvalid,
    RequestInvalid,
)
from chassis.rpc import open_channel, open_server
from chassis.world import World
from kit.provider_embedding import embedding_server
from kit.provider_gateway import open_gateway, settings_of
from kit.provider_requests import ask
from kit.provider_upstream import Upstream, open_upstream, whole
from provider_gateway.api.convert_embeddings import embed_request_from, embed_response_to
from provider_gateway.app import open_app
from provider_gateway.domain.answers import RequestWarning, Usage
from provider_gateway.domain.embeddings import EmbedPurpose, EmbedRequest, EmbedResult
from suite.addresses import Service
from suite.client import Behest

EMBED, COUNT = pytest.mark.feature("P19"), pytest.mark.feature("P20")
KEY = "sk-very-secret-0123456789"


def openai_at(upstream: Upstream, **fields: Any) -> dict[str, Any]:
    return {"adapter": "openai", "base_url": f"{upstream.url}/v1", "api_key": KEY, **fields}


def texts(*given: str, **fields: Any) -> pb.EmbedRequest:
    return pb.EmbedRequest(model="acme/m-1", inputs=[pb.EmbedInput(text=text) for text in given], **fields)


def firsts(response: pb.EmbedResponse) -> list[float]:
    assert [embedding.index for embedding in response.embeddings] == list(range(len(response.embeddings)))
    return [embedding.values[0] for embedding in response.embeddings]


@EMBED
@pytest.mark.parametrize("carrier", ["grpc", "mux", "local"])
async def test_texts_become_vectors_in_their_order(carrier: str) -> None:
    async with (
        open_upstream(embedding_server(shuffled=True)) as upstream,
        open_gateway(settings_of({"acme": openai_at(upstream)}), carrier) as stub,
    ):
        response = await stub.Embed(texts("a", "bbb", "cc", metadata={"user_id": "u1"}), timeout=10)
        assert firsts(response) == [1, 3, 2]
        assert list(response.embeddings[0].values) == [1.0, 0.5, -1.0]
        assert (response.usage.input_tokens, response.usage.calls, response.provider, response.model) == (6, 1, "acme", "m-1")
        (received,) = upstream.received
        assert received.path == "/v1/embeddings"
        assert received.headers["authorization"] == f"Bearer {KEY}"
        assert received.document == {"model": "m-1", "input": ["a", "bbb", "cc"], "encoding_format": "base64", "user": "u1"}


@EMBED
async def test_tokens_and_texts_go_into_calls_of_their_own() -> None:
    inputs = [
        pb.EmbedInput(tokens=pb.EmbedTokens(ids=[1, 2])),
        pb.EmbedInput(text="abc"),
        pb.EmbedInput(tokens=pb.EmbedTokens(ids=[4, 5, 6, 7])),
    ]
    async with open_upstream(embedding_server()) as upstream, open_gateway(settings_of({"acme": openai_at(upstream)})) as stub:
        response = await stub.Embed(pb.EmbedRequest(model="acme/m-1", inputs=inputs, dimensions=3), timeout=10)
        assert firsts(response) == [2, 3, 4]
        asked = [received.document for received in upstream.received]
        assert sorted(json.dumps(one["input"]) for one in asked) == ['["abc"]', "[[1, 2]]", "[[4, 5, 6, 7]]"]
        for one in asked:
            assert one["dimensions"] == 3
            TypeAdapter(EmbeddingCreateParams).validate_python(one, strict=False)
            assert set(one) <= set(EmbeddingCreateParams.__annotations__)


@EMBED
async def test_a_long_request_goes_in_several_calls_and_fails_as_one_when_one_fails() -> None:
    inputs = ["x" * (place % 7 + 1) for place in range(1100)]
    refusal = whole({"error": {"message": "no", "type": "invalid_request_error"}}, 400)
    async with open_upstream(embedding_server()) as upstream, open_gateway(settings_of({"acme": openai_at(upstream)})) as stub:
        response = await stub.Embed(texts(*inputs), timeout=20)
        assert firsts(response) == [len(text) for text in inputs]
        assert (response.usage.input_tokens, response.usage.calls) == (sum(map(len, inputs)), 3)
        assert sorted(len(received.document["input"]) for received in upstream.received) == [76, 512, 512]
        upstream.replies[:] = [embedding_server()] * 4 + [refusal]
        with pytest.raises(ProviderRequestRefused):
            await stub.Embed(texts(*inputs), timeout=20)


@EMBED
async def test_ollama_embeds_by_its_own_protocol() -> None:
    answer = whole({"model": "nomic", "embeddings": [[1, 0.5], [2, 0.5]], "prompt_eval_count": 4})
    async with open_upstream(answer) as upstream:
        home = {"adapter": "ollama", "base_url": upstream.url}
        async with open_gateway(settings_of({"acme": home})) as stub:
            response = await stub.Embed(texts("a", "bb"), timeout=10)
    assert (firsts(response), response.usage.input_tokens, upstream.received[0].path) == ([1, 2], 4, "/api/embed")


@EMBED
async def test_a_server_that_refuses_base64_is_asked_for_numbers_from_then_on() -> None:
    refusal = whole({"error": {"message": "unknown field encoding_format", "type": "invalid_request_error"}}, 400)
    async with open_upstream(refusal, embedding_server()) as upstream, open_gateway(settings_of({"acme": openai_at(upstream)})) as stub:
        assert firsts(await stub.Embed(texts("a"), timeout=10)) == [1]
        assert firsts(await stub.Embed(texts("ab"), timeout=10)) == [2]
        assert [received.document.get("encoding_format") for received in upstream.received] == ["base64", None, None]


@EMBED
@pytest.mark.parametrize(
    ("document", "fault"),
    [
        ({"object": "list", "data": []}, ProviderResponseInvalid),
        ({"data": [{"embedding": "not base64!"}]}, ProviderResponseInvalid),
        ({"data": [{"embedding": "QUJD"}]}, ProviderResponseInvalid),
        ({"choices": []}, ProviderResponseInvalid),
        ({"error": {"message": "slow down", "type": "rate_limit_error"}}, ProviderRateLimited),
    ],
    ids=["no vectors", "broken base64", "three bytes", "a chat's answer", "an error in a 200"],
)
async def test_an_answer_without_vectors_is_a_failure(document: Any, fault: type[Exception]) -> None:
    async with open_upstream(whole(document)) as upstream, open_gateway(settings_of({"acme": openai_at(upstream)})) as stub:
        with pytest.raises(fault):
            await stub.Embed(texts("a"), timeout=10)


@EMBED
async def test_what_cannot_be_embedded_is_refused_before_anything_is_sent() -> None:
    providers = {"claude": {"adapter": "anthropic", "api_key": KEY}, "openai": {"adapter": "openai", "api_key": KEY}}
    async with open_gateway(settings_of(providers)) as stub:
        with pytest.raises(CapabilityMissing, match="embeds nothing"):
            await stub.Embed(pb.EmbedRequest(model="claude/x", inputs=[pb.EmbedInput(text="a")]), timeout=10)
        with pytest.raises(CapabilityMissing, match="gpt-4o lacks embeddings"):
            await stub.Embed(pb.EmbedRequest(model="openai/gpt-4o", inputs=[pb.EmbedInput(text="a")]), timeout=10)
        with pytest.raises(RequestInvalid) as caught:
            await stub.Embed(pb.EmbedRequest(model="scripted/x", inputs=[pb.EmbedInput(), pb.EmbedInput(text="a")]), timeout=10)
        assert [v.field for v in caught.value.violations] == ["inputs[0]"]
        with pytest.raises(ModelNotFound):
            await stub.Embed(pb.EmbedRequest(model="nobody/x", inputs=[pb.EmbedInput(text="a")]), timeout=10)


def test_the_server_of_these_tests_answers_as_openai_does() -> None:
    """The SDK's own type accepts what the decoder is fed with."""
    document = {
        "object": "list",
        "model": "m",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
        "usage": {"prompt_tokens": 1, "total_tokens": 1},
    }
    assert CreateEmbeddingResponse.model_validate(document).data[0].embedding == [0.5]


@COUNT
async def test_anthropic_counts_itself_what_would_be_sent() -> None:
    async with open_upstream(whole({"input_tokens": 2095})) as upstream:
        claude = {"adapter": "anthropic", "base_url": upstream.url, "api_key": KEY}
        async with open_gateway(settings_of({"claude": claude})) as stub:
            request = ask("hi", "claude/claude-sonnet-4", metadata={"user_id": "u1"})
            request.sampling.temperature = 0.5
            request.sampling.max_output_tokens = 100
            request.tools.add(name="weather", parameters=b'{"type":"object"}')
            counted = await stub.CountTokens(pb.CountTokensRequest(request=request), timeout=10)
            assert (counted.input_tokens, counted.exact, counted.provider, counted.model) == (2095, True, "claude", "claude-sonnet-4")
            (received,) = upstream.received
            assert received.path == "/v1/messages/count_tokens"
            assert set(received.document) == {"model", "messages", "tools"}


@COUNT
async def test_vllm_counts_itself_what_would_be_sent() -> None:
    async with (
        open_upstream(whole({"count": 42, "max_model_len": 4096, "tokens": [1, 2]}), whole({"tokens": []})) as upstream,
        open_gateway(settings_of({"gpu": openai_at(upstream, dialect="vllm")})) as stub,
    ):
        request = ask("hi", "gpu/qwen3")
        request.sampling.temperature = 0.5
        request.tools.add(name="weather", parameters=b'{"type":"object"}')
        counted = await stub.CountTokens(pb.CountTokensRequest(request=request), timeout=10)
        assert (counted.input_tokens, counted.exact, counted.model) == (42, True, "qwen3")
        (received,) = upstream.received
        assert received.path == "/tokenize"
        assert set(received.document) == {"model", "messages", "tools"}
        with pytest.raises(ProviderResponseInvalid):
            await stub.CountTokens(pb.CountTokensRequest(request=request), timeout=10)


@COUNT
@pytest.mark.parametrize("status", [404, 405, 501])
async def test_where_nobody_counts_it_is_estimated(status: int) -> None:
    async with open_upstream(whole({"error": "no such route"}, status)) as upstream:
        claude = {"adapter": "anthropic", "base_url": upstream.url, "api_key": KEY}
        async with open_gateway(settings_of({"claude": claude})) as stub:
            for model in ("scripted/echo", "claude/x"):
                counted = await stub.CountTokens(pb.CountTokensRequest(request=ask("a" * 400, model)), timeout=10)
                assert (counted.input_tokens, counted.exact) == (107, False)


@COUNT
async def test_counting_fails_as_answering_would() -> None:
    refusal = whole({"type": "error", "error": {"type": "authentication_error", "message": "invalid x-api-key"}}, 401)
    async with open_upstream(refusal) as upstream:
        claude = {"adapter": "anthropic", "base_url": upstream.url, "api_key": KEY}
        async with open_gateway(settings_of({"claude": claude})) as stub:
            with pytest.raises(ProviderCredentialsRefused):
                await stub.CountTokens(pb.CountTokensRequest(request=ask("hi", "claude/x")), timeout=10)
            with pytest.raises(RequestInvalid):
                await stub.CountTokens(pb.CountTokensRequest(request=pb.ChatRequest(model="claude/x")), timeout=10)
            with pytest.raises(FieldNotExpressible):
                hot = ask("hi", "claude/x")
                hot.sampling.temperature = 1.5
                await stub.CountTokens(pb.CountTokensRequest(request=hot), timeout=10)


@EMBED
@COUNT
@pytest.mark.feature("X3")
async def test_the_python_client_embeds_and_counts() -> None:
    async with open_app(settings_of({}), World()) as app, open_server(app, "127.0.0.1:0") as server:

        def dial(service: Service) -> AbstractAsyncContextManager[grpc.aio.Channel]:
            assert service is Service.PROVIDER_GATEWAY
            return open_channel(server.address, "grpc")

        async with Behest(dial=dial) as client:
            embedded = await client.embed(["my order", "your order", "bananas"], "scripted/words", dimensions=64)
            mine, yours, fruit = (embedding.values for embedding in embedded.embeddings)
            assert sum(a * b for a, b in zip(mine, yours, strict=True)) > sum(a * b for a, b in zip(mine, fruit, strict=True))
            assert len(mine) == 64
            counted = await client.count_tokens("a" * 40, "scripted/echo")
            assert (counted.input_tokens, counted.exact) == (17, False)


_text = st.text(max_size=5)


@EMBED
@given(
    st.builds(
        EmbedRequest,
        st.lists(st.text(max_size=5) | st.lists(st.integers(0, 2**32 - 1), max_size=3).map(tuple), max_size=4).map(tuple),
        _text,
        _text,
        st.none() | st.integers(-(2**31), 2**31 - 1),
        st.sampled_from(EmbedPurpose),
        st.dictionaries(_text, _text, max_size=2),
        _text,
    )
)
def test_a_request_comes_back_from_the_contract_as_it_was(request: EmbedRequest) -> None:
    inputs = [
        pb.EmbedInput(text=given) if isinstance(given, str) else pb.EmbedInput(tokens=pb.EmbedTokens(ids=given)) for given in request.inputs
    ]
    message = pb.EmbedRequest(
        request_id=request.request_id,
        model=request.model,
        inputs=inputs,
        dimensions=request.dimensions,
        purpose=request.purpose.value,
        metadata=request.metadata,
        budget_key=request.budget_key,
    )
    assert embed_request_from(pb.EmbedRequest.FromString(message.SerializeToString())) == request


@EMBED
def test_a_purpose_that_the_contract_does_not_have_is_refused() -> None:
    with pytest.raises(RequestInvalid, match="QUERY"):
        embed_request_from(pb.EmbedRequest(purpose=9))  # type: ignore[arg-type] # an older server sees a newer number


@EMBED
def test_a_result_keeps_every_field() -> None:
    result = EmbedResult(((0.5, -1.0), (0.0, 2.0)), Usage(3, cost_nano_usd=7, cost_known=True), "p", "m", (RequestWarning("purpose", "x"),))
    message = embed_response_to(result)
    assert tuple(tuple(embedding.values) for embedding in message.embeddings) == result.vectors
    assert [embedding.index for embedding in message.embeddings] == [0, 1]
    assert (message.usage.input_tokens, message.usage.cost_nano_usd, message.provider, message.model) == (3, 7, "p", "m")
    assert [(warning.field, warning.message) for warning in message.warnings] == [("purpose", "x")]
