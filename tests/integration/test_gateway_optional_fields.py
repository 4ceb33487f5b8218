"""Servers that refuse fields which others want: each call is made again without them, however many meet the refusal at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from chassis.faults import ProviderRequestRefused
from kit.provider_gateway import open_gateway, settings_of, steps_of
from kit.provider_upstream import Conversation, open_upstream, stream, whole
from kit.provider_wires import OPENAI_TEXT, OPENAI_WHOLE, openai_sse

pytestmark = pytest.mark.feature("P5")
TOGETHER = 5


class Strict:
    """Refuses what it does not know, once all that come together are there."""

    def __init__(self, together: int, *refused: str) -> None:
        self._left, self._all, self._refused = together, asyncio.Event(), refused

    async def __call__(self, conversation: Conversation) -> None:
        asked = conversation.received.document
        found = next((name for name in self._refused if name in asked), None)
        self._left -= 1
        if self._left == 0:
            self._all.set()
        await self._all.wait()
        if found == "max_tokens":
            words = "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead."
            await whole({"error": {"message": words}}, 400)(conversation)
        elif found is not None:
            await whole({"error": {"message": f"unknown field {found}"}}, 400)(conversation)
        elif asked.get("stream"):
            await stream(openai_sse(OPENAI_TEXT))(conversation)
        else:
            await whole(OPENAI_WHOLE)(conversation)


def asked() -> pb.ChatRequest:
    said = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text="hi")])
    return pb.ChatRequest(model="acme/m", messages=[said], sampling=chat_pb2.Sampling(max_output_tokens=5))


def acme(url: str) -> dict[str, Any]:
    return {"acme": {"adapter": "openai", "base_url": f"{url}/v1", "max_tokens_field": "max_tokens", "stream_usage": True}}


@pytest.mark.parametrize("field", ["stream_options", "max_tokens"])
async def test_calls_that_are_refused_together_are_all_made_again(field: str) -> None:
    async with open_upstream(Strict(TOGETHER, field)) as upstream, open_gateway(settings_of(acme(upstream.url))) as stub:
        calls = [steps_of(stub, pb.StreamChatRequest(request=asked())) for _ in range(TOGETHER)]
        ended = await asyncio.gather(*calls)
        assert all(steps[-1].HasField("finished") for steps in ended)
        assert len(upstream.received) == 2 * TOGETHER
        await steps_of(stub, pb.StreamChatRequest(request=asked()))
        assert len(upstream.received) == 2 * TOGETHER + 1, "the refusal is remembered"


async def test_one_call_may_meet_several_refusals() -> None:
    strict = Strict(1, "stream_options", "max_tokens")
    async with open_upstream(strict) as upstream, open_gateway(settings_of(acme(upstream.url))) as stub:
        assert (await steps_of(stub, pb.StreamChatRequest(request=asked())))[-1].HasField("finished")
    assert len(upstream.received) == 3


async def test_a_server_that_refuses_either_way_is_not_asked_for_ever() -> None:
    async with open_upstream(Strict(1, "max_tokens")) as upstream, open_gateway(settings_of(acme(upstream.url))) as stub:
        words = "'max_tokens' and 'max_completion_tokens' are both unknown"
        upstream.replies = [whole({"error": {"message": words}}, 400)]
        with pytest.raises(ProviderRequestRefused):
            await stub.Chat(asked())
        assert len(upstream.received) == 4
