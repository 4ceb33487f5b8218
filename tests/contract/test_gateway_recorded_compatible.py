"""Recorded traffic of every server that speaks OpenAI's protocol: what goes back to it in its own dialect, and vectors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kit.provider_decoding import decode_stream, result_of
from kit.provider_oracle import check_chat
from kit.provider_recordings import ABSENT, FOLDER, Recording, recordings
from provider_gateway.adapters.openai import OpenAiWire
from provider_gateway.adapters.openai.dialect import DIALECTS, dialect_at
from provider_gateway.domain.chat import ChatRequest, ImagePart, Message, ReasoningPart, Role, TextPart
from provider_gateway.domain.embeddings import EmbedRequest
from provider_gateway.operations.ports import EmbedCall, ModelCall

BEYOND = {"thinking", "reasoning", "enable_thinking", "random_seed", "chat_template_kwargs"}
VENDORS = {"moonshotai": "moonshot", "openai": "openai", "openai-compatible": "compatible", "together": "together"}
ANSWERS = [recording for recording in recordings("openai") if recording.status == 200]
USER = Message(Role.USER, (TextPart("hi"),))

pytestmark = pytest.mark.skipif(not ANSWERS, reason=ABSENT)


def dialect_of(recording: Recording) -> str:
    """The dialect of whoever answered; compatible for those that have none."""
    vendor = recording.vendor.removeprefix("openai-compat:")
    return VENDORS.get(vendor, vendor if vendor in DIALECTS else "compatible")


def wire_of(recording: Recording) -> OpenAiWire:
    return OpenAiWire("vendor", DIALECTS[dialect_of(recording)])


def answer_of(recording: Recording) -> Message:
    wire = wire_of(recording)
    return (result_of(decode_stream(wire, [recording.body])) if recording.is_stream else wire.decode(recording.body)).message


@pytest.mark.feature("P5")
def test_vendors_of_the_recordings_are_known() -> None:
    """Most recordings are read as what they are, so that the tests below say something of each dialect."""
    assert {"groq", "mistral", "deepseek", "xai", "moonshot", "alibaba", "perplexity", "openrouter", "together", "ollama", "openai"} <= {
        dialect_of(recording) for recording in ANSWERS
    }


@pytest.mark.feature("P2")
@pytest.mark.feature("P5")
@pytest.mark.parametrize("recording", ANSWERS, ids=str)
def test_an_answer_goes_back_to_its_server_in_words_that_openai_s_library_would_send(recording: Recording) -> None:
    message = answer_of(recording)
    if any(isinstance(part, ImagePart) for part in message.parts):
        pytest.skip("optional: pictures of an assistant cannot go back")
    results = [Message(Role.TOOL, (TextPart("done"),), tool_call_id=call.id, tool_name=call.name) for call in message.tool_calls]
    dialect = DIALECTS[dialect_of(recording)]
    for history in ((USER, message, *results), (USER, message, *results, USER)):
        encoded = wire_of(recording).encode(ModelCall(ChatRequest(history), "m"), stream=True)
        body: dict[str, Any] = json.loads(encoded.body)
        assert encoded.warnings == ()
        plain = [{**one, "content": _plain(one.get("content"))} for one in body["messages"]]
        check_chat({**body, "messages": plain}, BEYOND)
        assert [call["id"] for call in body["messages"][1].get("tool_calls", ())] == [
            answer["tool_call_id"] for answer in body["messages"][2 : 2 + len(results)]
        ]
        if dialect.name == "mistral":
            assert all(len(answer["tool_call_id"]) == 9 for answer in body["messages"] if answer["role"] == "tool")
    reasoned = any(isinstance(part, ReasoningPart) and part.text for part in message.parts)
    if reasoned:  # within its turn it goes back, whatever the server calls it
        own = json.loads(wire_of(recording).encode(ModelCall(ChatRequest((USER, message)), "m"), stream=False).body)["messages"][1]
        assert {"reasoning_content", "reasoning", "reasoning_details"} & set(own) or "thinking" in json.dumps(own["content"])


def _plain(content: Any) -> Any:
    """Content without thinking, which Mistral has in it and OpenAI has not."""
    if not isinstance(content, list):
        return content
    return [item for item in content if item["type"] != "thinking"] or None


@pytest.mark.feature("P5")
def test_recorded_addresses_tell_their_dialect() -> None:
    told = set()
    for entry in json.loads((FOLDER / "MANIFEST.json").read_text()):
        for exchange in json.loads((FOLDER / f"{entry['id']}.cassette.json").read_text())["interactions"]:
            told.add(dialect_at(exchange["request"]["uri"]))
    assert {"openai", "openrouter", "together", "xai", "ollama"} <= told


def embeddings() -> list[tuple[str, dict[str, Any], bytes]]:
    found = []
    for entry in json.loads((FOLDER / "MANIFEST.json").read_text()) if FOLDER.is_dir() else ():
        for exchange in json.loads((FOLDER / f"{entry['id']}.cassette.json").read_text())["interactions"]:
            answer = exchange["response"]
            if exchange["request"]["uri"].endswith("/v1/embeddings") and answer["status"]["code"] == 200:
                found.append((entry["id"], json.loads(answer["body"]["string"]), answer["body"]["string"].encode()))
    return found


@pytest.mark.feature("P19")
def test_recorded_vectors_are_read_as_numbers_and_from_base64() -> None:
    kinds = set()
    for name, document, body in embeddings():
        result = OpenAiWire("vendor").decode_embed(body, EmbedCall(EmbedRequest(("x",)), "m"))
        assert (result.usage.input_tokens, result.model) == (document["usage"]["prompt_tokens"], document["model"]), name
        assert len(result.vectors) == len(document["data"])
        for vector, item in zip(result.vectors, document["data"], strict=True):
            kinds.add(type(item["embedding"]))
            if isinstance(item["embedding"], list):
                assert vector == tuple(item["embedding"])
            else:  # OpenAI's vectors have length 1
                assert len(vector) == 1536
                assert sum(value * value for value in vector) == pytest.approx(1, abs=1e-3)
    assert kinds == {list, str}
