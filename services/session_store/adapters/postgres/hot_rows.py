"""Runs as this process last knew them, and appends decided on them in memory.

Nothing here is the truth: what is decided is written only if the rows still are what they were taken for (hot_statement.py).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from session_store.domain.run import RunPatch, RunState, Standing
from session_store.domain.session import Message, RunId, Tenant
from session_store.domain.tally import NOTHING, Tally
from session_store.domain.usage import ModelUsage
from session_store.operations.ports import Hint

KEPT = 10_000  # runs, about 5 MB
_NO_PATCH = RunPatch()


class Miss(Exception):
    """The work asks for something that only the tables know."""


class Unknown(Exception):
    """The work is about a run that is not held here."""

    def __init__(self, tenant: Tenant, run_id: RunId) -> None:
        super().__init__(run_id)
        self.run = (tenant, run_id)


class Later(Exception):
    """The work is about a run that another work of the same statement is about."""


@dataclass(frozen=True, slots=True)
class HotRun:
    """What an append needs to know of a run and its session."""

    tenant: Tenant
    run_id: RunId
    standing: Standing
    message_count: int


class HotRuns:
    """The runs that were written to last."""

    def __init__(self) -> None:
        self._runs: OrderedDict[tuple[Tenant, RunId], HotRun] = OrderedDict()
        self._ids: dict[int, tuple[Tenant, RunId]] = {}

    def get(self, tenant: Tenant, run_id: RunId) -> HotRun | None:
        """A run, if it is held."""
        return self._runs.get((tenant, run_id))

    def put(self, run: HotRun) -> None:
        """Holds a run, in place of the one that was not used for longest."""
        place = (run.tenant, run.run_id)
        self._runs[place] = run
        self._runs.move_to_end(place)
        self._ids[run.standing.key] = place
        if len(self._runs) > KEPT:
            _, oldest = self._runs.popitem(last=False)
            del self._ids[oldest.standing.key]

    def forget(self, key: int) -> None:
        """Does not hold a run any more."""
        place = self._ids.pop(key, None)
        if place is not None:
            del self._runs[place]


@dataclass(slots=True)
class Draft:
    """What an append is going to write."""

    run: HotRun
    number: int
    last: int = 0
    data: bytes = b""
    patch: RunPatch = _NO_PATCH
    tally: Tally = NOTHING
    messages: Sequence[Message] = ()
    moment: float = 0.0
    usage: Sequence[ModelUsage] = ()

    @property
    def after(self) -> HotRun:
        """The run when it is written."""
        run, s = self.run, self.run.standing
        state = s.state if self.patch.state is None else self.patch.state
        standing = Standing(s.key, s.session_key, s.session_id, state, s.place, self.last, s.driver_id, s.epoch)
        return HotRun(run.tenant, run.run_id, standing, run.message_count + len(self.messages))


class HotTables:
    """Tables as far as an ordinary append uses them, for one work after another. What else is asked for raises Miss."""

    def __init__(self, runs: HotRuns) -> None:
        self._held = runs
        self.start(0)
        self.runs, self.batches, self.sessions = _Runs(self), _Batches(self), _Sessions(self)
        self.messages, self.usage = _Messages(self), _Usage(self)

    def __getattr__(self, name: str) -> Any:
        raise Miss(name)

    def start(self, last_number: int) -> None:
        """Begins a statement."""
        self.drafts: list[Draft] = []
        self.hints: list[Hint] = []
        self._last_number = last_number
        self._taken: set[int] = set()
        self._draft: Draft | None = None

    def begin(self) -> None:
        """Forgets what a work before left undone."""
        self._draft = None

    def accept(self) -> bool:
        """Takes what the work wrote; whether it wrote anything."""
        draft = self._draft
        if draft is None or not draft.last:
            return False
        self._taken.add(draft.run.standing.key)
        self.drafts.append(draft)
        return True

    def standing(self, tenant: Tenant, id_: RunId) -> Standing:
        """The standing of a run that is held."""
        run = self._held.get(tenant, id_)
        if run is None:
            raise Unknown(tenant, id_)
        if run.standing.key in self._taken:
            raise Later(id_)
        self._draft = Draft(run, self._last_number + len(self.drafts) + 1)
        return run.standing

    def draft(self, session_key: int | None, run_key: int | None) -> Draft:
        """What the work writes so far."""
        draft = self._draft
        if draft is None or run_key not in (None, draft.run.standing.key) or session_key not in (None, draft.run.standing.session_key):
            raise Miss("another run")
        return draft


class _Part:
    def __init__(self, tables: HotTables) -> None:
        self._tables = tables

    def __getattr__(self, name: str) -> Any:
        raise Miss(name)


class _Runs(_Part):
    def standing(self, tenant: Tenant, id_: RunId) -> Standing:
        return self._tables.standing(tenant, id_)

    def advance(self, key: int, sequence: int, patch: RunPatch, ended_at: float | None, tally: Tally = NOTHING) -> None:
        draft = self._tables.draft(None, key)
        if ended_at is not None or (patch.state is not None and patch.state is not RunState.RUNNING):
            raise Miss("the end of a run")
        draft.last, draft.patch, draft.tally = sequence, patch, tally


class _Batches(_Part):
    def add(self, tenant: Tenant, session_key: int, run_key: int, first: int, last: int, data: bytes) -> int:
        draft = self._tables.draft(session_key, run_key)
        draft.data = data
        return draft.number


class _Sessions(_Part):
    def grow(self, key: int, count: int, now: float) -> int:
        return self._tables.draft(key, None).run.message_count


class _Messages(_Part):
    def add(self, session_key: int, first: int, run_key: int, now: float, messages: Sequence[Message]) -> None:
        draft = self._tables.draft(session_key, run_key)
        draft.messages, draft.moment = messages, now


class _Usage(_Part):
    def add(self, tenant: Tenant, session_key: int, run_key: int, rows: Sequence[ModelUsage]) -> None:
        self._tables.draft(session_key, run_key).usage = rows
