"""Gemini behind the gateway: answers, vectors and counts over gRPC in front of a server that speaks generateContent."""

from __future__ import annotations

import json
from typing import Any

import pytest

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from chassis.faults import CapabilityMissing, FieldNotExpressible, ModelNotFound, ProviderCredentialsMissing, ProviderResponseInvalid
from kit.gemini_wires import GEMINI_STREAM, gemini_sse
from kit.provider_gateway import open_gateway, settings_of, steps_of
from kit.provider_requests import ask, ask_stream
from kit.provider_upstream import Conversation, Reply, Upstream, open_upstream, stream, whole

KEY = "AIzaSyVerySecret0123456789"


def gemini_at(upstream: Upstream, **fields: Any) -> dict[str, Any]:
    return {"adapter": "gemini", "base_url": f"{upstream.url}/v1beta", "api_key": KEY, **fields}


def vectors_of_lengths() -> Reply:
    """A vector for each text, that begins with the text's length."""

    async def reply(conversation: Conversation) -> None:
        asked = conversation.received.document["requests"]
        texts = [request["content"]["parts"][0]["text"] for request in asked]
        document = {"embeddings": [{"values": [len(text), 0.5]} for text in texts], "usageMetadata": {"promptTokenCount": len(texts)}}
        body = json.dumps(document).encode()
        await conversation.head(200, content_type="application/json", content_length=str(len(body)))
        await conversation.send(body)

    return reply


def texts(*given: str, model: str = "g/gemini-embedding-001", **fields: Any) -> pb.EmbedRequest:
    return pb.EmbedRequest(model=model, inputs=[pb.EmbedInput(text=text) for text in given], **fields)


@pytest.mark.feature("P5")
async def test_a_conversation_is_streamed_and_its_signatures_go_back() -> None:
    async with open_upstream(stream(gemini_sse(GEMINI_STREAM))) as upstream, open_gateway(settings_of({"g": gemini_at(upstream)})) as stub:
        finished = (await steps_of(stub, ask_stream("hi", "g/gemini-3.8-flash")))[-1].finished
        assert finished.finish_reason == chat_pb2.FINISH_REASON_TOOL_CALLS
        assert [call.name for call in finished.message.tool_calls] == ["weather", "now"]
        user = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text="hi")])
        results = [chat_pb2.Message(role=chat_pb2.ROLE_TOOL, tool_call_id=call.id) for call in finished.message.tool_calls]
        again = pb.ChatRequest(model="g/gemini-3.8-flash", messages=[user, finished.message, *results])
        await steps_of(stub, pb.StreamChatRequest(request=again))
    first, second = upstream.received
    assert first.path == "/v1beta/models/gemini-3.8-flash:streamGenerateContent?alt=sse"
    assert first.headers["x-goog-api-key"] == KEY
    sent = second.document["contents"][1]["parts"]
    assert {"functionCall": {"name": "weather", "args": {"city": "Paris"}}, "thoughtSignature": "U0lH"} in sent


@pytest.mark.feature("P19")
async def test_texts_become_vectors_in_order_a_hundred_at_a_time() -> None:
    given = ["x" * (number % 50 + 1) for number in range(250)]
    async with open_upstream(vectors_of_lengths()) as upstream, open_gateway(settings_of({"g": gemini_at(upstream)})) as stub:
        response = await stub.Embed(texts(*given, dimensions=2, purpose=pb.EMBED_PURPOSE_DOCUMENT), timeout=10)
    assert [embedding.values[0] for embedding in response.embeddings] == [len(text) for text in given]
    assert response.usage.input_tokens == 250
    assert sorted(len(received.document["requests"]) for received in upstream.received) == [50, 100, 100]
    assert {received.path for received in upstream.received} == {"/v1beta/models/gemini-embedding-001:batchEmbedContents"}
    assert upstream.received[0].document["requests"][0] == {
        "model": "models/gemini-embedding-001",
        "content": {"parts": [{"text": upstream.received[0].document["requests"][0]["content"]["parts"][0]["text"]}]},
        "taskType": "RETRIEVAL_DOCUMENT",
        "outputDimensionality": 2,
    }


@pytest.mark.feature("P19")
async def test_a_model_that_is_told_the_purpose_in_words_is_told_so() -> None:
    async with open_upstream(vectors_of_lengths()) as upstream, open_gateway(settings_of({"g": gemini_at(upstream)})) as stub:
        await stub.Embed(texts("cats", model="g/gemini-embedding-2", purpose=pb.EMBED_PURPOSE_QUERY), timeout=10)
        response = await stub.Embed(texts("cats", model="g/gemini-embedding-2", metadata={"run": "r"}), timeout=10)
    told, untold = (received.document["requests"][0] for received in upstream.received)
    assert told["content"]["parts"] == [{"text": "task: search result | query: cats"}]
    assert untold["content"]["parts"] == [{"text": "cats"}]
    assert not {"taskType", "outputDimensionality"} & {*told, *untold}
    assert [warning.field for warning in response.warnings] == ["metadata"]


@pytest.mark.feature("P19")
async def test_tokens_are_refused_by_their_path_and_vectors_that_are_none_are_named_so() -> None:
    tokens = pb.EmbedRequest(model="g/gemini-embedding-001", inputs=[pb.EmbedInput(tokens=pb.EmbedTokens(ids=[1, 2]))])
    async with open_upstream(whole({"embeddings": "x"})) as upstream, open_gateway(settings_of({"g": gemini_at(upstream)})) as stub:
        with pytest.raises(FieldNotExpressible) as caught:
            await stub.Embed(tokens, timeout=10)
        assert caught.value.metadata["field"] == "inputs[0].tokens"
        with pytest.raises(ProviderResponseInvalid):
            await stub.Embed(texts("a"), timeout=10)


@pytest.mark.feature("P20")
async def test_the_whole_request_is_counted_where_the_provider_counts() -> None:
    request = ask("hi", "g/gemini-3.8-flash", tools=[chat_pb2.ToolDefinition(name="weather")])
    async with open_upstream(whole({"totalTokens": 42})) as upstream, open_gateway(settings_of({"g": gemini_at(upstream)})) as stub:
        counted = await stub.CountTokens(pb.CountTokensRequest(request=request), timeout=10)
    assert (counted.input_tokens, counted.exact) == (42, True)
    assert upstream.received[0].path == "/v1beta/models/gemini-3.8-flash:countTokens"
    assert upstream.received[0].document == {
        "generateContentRequest": {
            "model": "models/gemini-3.8-flash",
            "contents": [{"role": "user", "parts": [{"text": "hi"}]}],
            "tools": [{"functionDeclarations": [{"name": "weather"}]}],
        }
    }


@pytest.mark.feature("P20")
async def test_a_count_that_is_none_is_named_so() -> None:
    async with open_upstream(whole({"total": 1})) as upstream, open_gateway(settings_of({"g": gemini_at(upstream)})) as stub:
        with pytest.raises(ProviderResponseInvalid):
            await stub.CountTokens(pb.CountTokensRequest(request=ask("hi", "g/m")), timeout=10)


@pytest.mark.feature("P5")
async def test_vertex_ai_is_reached_by_its_address_and_counts_in_its_own_words() -> None:
    """The address names aiplatform.googleapis.com, as Vertex AI's do; here it is a path of a server on this machine."""
    async with open_upstream(whole({"totalTokens": 7})) as upstream:
        vertex = gemini_at(upstream, base_url=f"{upstream.url}/aiplatform.googleapis.com/v1/publishers/google")
        async with open_gateway(settings_of({"v": vertex})) as stub:
            counted = await stub.CountTokens(pb.CountTokensRequest(request=ask("hi", "v/gemini-3.8-flash")), timeout=10)
            with pytest.raises(CapabilityMissing):
                await stub.Embed(texts("a", model="v/gemini-embedding-001"), timeout=10)
    assert counted.input_tokens == 7
    assert upstream.received[0].path == "/aiplatform.googleapis.com/v1/publishers/google/models/gemini-3.8-flash:countTokens"
    assert upstream.received[0].document == {"contents": [{"role": "user", "parts": [{"text": "hi"}]}]}


@pytest.mark.feature("P9")
@pytest.mark.feature("P21")
async def test_the_vendor_is_there_without_configuration_and_says_which_key_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GEMINI_API_KEY", raising=False)
    async with open_gateway(settings_of({})) as stub:
        with pytest.raises(ProviderCredentialsMissing, match="GEMINI_API_KEY"):
            await stub.Chat(ask("hi", "gemini/gemini-3.8-flash"), timeout=10)
        monkeypatch.setenv("GEMINI_API_KEY", KEY)
        models = {model.model: model for model in (await stub.ListModels(pb.ListModelsRequest(provider="gemini"))).models}
    assert models["gemini-3.8-flash"].capabilities.reasoning
    assert models["gemini-2.5-pro"].HasField("price")
    assert models["gemini-embedding-001"].capabilities.embeddings


async def test_a_model_that_is_not_there_is_named_so() -> None:
    error = {"error": {"code": 404, "message": "models/x is not found for API version v1beta", "status": "NOT_FOUND"}}
    async with open_upstream(whole(error, 404)) as upstream, open_gateway(settings_of({"g": gemini_at(upstream)})) as stub:
        with pytest.raises(ModelNotFound):
            await stub.Chat(ask("hi", "g/x"), timeout=10)
