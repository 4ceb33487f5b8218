"""What must be true of every history. A rule is a function from a history to what contradicts it; it asks nobody and changes nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from chaos.history import History


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that must not be: where, what, and the part of the history that shows it."""

    run_id: str
    text: str
    evidence: tuple[str, ...] = ()


Rule = Callable[[History], Iterator[Finding]]


def judge(history: History, rules: Mapping[str, Rule]) -> dict[str, list[Finding]]:
    """The findings of every rule that has some, by its name."""
    found = {name: list(rule(history)) for name, rule in rules.items()}
    return {name: findings for name, findings in found.items() if findings}
