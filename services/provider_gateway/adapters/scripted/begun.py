"""Going on with an answer that was begun: what a script still has to say after an assistant message that comes last."""

from __future__ import annotations

from dataclasses import replace

from provider_gateway.adapters.scripted.choice import readable
from provider_gateway.adapters.scripted.script import Turn
from provider_gateway.domain.chat import Role
from provider_gateway.operations.ports import ModelCall


def without_begun(call: ModelCall) -> tuple[ModelCall, str]:
    """The call as it was before the answer was begun, and what of the answer there is; empty where none was begun."""
    *before, last = call.request.messages
    if last.role is not Role.ASSISTANT or last.tool_calls or not before:
        return call, ""
    return replace(call, request=replace(call.request, messages=tuple(before))), readable(last)


def rest_of(turn: Turn, begun: str) -> Turn:
    """What is left of a turn; all of it where it does not begin so."""
    text = "".join(turn.text)
    if not begun or not text.startswith(begun):
        return turn
    return turn.model_copy(update={"text": text[len(begun) :], "reasoning": ""})
