"""How much a Gemini model thinks: the contract's effort in the words that the model's generation understands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from provider_gateway.adapters.gemini.generations import THINKS_BY_BUDGET, THINKS_BY_LEVEL, generation
from provider_gateway.domain.chat import ReasoningEffort

_BUDGETS: Mapping[ReasoningEffort, int] = {
    ReasoningEffort.MINIMAL: 512,
    ReasoningEffort.LOW: 1024,
    ReasoningEffort.MEDIUM: 8192,
    ReasoningEffort.HIGH: 24_576,
}
_LEAST_BUDGETS = {"pro": 128, "flash-lite": 512, "flash": 1}  # https://ai.google.dev/gemini-api/docs/thinking
_LEVELS: Mapping[ReasoningEffort, str] = {
    ReasoningEffort.NONE: "MINIMAL",
    ReasoningEffort.MINIMAL: "MINIMAL",
    ReasoningEffort.LOW: "LOW",
    ReasoningEffort.MEDIUM: "MEDIUM",
    ReasoningEffort.HIGH: "HIGH",
}
_TAKE_MINIMAL = (
    "gemini-3-flash",
    "gemini-3.1-flash",
    "gemini-3.5-flash",
    "gemini-3.6-flash",
    "gemini-flash-lite-latest",
)  # the others begin at LOW
_LACK_MEDIUM = ("gemini-3-pro",)


@dataclass(frozen=True, slots=True)
class Thinking:
    """What to put into generationConfig.thinkingConfig; `adapted` says what is not quite what was asked for."""

    fields: Mapping[str, Any] = field(default_factory=dict)
    adapted: str = ""


NOT_SAID = Thinking()


def thinking(effort: ReasoningEffort, model: str, max_tokens: int | None) -> Thinking:
    """The request's thinking fields. max_tokens, None when the caller set none, includes the thinking, as the contract has it."""
    of = generation(model)
    if effort is ReasoningEffort.UNSPECIFIED or of < THINKS_BY_BUDGET:
        return NOT_SAID
    if of < THINKS_BY_LEVEL:
        return _off(model) if effort is ReasoningEffort.NONE else _budget(effort, model, max_tokens)
    return _level(effort, model)


def _off(model: str) -> Thinking:
    if _kind(model) != "pro":
        return Thinking({"thinkingBudget": 0})
    least = _LEAST_BUDGETS["pro"]
    return Thinking({"thinkingBudget": least}, f"{model} cannot do without thinking; it is held to {least} tokens of it")


def _budget(effort: ReasoningEffort, model: str, max_tokens: int | None) -> Thinking:
    budget = _BUDGETS[effort]
    if max_tokens is not None:  # at least half of what may be written is left for the answer
        budget = max(min(budget, max_tokens // 2), _LEAST_BUDGETS[_kind(model)])
    return Thinking({"thinkingBudget": budget, "includeThoughts": True})


def _level(effort: ReasoningEffort, model: str) -> Thinking:
    level = accepted = _LEVELS[effort]
    if level == "MINIMAL" and not _named(model, _TAKE_MINIMAL):
        accepted = "LOW"
    elif level == "MEDIUM" and _named(model, _LACK_MEDIUM):
        accepted = "HIGH"
    if effort is ReasoningEffort.NONE:
        return Thinking({"thinkingLevel": accepted}, f"{model} cannot do without thinking; its level is {accepted}")
    adapted = "" if level == accepted else f"{model} has no level {level}; it is sent as {accepted}"
    return Thinking({"thinkingLevel": accepted, "includeThoughts": True}, adapted)


def _kind(model: str) -> str:
    return next((kind for kind in ("pro", "flash-lite", "flash") if kind in model), "pro")


def _named(model: str, beginnings: tuple[str, ...]) -> bool:
    return model.rpartition("/")[2].startswith(beginnings)
