"""Which turn of a script answers a request. Pure: the request decides, nothing is remembered."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from chassis.faults import ProviderRequestRefused
from provider_gateway.adapters.scripted.script import Script, ScriptedCall, ScriptedMessage, Turn, When
from provider_gateway.domain.chat import ChatRequest, JsonPart, Message, Role, TextPart

ECHO = "echo"


def turn_for(script: Script, request: ChatRequest, model: str) -> Turn:
    """The turn; raises ProviderRequestRefused where the script has none."""
    if model == ECHO:
        return echo(request.messages)
    if script.conversations:
        return _recorded(script.conversations, request.messages)
    for rule in script.rules:
        said, answered = _looked_at(rule.when, request.messages)
        if said is not None and _applies(rule.when, said):
            return _numbered(script, rule.turns, answered, request.messages)
    return _numbered(script, script.turns, answers_in(request.messages), request.messages)


def answers_in(messages: Sequence[Message]) -> int:
    """How many assistant messages there are."""
    return [message.role for message in messages].count(Role.ASSISTANT)


def echo(messages: Sequence[Message]) -> Turn:
    """A turn that says the last message again."""
    return Turn(text=readable(messages[-1]))


def readable(message: Message) -> str:
    """What a message says, as text."""
    pieces = []
    for part in message.parts:
        if isinstance(part, TextPart):
            pieces.append(part.text)
        elif isinstance(part, JsonPart):
            pieces.append(part.data.decode())
    return "".join(pieces)


def _looked_at(when: When, messages: Sequence[Message]) -> tuple[str | None, int]:
    """The text that a rule looks at, and how many answers came after it."""
    if when.role == "tool":
        return (readable(messages[-1]), 0) if messages[-1].role is Role.TOOL else (None, 0)
    for place in range(len(messages) - 1, -1, -1):
        if messages[place].role is Role.USER:
            return readable(messages[place]), answers_in(messages[place:])
    return None, 0


def _applies(when: When, said: str) -> bool:
    if when.equals is not None and said != when.equals:
        return False
    return when.contains in said and re.search(when.matches, said) is not None


def _numbered(script: Script, turns: Sequence[Turn], number: int, messages: Sequence[Message]) -> Turn:
    if number < len(turns):
        return turns[number]
    if script.otherwise == "echo":
        return echo(messages)
    if script.otherwise == "repeat" and turns:
        return turns[-1]
    raise _refused(f"the script has no turn {number} for this request; add one, or set otherwise to echo")


def _recorded(conversations: Sequence[Sequence[ScriptedMessage]], messages: Sequence[Message]) -> Turn:
    differences = [_difference(conversation, messages) for conversation in conversations]
    for conversation, (_, difference) in zip(conversations, differences, strict=True):
        if not difference:
            return _next_turn(conversation, messages)
    _, nearest = max(differences)
    raise _refused(f"the request is not the beginning of a recorded conversation: {nearest}")


def _next_turn(conversation: Sequence[ScriptedMessage], messages: Sequence[Message]) -> Turn:
    said = _expected(conversation, messages)
    answer = said[len(messages)] if len(messages) < len(said) else None
    if answer is None or answer.role != "assistant":
        raise _refused(f"the recorded conversation has no answer after message {len(messages) - 1}")
    return Turn(text=answer.text, reasoning=answer.reasoning, calls=answer.calls)


def _expected(conversation: Sequence[ScriptedMessage], messages: Sequence[Message]) -> list[ScriptedMessage]:
    """The conversation, with the request's own system message where none was recorded."""
    systems = [ScriptedMessage(role="system", text=readable(m)) for m in messages[:1] if m.role is Role.SYSTEM]
    return [*([] if conversation and conversation[0].role == "system" else systems), *conversation]


def _difference(conversation: Sequence[ScriptedMessage], messages: Sequence[Message]) -> tuple[int, str]:
    """How many messages are alike, and what the first difference is; empty when there is none."""
    expected = _expected(conversation, messages)
    for place, message in enumerate(messages):
        if place >= len(expected):
            return place, f"messages[{place}] comes after the recorded end"
        if _plain(message) != _recorded_plain(expected[place]):
            return place, f"messages[{place}] differs: recorded {_recorded_plain(expected[place])}, got {_plain(message)}"
    return len(messages), ""


def _plain(message: Message) -> dict[str, object]:
    calls = [(call.id, call.name, _canonical(call.arguments)) for call in message.tool_calls]
    return _comparable(message.role.name.lower(), readable(message), calls, message.tool_call_id, message.is_error)


def _recorded_plain(message: ScriptedMessage) -> dict[str, object]:
    calls = [(call.id, call.name, _canonical(arguments_of(call))) for call in message.calls]
    return _comparable(message.role, message.text, calls, message.call_id, message.is_error)


def _comparable(role: str, text: str, calls: list[tuple[str, str, str]], call_id: str, is_error: bool) -> dict[str, object]:
    found = {"role": role, "text": text, "calls": calls, "call_id": call_id, "is_error": is_error}
    return {key: value for key, value in found.items() if value}


def arguments_of(call: ScriptedCall) -> bytes:
    """A scripted call's arguments as a model would write them."""
    return call.arguments.encode() if isinstance(call.arguments, str) else msgspec.json.encode(call.arguments)


def _canonical(arguments: bytes) -> str:
    try:
        return msgspec.json.encode(msgspec.json.decode(arguments), order="sorted").decode()
    except (msgspec.DecodeError, UnicodeDecodeError):
        return arguments.decode("utf-8", "replace")


def _refused(text: str) -> ProviderRequestRefused:
    return ProviderRequestRefused(text, metadata={"provider": "scripted"})
