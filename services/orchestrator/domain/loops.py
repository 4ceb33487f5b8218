"""Tells when a model repeats itself: features.md R10. A step is what one turn's tool calls did, so parallel calls are not a loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

IDENTICAL_STEPS = 3
CYCLE_LENGTHS = range(2, 5)
CYCLE_REPEATS = 3
STALLED_STEPS = 5
MEMORY = max(CYCLE_LENGTHS) * CYCLE_REPEATS
"""How many steps are worth remembering."""


@dataclass(frozen=True, slots=True)
class Step:
    """The calls of one turn as sorted (tool, arguments digest, content digest)."""

    calls: tuple[tuple[str, str, str], ...]

    @classmethod
    def of(cls, calls: Iterable[tuple[str, str, str]]) -> Step:
        """A step of these calls, in any order."""
        return cls(tuple(sorted(calls)))

    @property
    def tools(self) -> tuple[str, ...]:
        """The tools called, sorted."""
        return tuple(sorted({tool for tool, _, _ in self.calls}))

    @property
    def outcome(self) -> tuple[tuple[str, str], ...]:
        """Tools and results, whatever the arguments were."""
        return tuple(sorted({(tool, content) for tool, _, content in self.calls}))


def detect(steps: tuple[Step, ...]) -> str:
    """The pattern that the newest steps make: identical_calls, cycle, no_progress, or empty for none."""
    if _identical(steps):
        return "identical_calls"
    if any(_cycles(steps, length) for length in CYCLE_LENGTHS):
        return "cycle"
    return "no_progress" if _stalled(steps) else ""


def _identical(steps: tuple[Step, ...]) -> bool:
    newest = steps[-IDENTICAL_STEPS:]
    return len(newest) == IDENTICAL_STEPS and len(set(newest)) == 1


def _cycles(steps: tuple[Step, ...], length: int) -> bool:
    newest = steps[-length * CYCLE_REPEATS :]
    if len(newest) < length * CYCLE_REPEATS:
        return False
    return all(step == newest[i % length] for i, step in enumerate(newest))


def _stalled(steps: tuple[Step, ...]) -> bool:
    newest = steps[-STALLED_STEPS:]
    if len(newest) < STALLED_STEPS or len(newest[0].tools) != 1:
        return False
    return len({step.outcome for step in newest}) == 1
