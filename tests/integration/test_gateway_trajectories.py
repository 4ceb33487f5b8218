"""Recorded agent loops replay message by message. Skips where the recordings are not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from kit.provider_gateway import open_gateway, settings_of

FILE = Path(__file__).resolve().parents[3] / "shared" / "trajectories" / "airline.jsonl"
ROLES = {"system": 1, "user": 2, "assistant": 3, "tool": 4}

pytestmark = [
    pytest.mark.feature("P24"),
    pytest.mark.skipif(not FILE.exists(), reason="optional: the folder ../shared/trajectories with recorded loops is not there"),
]


def scripted(message: dict[str, Any]) -> dict[str, Any]:
    calls = [
        {"id": call["id"], "name": call["function"]["name"], "arguments": call["function"]["arguments"]}
        for call in message.get("tool_calls") or ()
    ]
    return {"role": message["role"], "text": message.get("content") or "", "calls": calls, "call_id": message.get("tool_call_id", "")}


def sent(line: dict[str, Any]) -> chat_pb2.Message:
    calls = [chat_pb2.ToolCall(id=c["id"], name=c["name"], arguments=c["arguments"].encode()) for c in line["calls"]]
    parts = [chat_pb2.Part(text=line["text"])] if line["text"] else []
    return chat_pb2.Message(role=ROLES[line["role"]], parts=parts, tool_calls=calls, tool_call_id=line["call_id"])


async def test_every_recorded_answer_is_given_again_at_its_place() -> None:
    recorded = [[scripted(m) for m in json.loads(line)["messages"]] for line in FILE.read_text().splitlines()]
    provider = {"adapter": "scripted", "script": {"conversations": recorded}}
    async with open_gateway(settings_of({"replay": provider})) as stub:
        for conversation in recorded[:5]:
            messages = [sent(line) for line in conversation]
            for place, line in enumerate(conversation):
                if line["role"] == "assistant":
                    request = pb.ChatRequest(model="replay/airline", messages=messages[:place])
                    assert (await stub.Chat(request, timeout=10)).result.message == messages[place]
