"""The rows in memory, and the orders they are looked up in."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from session_store.domain.batch import Batch
from session_store.domain.outbox import Shard
from session_store.domain.run import Run, RunState
from session_store.domain.session import DriverId, Message, Session, StoredMessage, Tenant
from session_store.domain.statistics import RunSums
from session_store.domain.usage import Usage
from session_store.operations.ports import Lease, Request

RequestKey = tuple[str, str, str]  # tenant, method, request id
UsageKey = tuple[str, int, int, str, str]  # tenant, session, run, provider, model


@dataclass(frozen=True, slots=True)
class RequestRow:
    """A request, its session and its end."""

    request: Request
    session_key: int
    expires_at: float


@dataclass(slots=True)
class Rows:
    """Everything, by key. `live` holds the runs that have not ended."""

    last_key: int = 0
    last_number: int = 0
    sessions: dict[int, Session] = field(default_factory=dict)
    session_keys: dict[tuple[str, str], int] = field(default_factory=dict)
    messages: defaultdict[int, list[StoredMessage]] = field(default_factory=lambda: defaultdict(list))
    held: dict[int, list[Message]] = field(default_factory=dict)
    runs: dict[int, Run] = field(default_factory=dict)
    run_keys: dict[tuple[str, str], int] = field(default_factory=dict)
    runs_of: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    live: dict[int, None] = field(default_factory=dict)
    batches_of_run: defaultdict[int, list[Batch]] = field(default_factory=lambda: defaultdict(list))
    batches_of_session: defaultdict[int, list[Batch]] = field(default_factory=lambda: defaultdict(list))
    batches_of_tenant: defaultdict[str, list[Batch]] = field(default_factory=lambda: defaultdict(list))
    requests: dict[RequestKey, RequestRow] = field(default_factory=dict)
    usage: dict[UsageKey, Usage] = field(default_factory=dict)
    leases: dict[DriverId, Lease] = field(default_factory=dict)
    shards: dict[int, Shard] = field(default_factory=dict)
    hidden: dict[int, tuple[Tenant, float]] = field(default_factory=dict)
    departed: dict[tuple[str, int, RunState], RunSums] = field(default_factory=dict)
    departed_usage: dict[tuple[str, int, str, str], Usage] = field(default_factory=dict)

    def next_key(self) -> int:
        """A key that was never given."""
        self.last_key += 1
        return self.last_key

    def put_run(self, run: Run) -> None:
        """Stores a run's row, new or changed."""
        self.runs[run.key] = run
        if run.state.ended:
            self.live.pop(run.key, None)
        else:
            self.live[run.key] = None
