"""A measured figure: what ours cost, what it is compared with, and how that stands to the budget in docs/benchmarks.md."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Better = Literal["lower", "higher"]
Sense = Literal["aim", "floor", "missed", ""]


@dataclass(frozen=True, slots=True)
class Budget:
    """The ratio that must be kept and the one that is aimed at; None where nothing was promised."""

    floor: float | None = None
    aim: float | None = None
    better: Better = "lower"

    def keeps(self, ratio: float, bound: float | None) -> bool:
        """Whether the ratio is within a bound."""
        if bound is None:
            return False
        return ratio <= bound if self.better == "lower" else ratio >= bound

    def verdict(self, ratio: float) -> Sense:
        """The best that the ratio reaches."""
        if self.keeps(ratio, self.aim):
            return "aim"
        if self.floor is None:
            return ""
        return "floor" if self.keeps(ratio, self.floor) else "missed"


NO_BUDGET = Budget()


@dataclass(frozen=True, slots=True)
class Figure:
    """Ours beside theirs, in one unit. `name` is stable from run to run, so that the previous figure is found again."""

    case: str
    name: str
    ours: float
    theirs: float
    against: str
    unit: str
    budget: Budget = NO_BUDGET

    @property
    def ratio(self) -> float:
        """Ours by theirs."""
        return self.ours / self.theirs if self.theirs else float("nan")

    @property
    def verdict(self) -> Sense:
        """How the ratio stands to the budget."""
        return self.budget.verdict(self.ratio)
