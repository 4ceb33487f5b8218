"""Runs and their logs in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from session_store.adapters.memory.rows import Rows
from session_store.domain.batch import Batch
from session_store.domain.page import Cursor
from session_store.domain.run import FORGIVEN, Assignment, Place, Run, RunPatch, RunQuery, RunState, Standing
from session_store.domain.session import DriverId, RunId, Tenant

T = TypeVar("T")


class MemoryRuns:
    """Runs."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def find(self, tenant: Tenant, id_: RunId) -> Run | None:
        """The run of that id."""
        key = self._rows.run_keys.get((tenant, id_))
        return None if key is None else self._rows.runs[key]

    def standing(self, tenant: Tenant, id_: RunId) -> Standing | None:
        """What decides about writes."""
        run = self.find(tenant, id_)
        if run is None:
            return None
        return Standing(run.key, run.session_key, run.session_id, run.state, run.place, run.sequence, run.driver_id, run.epoch)

    def add(self, run: Run) -> int:
        """Stores a new run."""
        key = self._rows.next_key()
        self._rows.put_run(replace(run, key=key))
        self._rows.run_keys[run.tenant, run.id] = key
        self._rows.runs_of[run.session_key].append(key)
        return key

    def advance(self, key: int, sequence: int, patch: RunPatch, ended_at: float | None) -> None:
        """Moves the log's end, and changes what patch sets."""
        run = self._rows.runs[key]
        self._rows.put_run(
            replace(
                run,
                sequence=sequence,
                state=_either(patch.state, run.state),
                usage=_either(patch.usage, run.usage),
                turns=_either(patch.turns, run.turns),
                fault=_either(patch.fault, run.fault),
                output_message_id=_either(patch.output_message_id, run.output_message_id),
                ended_at=_either(ended_at, run.ended_at),
            )
        )

    def place(self, key: int, place: Place) -> None:
        """Changes the place."""
        self._rows.put_run(replace(self._rows.runs[key], place=place))

    def page(self, tenant: Tenant, query: RunQuery, before: Cursor | None, limit: int) -> list[Run]:
        """Newest first."""
        keys = self._rows.runs if query.session_key is None else self._rows.runs_of.get(query.session_key, ())
        runs = [self._rows.runs[key] for key in keys]
        matching = [run for run in runs if run.tenant == tenant and (not query.states or run.state in query.states)]
        ordered = sorted(matching, key=lambda run: (run.created_at, run.id), reverse=True)
        return [run for run in ordered if before is None or (run.created_at, run.id) < (before.created_at, before.id)][:limit]

    def with_input(self, session_key: int, digest: str, since: float) -> Run | None:
        """The newest run with that input."""
        for key in reversed(self._rows.runs_of.get(session_key, ())):
            run = self._rows.runs[key]
            if run.created_at < since:
                break
            if run.input_digest == digest and run.state not in FORGIVEN:
                return run
        return None

    def count_waiting(self, session_key: int) -> int:
        """How many wait."""
        return sum(1 for _ in self._waiting(session_key))

    def next_waiting(self, session_key: int) -> tuple[int, RunId] | None:
        """The oldest that waits."""
        run = next(self._waiting(session_key), None)
        return (run.key, run.id) if run else None

    def unassigned(self, limit: int) -> list[tuple[int, Assignment]]:
        """The oldest that should have a driver."""
        due = (run for run in self._live() if not run.driver_id and run.place is not Place.WAITING)
        return [(run.key, _assignment(run)) for run in islice(due, limit)]

    def assign(self, key: int, driver_id: DriverId, now: float) -> None:
        """Hands a run out."""
        run = replace(self._rows.runs[key], driver_id=driver_id)
        if run.place is Place.HOLDING:
            run = replace(run, state=RunState.RUNNING, started_at=_either(run.started_at, now))
        self._rows.put_run(run)

    def held_by(self, driver_id: DriverId) -> list[Assignment]:
        """A driver's runs."""
        return [_assignment(run) for run in self._live() if run.driver_id == driver_id]

    def take(self, driver_id: DriverId, run_ids: Sequence[RunId] | None) -> list[RunId]:
        """Takes runs away."""
        taken = [run for run in self._live() if run.driver_id == driver_id and (run_ids is None or run.id in run_ids)]
        for run in taken:
            self._rows.put_run(replace(run, driver_id=DriverId(""), epoch=run.epoch + 1))
        return [run.id for run in taken]

    def _live(self) -> Iterator[Run]:
        return (self._rows.runs[key] for key in sorted(self._rows.live))

    def _waiting(self, session_key: int) -> Iterator[Run]:
        return (run for run in self._live() if run.session_key == session_key and run.place is Place.WAITING)


class MemoryBatches:
    """Logs."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def add(self, tenant: Tenant, session_key: int, run_key: int, first: int, last: int, data: bytes) -> int:
        """Stores events."""
        rows = self._rows
        rows.last_number += 1
        run = rows.runs[run_key]
        batch = Batch(rows.last_number, run.id, run.session_id, first, last, data)
        for kept in (rows.batches_of_run[run_key], rows.batches_of_session[session_key], rows.batches_of_tenant[tenant]):
            kept.append(batch)
        return batch.number

    def of_run(self, run_key: int, after: int, limit: int, max_bytes: int) -> list[Batch]:
        """A run's batches."""
        kept = self._rows.batches_of_run.get(run_key, [])
        return _page(kept, bisect_right(kept, after, key=lambda batch: batch.last), limit, max_bytes)

    def of_session(self, session_key: int, from_number: int, limit: int, max_bytes: int) -> list[Batch]:
        """A session's batches."""
        return _page_from(self._rows.batches_of_session.get(session_key, []), from_number, limit, max_bytes)

    def of_tenant(self, tenant: Tenant, from_number: int, limit: int, max_bytes: int) -> list[Batch]:
        """A tenant's batches."""
        return _page_from(self._rows.batches_of_tenant.get(tenant, []), from_number, limit, max_bytes)

    def last_number(self) -> int:
        """The greatest number ever given."""
        return self._rows.last_number


def _page_from(kept: list[Batch], from_number: int, limit: int, max_bytes: int) -> list[Batch]:
    return _page(kept, bisect_left(kept, from_number, key=lambda batch: batch.number), limit, max_bytes)


def _page(kept: list[Batch], start: int, limit: int, max_bytes: int) -> list[Batch]:
    """Batches from start until their data would pass max_bytes, at least one."""
    page: list[Batch] = []
    size = 0
    for batch in kept[start : start + limit]:
        size += len(batch.data)
        if page and size > max_bytes:
            break
        page.append(batch)
    return page


def _assignment(run: Run) -> Assignment:
    return Assignment(run.id, run.tenant, run.epoch, run.sequence)


def _either(new: T | None, old: T) -> T:
    return old if new is None else new
