"""How much a Claude model thinks: the contract's effort in the words that the model's generation understands."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from provider_gateway.domain.chat import ReasoningEffort

MIN_BUDGET = 1024  # the least that the API accepts
_BUDGETS: Mapping[ReasoningEffort, int] = {
    ReasoningEffort.MINIMAL: MIN_BUDGET,
    ReasoningEffort.LOW: 2048,
    ReasoningEffort.MEDIUM: 8192,
    ReasoningEffort.HIGH: 16384,
}
_EFFORTS: Mapping[ReasoningEffort, str] = {
    ReasoningEffort.MINIMAL: "low",
    ReasoningEffort.LOW: "low",
    ReasoningEffort.MEDIUM: "medium",
    ReasoningEffort.HIGH: "high",
}
_VERSION = re.compile(r"claude-[a-z]+-(\d{1,2})(?:-(\d{1,2}))?(?!\d)")
_ADAPTIVE_SINCE = (4, 6)  # models from here on decide the budget themselves and take an effort
_SILENT_SINCE = (4, 7)  # from here on thoughts are told only when asked for, and there is no temperature and no top_p


@dataclass(frozen=True, slots=True)
class Thinking:
    """What to put into the request, and the token limit that goes with it. `off` says why there is none although it was asked for."""

    fields: Mapping[str, Any]
    output: Mapping[str, Any]
    max_tokens: int
    off: str = ""


def thinking(effort: ReasoningEffort, model: str, max_tokens: int, forced_tool: bool) -> Thinking:
    """The request's thinking fields. max_tokens includes the thinking, as the contract has it."""
    if effort.value <= ReasoningEffort.NONE.value:
        return Thinking({}, {}, max_tokens)
    if forced_tool:
        return Thinking({}, {}, max_tokens, "off: the model cannot think when a tool is forced")
    if _version(model) >= _ADAPTIVE_SINCE:
        told = {"display": "summarized"} if _version(model) >= _SILENT_SINCE else {}
        return Thinking({"thinking": {"type": "adaptive", **told}}, {"effort": _EFFORTS[effort]}, max_tokens)
    if max_tokens <= MIN_BUDGET:
        return Thinking({}, {}, max_tokens, f"off: it needs max_output_tokens above {MIN_BUDGET}")
    budget = min(_BUDGETS[effort], max(MIN_BUDGET, max_tokens // 2))
    return Thinking({"thinking": {"type": "enabled", "budget_tokens": budget}}, {}, max_tokens)


def takes_sampling(model: str) -> bool:
    """Whether the model takes a temperature and a top_p; the newer ones refuse the whole request."""
    return _version(model) < _SILENT_SINCE


def _version(model: str) -> tuple[int, int]:
    match = _VERSION.search(model)
    return (int(match[1]), int(match[2] or 0)) if match else (0, 0)
