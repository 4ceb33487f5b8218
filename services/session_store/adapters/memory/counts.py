"""Sums over runs in memory."""

from __future__ import annotations

from session_store.adapters.memory.rows import Rows
from session_store.domain.run import Place, Run
from session_store.domain.statistics import DAY_SECONDS, DayUsage, RunSums, Selection
from session_store.domain.usage import ModelUsage, Usage


class MemoryCounts:
    """Sums over runs. Nothing is added up here: that is done with whatever rows a backend gives."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def of_runs(self, selection: Selection) -> list[RunSums]:
        """One row for each run there is, and for each day and state of those that were deleted."""
        found = [_sums(run) for run in self._rows.runs.values() if _selects(selection, run)]
        if selection.whole_tenant:
            found += [
                row for (tenant, day, _), row in self._rows.departed.items() if tenant == selection.tenant and _within(selection, day)
            ]
        return found

    def of_usage(self, selection: Selection) -> list[DayUsage]:
        """One row for each run and model, and for each day and model of those that were deleted."""
        found = []
        for (_, _, run_key, provider, model), usage in self._rows.usage.items():
            run = self._rows.runs[run_key]
            if _selects(selection, run):
                found.append(DayUsage(day_of(run), ModelUsage(provider, model, usage)))
        if selection.whole_tenant:
            for (tenant, day, provider, model), usage in self._rows.departed_usage.items():
                if tenant == selection.tenant and _within(selection, day):
                    found.append(DayUsage(day, ModelUsage(provider, model, usage)))
        return found

    def depart(self, session_key: int) -> None:
        """Moves the sums of a session's runs to those of the departed, save imported runs'."""
        for name in [name for name in self._rows.usage if name[1] == session_key]:
            run, usage = self._rows.runs[name[2]], self._rows.usage.pop(name)
            if run.place is not Place.IMPORTED:
                where = (run.tenant, day_of(run), name[3], name[4])
                self._rows.departed_usage[where] = self._rows.departed_usage.get(where, Usage()) + usage
        for run in [self._rows.runs[key] for key in self._rows.runs_of.get(session_key, [])]:
            if run.place is not Place.IMPORTED:
                place, sums = (run.tenant, day_of(run), run.state), _sums(run)
                before = self._rows.departed.get(place)
                self._rows.departed[place] = sums if before is None else before + sums


def day_of(run: Run) -> int:
    """The number of the day on which a run was opened."""
    return int(run.created_at // DAY_SECONDS)


def _selects(selection: Selection, run: Run) -> bool:
    if run.tenant != selection.tenant or not _within(selection, day_of(run)):
        return False
    if selection.whole_tenant:
        return run.place is not Place.IMPORTED
    return selection.session_key in (None, run.session_key) and selection.run_key in (None, run.key)


def _within(selection: Selection, day: int) -> bool:
    return (selection.since is None or day >= selection.since) and (selection.until is None or day < selection.until)


def _sums(run: Run) -> RunSums:
    return RunSums(
        day_of(run),
        run.state,
        1,
        run.turns,
        run.sequence,
        run.tally,
        _micros(run.started_at, run.ended_at),
        _micros(run.created_at, run.started_at),
        run.created_at,
        run.ended_at,
    )


def _micros(since: float | None, until: float | None) -> int:
    return 0 if since is None or until is None else round((until - since) * 1_000_000)
