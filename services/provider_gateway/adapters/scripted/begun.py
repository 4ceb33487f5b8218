"""Going on with an answer that was begun: what a script still has to say after an assistant message that comes last."""

from __future__ import annotations

from dataclasses import replace

from provider_gateway.adapters.scripted.choice import readable, turn_for
from provider_gateway.adapters.scripted.script import Script, Turn
from provider_gateway.domain.chat import Role
from provider_gateway.operations.ports import ModelCall


def taken_up(script: Script, call: ModelCall) -> tuple[ModelCall, Turn]:
    """The turn for a call. Where its last message is the beginning of one, that is the rest of it, and the call as it was before."""
    *before, last = call.request.messages
    if before and last.role is Role.ASSISTANT and not last.tool_calls:
        earlier = replace(call, request=replace(call.request, messages=tuple(before)))
        turn, begun = turn_for(script, earlier.request, call.model), readable(last)
        text = "".join(turn.text)
        if begun and text.startswith(begun):
            return earlier, turn.model_copy(update={"text": text[len(begun) :], "reasoning": ""})
    return call, turn_for(script, call.request, call.model)
