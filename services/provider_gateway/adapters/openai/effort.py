"""How hard to think, in the words of each kind of server. OpenAI's field has a scale; others have part of it, a switch, or a template."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any

from provider_gateway.domain.chat import ReasoningEffort

Body = dict[str, Any]


class EffortWords(enum.Enum):
    """Where and how a server wants to be told."""

    FIELD = "reasoning_effort with OpenAI's scale"
    THREE = "reasoning_effort with none, low, medium and high"
    OBJECT = "reasoning.effort with OpenAI's scale: OpenRouter"
    DEEPSEEK = "thinking.type turns it off and on, reasoning_effort has the scale"
    SWITCH = "thinking.type turns it off and on, and there is no scale: Moonshot"
    QWEN = "enable_thinking turns it off and on, and there is no scale: Alibaba"
    VLLM = "reasoning_effort with low, medium and high; off is up to the chat template"
    TEMPLATE = "arguments of the chat template: llama.cpp"


def effort_fields(words: EffortWords, effort: ReasoningEffort) -> tuple[Body, str]:
    """The fields for an effort, and what was adapted; both empty for an effort that is not set."""
    if effort is ReasoningEffort.UNSPECIFIED:
        return {}, ""
    off, word = effort is ReasoningEffort.NONE, effort.name.lower()
    known = _THREE.get(effort, word)
    adapted = f"{word} is sent as {known}, the nearest that the server knows" if known != word else ""
    match words:
        case EffortWords.FIELD:
            return {"reasoning_effort": word}, ""
        case EffortWords.THREE:
            return {"reasoning_effort": known}, adapted
        case EffortWords.OBJECT:
            return {"reasoning": {"effort": word}}, ""
        case EffortWords.DEEPSEEK:
            return ({"thinking": _OFF} if off else {"thinking": _ON, "reasoning_effort": word}), ""
        case EffortWords.SWITCH:
            return {"thinking": _OFF if off else _ON}, "" if off else _NO_SCALE.format(word)
        case EffortWords.QWEN:
            return {"enable_thinking": not off}, "" if off else _NO_SCALE.format(word)
        case EffortWords.VLLM:
            return (_template(enable_thinking=False) if off else {"reasoning_effort": known}), adapted
        case EffortWords.TEMPLATE:
            return (_template(enable_thinking=False) if off else _template(reasoning_effort=known)), adapted


_THREE: Mapping[ReasoningEffort, str] = {ReasoningEffort.MINIMAL: "low"}
_ON, _OFF = {"type": "enabled"}, {"type": "disabled"}
_NO_SCALE = "{} is sent as thinking at all: the server has no scale"


def _template(**arguments: Any) -> Body:
    return {"chat_template_kwargs": arguments}
