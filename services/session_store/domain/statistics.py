"""What many runs came to, and how it adds up. A run counts for the day, in UTC, that it was opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce

from session_store.domain.bounds import refuse
from session_store.domain.run import RunState
from session_store.domain.session import Tenant
from session_store.domain.tally import NOTHING, Tally
from session_store.domain.usage import ModelUsage, Usage

DAY_SECONDS = 86_400
MAX_DAYS = 366


@dataclass(frozen=True, slots=True)
class Selection:
    """Which runs are asked for: all of a tenant, of a session or one, opened on the days from since to before until, by number."""

    tenant: Tenant
    session_key: int | None = None
    run_key: int | None = None
    since: int | None = None
    until: int | None = None

    @property
    def whole_tenant(self) -> bool:
        """Whether it is no session's and no run's: then deleted runs count, and imported ones do not."""
        return self.session_key is None and self.run_key is None


@dataclass(frozen=True, slots=True)
class RunSums:
    """The sums of runs that were opened on one day and are in one state."""

    day: int
    state: RunState
    runs: int
    turns: int
    events: int
    tally: Tally
    run_micros: int
    queued_micros: int
    first_opened_at: float
    last_ended_at: float | None

    def __add__(self, other: RunSums) -> RunSums:
        """The sums of both; they are of the same day and state."""
        return RunSums(
            self.day,
            self.state,
            self.runs + other.runs,
            self.turns + other.turns,
            self.events + other.events,
            self.tally + other.tally,
            self.run_micros + other.run_micros,
            self.queued_micros + other.queued_micros,
            min(self.first_opened_at, other.first_opened_at),
            _latest(self.last_ended_at, other.last_ended_at),
        )


@dataclass(frozen=True, slots=True)
class DayUsage:
    """The usage of one model by runs that were opened on one day."""

    day: int
    row: ModelUsage


@dataclass(frozen=True, slots=True)
class Statistics:
    """The sums of any runs."""

    states: Mapping[RunState, int] = field(default_factory=dict)
    turns: int = 0
    events: int = 0
    tally: Tally = NOTHING
    run_micros: int = 0
    queued_micros: int = 0
    first_opened_at: float | None = None
    last_ended_at: float | None = None
    usage: Sequence[ModelUsage] = ()


def statistics_of(rows: Iterable[RunSums], usage: Iterable[DayUsage]) -> Statistics:
    """Everything as one."""
    return _with_usage(reduce(_and, rows, Statistics()), (each.row for each in usage))


def by_day(rows: Sequence[RunSums], usage: Sequence[DayUsage]) -> list[tuple[int, Statistics]]:
    """Each day that has any, oldest first, at most the newest MAX_DAYS."""
    days = sorted({row.day for row in rows} | {each.day for each in usage})[-MAX_DAYS:]
    return [(day, statistics_of((row for row in rows if row.day == day), (each for each in usage if each.day == day))) for day in days]


def day_number(field_name: str, seconds: float) -> int:
    """The number, since the epoch, of the day that begins at a moment. Raises RequestInvalid when none does."""
    if seconds % DAY_SECONDS:
        raise refuse(field_name, "is not midnight in UTC; days are counted whole, so round it down or up to one")
    return int(seconds // DAY_SECONDS)


def _and(before: Statistics, row: RunSums) -> Statistics:
    states = {**before.states, row.state: before.states.get(row.state, 0) + row.runs}
    return Statistics(
        states,
        before.turns + row.turns,
        before.events + row.events,
        before.tally + row.tally,
        before.run_micros + row.run_micros,
        before.queued_micros + row.queued_micros,
        row.first_opened_at if before.first_opened_at is None else min(before.first_opened_at, row.first_opened_at),
        _latest(before.last_ended_at, row.last_ended_at),
    )


def _latest(*moments: float | None) -> float | None:
    return max((moment for moment in moments if moment is not None), default=None)


def _with_usage(sums: Statistics, rows: Iterable[ModelUsage]) -> Statistics:
    models: dict[tuple[str, str], Usage] = {}
    for row in rows:
        models[row.provider, row.model] = models.get((row.provider, row.model), Usage()) + row.usage
    usage = tuple(ModelUsage(provider, model, models[provider, model]) for provider, model in sorted(models))
    return replace(sums, usage=usage)
