"""Runs and their logs in memory."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import TypeVar

from session_store.adapters.memory.rows import Rows
from session_store.domain.batch import Batch, page_of
from session_store.domain.page import Cursor
from session_store.domain.run import FORGIVEN, Assignment, Place, Run, RunPatch, RunQuery, RunState, Standing
from session_store.domain.schedule import Candidate, Load, Queue
from session_store.domain.session import DriverId, RunId, Tenant
from session_store.domain.tally import NOTHING, Tally

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

    def advance(self, key: int, sequence: int, patch: RunPatch, ended_at: float | None, tally: Tally = NOTHING) -> None:
        """Moves the log's end, changes what patch sets, and adds to the counts."""
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
                tally=run.tally + tally,
            )
        )

    def count(self, key: int, tally: Tally) -> None:
        """Adds to the counts."""
        run = self._rows.runs[key]
        self._rows.put_run(replace(run, tally=run.tally + tally))

    def place(self, key: int, place: Place) -> None:
        """Changes the place."""
        self._rows.put_run(replace(self._rows.runs[key], place=place))

    def taken(self, session_key: int, tenant: Tenant) -> RunId | None:
        """An id that a tenant has."""
        ids = (self._rows.runs[key].id for key in self._rows.runs_of.get(session_key, []))
        return next((id_ for id_ in ids if (tenant, id_) in self._rows.run_keys), None)

    def end_by(self, key: int, moment: float) -> None:
        """Changes when one that has not begun is to be ended."""
        self._rows.put_run(replace(self._rows.runs[key], ends_by=moment))

    def page(self, tenant: Tenant, query: RunQuery, before: Cursor | None, limit: int) -> list[Run]:
        """Newest first."""
        keys = self._rows.runs if query.session_key is None else self._rows.runs_of.get(query.session_key, ())
        runs = [self._rows.runs[key] for key in keys]
        matching = [
            run
            for run in runs
            if run.tenant == tenant and (not query.states or run.state in query.states) and (not query.rested or run.wakes_at is not None)
        ]
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

    def load(self, tenant: Tenant) -> Load:
        """How much there is."""
        running = [run.tenant for run in self._live() if run.state is RunState.RUNNING]
        waiting = [run.tenant for run in self._live() if run.state is RunState.QUEUED]
        due = any(run.place is Place.HOLDING for run in self._undriven())
        return Load(running.count(tenant), waiting.count(tenant), len(running), due)

    def is_due(self) -> bool:
        """Whether any should have a driver."""
        return any(run.place is not Place.WAITING for run in self._undriven())

    def overdue(self, now: float, limit: int) -> list[tuple[int, Place, Assignment]]:
        """Those to be ended."""
        unbegun = (run for run in self._undriven() if run.state is RunState.QUEUED)
        over = sorted((run.ends_by, run.key) for run in unbegun if run.ends_by is not None and run.ends_by <= now)
        runs = [self._rows.runs[key] for _, key in over[:limit]]
        return [(run.key, run.place, _assignment(run)) for run in runs]

    def count_running(self) -> int:
        """How many run."""
        return sum(1 for run in self._live() if run.state is RunState.RUNNING)

    def orphans(self, limit: int) -> list[tuple[int, Assignment]]:
        """The oldest that lost their driver."""
        orphaned = (run for run in self._undriven() if run.state is RunState.RUNNING)
        return [(run.key, _assignment(run)) for run in islice(orphaned, limit)]

    def queues(self, after: Tenant, tenants: int, runs: int) -> list[Queue]:
        """Tenants with runs that wait for a driver."""
        due = [run for run in self._undriven() if run.state is RunState.QUEUED and run.place is Place.HOLDING]
        names = sorted({run.tenant for run in due})
        around = [name for name in names if name > after] + [name for name in names if name <= after]
        return [self._queue(name, [run for run in due if run.tenant == name], runs) for name in around[:tenants]]

    def assign(self, key: int, driver_id: DriverId, begins_at: float | None) -> None:
        """Hands a run out."""
        run = replace(self._rows.runs[key], driver_id=driver_id)
        if begins_at is not None:
            run = replace(run, state=RunState.RUNNING, started_at=_either(run.started_at, begins_at))
        self._rows.put_run(run)

    def rest(self, key: int, wakes_at: float) -> None:
        """Takes a run from its driver."""
        run = self._rows.runs[key]
        state = RunState.AWAITING_APPROVAL
        self._rows.put_run(replace(run, state=state, driver_id=DriverId(""), epoch=run.epoch + 1, wakes_at=wakes_at))

    def wake(self, key: int) -> None:
        """Lets it wait for a driver."""
        self._rows.put_run(replace(self._rows.runs[key], state=RunState.QUEUED))

    def rested(self, now: float, limit: int) -> list[int]:
        """Those to be woken."""
        resting = ((run.wakes_at, run.key) for run in self._live() if run.state is RunState.AWAITING_APPROVAL)
        return [key for moment, key in sorted(resting) if moment is not None and moment <= now][:limit]

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

    def _undriven(self) -> Iterator[Run]:
        return (run for run in self._live() if not run.driver_id and run.state is not RunState.AWAITING_APPROVAL)

    def _queue(self, tenant: Tenant, due: list[Run], limit: int) -> Queue:
        running = sum(1 for run in self._live() if run.tenant == tenant and run.state is RunState.RUNNING)
        first = sorted(due, key=lambda run: (run.rank, run.key))[:limit]
        return Queue(tenant, running, tuple(Candidate(run.key, run.rank, _assignment(run)) for run in first))

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
        for kept in (rows.batches_of_run[run_key], rows.batches_of_session[session_key]):
            kept.append(batch)
        if run.place is not Place.IMPORTED:
            rows.batches_of_tenant[tenant].append(batch)
        return batch.number

    def of_run(self, run_key: int, after: int, limit: int, max_bytes: int) -> list[Batch]:
        """A run's batches."""
        kept = self._rows.batches_of_run.get(run_key, [])
        start = bisect_right(kept, after, key=lambda batch: batch.last)
        return page_of(kept[start : start + limit], max_bytes)

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
    start = bisect_left(kept, from_number, key=lambda batch: batch.number)
    return page_of(kept[start : start + limit], max_bytes)


def _assignment(run: Run) -> Assignment:
    return Assignment(run.id, run.tenant, run.epoch, run.sequence)


def _either(new: T | None, old: T) -> T:
    return old if new is None else new
