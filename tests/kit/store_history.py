"""Sessions with something in them: runs that called tools, spent tokens, failed; and what a session holds, as its callers see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from behest.session.v1 import journal_service_pb2 as journal_pb
from behest.session.v1 import session_pb2
from behest.session.v1 import session_service_pb2 as session_pb
from behest.tool.v1 import tool_pb2
from kit.store import TERMINAL, Store, assistant, event, opening, read_log, stored


@dataclass(frozen=True)
class Turn:
    """One turn of a run: what its model call consumed, and how each tool call it asked for ended, with its milliseconds."""

    tokens: int = 10
    cost: int = 1000
    model: str = "m"
    calls: tuple[tuple[int, float], ...] = ()  # execution status, milliseconds


@dataclass
class Writing:
    """A run as its driver writes it."""

    store: Store
    run_id: str
    session_id: str = "s"
    tenant: str = "default"
    driver_id: str = "d1"
    epoch: int = 1
    sequence: int = 1
    turns: int = 0
    requests: list[journal_pb.AppendRequest] = field(default_factory=list)  # as they were sent, to be sent again

    async def open(self) -> None:
        request = opening(self.run_id, self.session_id, self.tenant, driver_id=self.driver_id)
        request.events[0].run_created.metadata.update({"z": "1", "a": "2"})
        request.events[0].traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
        await self.store.journal.OpenRun(request)

    async def turn(self, turn: Turn) -> None:
        """A model call that asks for tools, then the tools."""
        self.turns += 1
        answered = [self._event("model_started"), self._event("text_delta"), self._event("text_delta")]
        for index, _ in enumerate(turn.calls):
            answered.append(self._event("tool_call_completed"))
            answered[-1].tool_call_completed.call.id = f"{self.turns}-{index}"
        answered.append(self._event("usage_recorded"))
        usage = {"input_tokens": turn.tokens, "cost_nano_usd": turn.cost, "cost_known": True, "calls": 1}
        answered[-1].usage_recorded.call.MergeFrom(session_pb2.UsageRow(usage=usage).usage)  # type: ignore[arg-type]
        row = session_pb2.UsageRow(provider="p", model=turn.model, usage=usage)  # type: ignore[arg-type]
        patch = journal_pb.RunPatch(values=run_pb2.Run(turns=self.turns, usage=row.usage))
        message = stored(f"{self.run_id}-{self.turns}", assistant(f"turn {self.turns}"))
        await self.append(answered, messages=[message], usage=[row], patch=patch)
        if turn.calls:
            await self._tools(turn)

    async def _tools(self, turn: Turn) -> None:
        await self.append([self._event("tool_execution_started") for _ in turn.calls])
        finished, messages = [], []
        for index, (status, milliseconds) in enumerate(turn.calls):
            finished.append(self._event("tool_execution_finished"))
            result = finished[-1].tool_execution_finished.result
            result.call_id, result.status, result.duration_ms = f"{self.turns}-{index}", status, milliseconds  # type: ignore[assignment]
            messages.append(stored(f"{self.run_id}-{self.turns}-{index}", assistant("result")))
        await self.append(finished, messages=messages)

    async def end(self, kind: str = "run_completed") -> None:
        patch = journal_pb.RunPatch(state=TERMINAL[kind], values=run_pb2.Run(output_message_id="answer"))  # type: ignore[arg-type]
        if kind == "run_failed":
            patch.values.fault.reason = "TOKENS_EXHAUSTED"
        await self.append([self._event(kind)], patch=patch)

    async def append(self, events: Sequence[event_pb2.Event], **values: object) -> None:
        request = journal_pb.AppendRequest(
            run_id=self.run_id,
            driver_id=self.driver_id,
            epoch=self.epoch,
            expected_sequence=self.sequence,
            **values,  # type: ignore[arg-type]
        )
        for sequence, each in enumerate(events, self.sequence + 1):
            each.sequence = sequence
        request.events.extend(events)
        await self.store.journal.Append(request)
        self.requests.append(request)
        self.sequence += len(events)

    def _event(self, kind: str) -> event_pb2.Event:
        return event(self.run_id, 0, session_id=self.session_id, tenant=self.tenant, kind=kind, text="words ")


SUCCEEDED, FAILED, UNKNOWN = (
    tool_pb2.EXECUTION_STATUS_SUCCEEDED,
    tool_pb2.EXECUTION_STATUS_FAILED,
    tool_pb2.EXECUTION_STATUS_UNKNOWN,
)
TOOL_TURN = Turn(calls=((SUCCEEDED, 12.5), (FAILED, 0.25), (UNKNOWN, 3.0)))


async def write_run(store: Store, run_id: str, session_id: str = "s", *turns: Turn, end: str = "run_completed", **values: str) -> Writing:
    """A whole run: opened, some turns, ended (not with an empty end)."""
    writing = Writing(store, run_id, session_id, **values)  # type: ignore[arg-type]
    await writing.open()
    for turn in turns:
        await writing.turn(turn)
    if end:
        await writing.end(end)
    return writing


@dataclass(frozen=True)
class Holding:
    """All that a session holds, without what is each store's own: positions of events, and when the session was last changed."""

    session: session_pb2.Session
    messages: list[session_pb2.StoredMessage]
    runs: list[run_pb2.Run]
    logs: dict[str, list[event_pb2.Event]]
    usage: session_pb.GetUsageResponse
    statistics: session_pb2.Statistics


async def holding(store: Store, session_id: str = "s") -> Holding:
    """What a session holds now."""
    session = (await store.sessions.GetSession(session_pb.GetSessionRequest(session_id=session_id))).session
    session.ClearField("updated_at")
    found = await store.sessions.ListMessages(session_pb.ListMessagesRequest(session_id=session_id, page_size=1000))
    runs = list((await store.journal.ListRuns(journal_pb.ListRunsRequest(session_id=session_id, page_size=1000))).runs)
    logs = {run.id: await read_log(store, run.id) for run in runs}
    for log in logs.values():
        for each in log:
            each.ClearField("position")
    usage = await store.sessions.GetUsage(session_pb.GetUsageRequest(session_id=session_id))
    return Holding(session, list(found.messages), runs, logs, usage, await statistics(store, session_id=session_id))


async def statistics(store: Store, **values: object) -> session_pb2.Statistics:
    """The sums of what is asked for."""
    return (await store.sessions.GetStatistics(session_pb.GetStatisticsRequest(**values))).total  # type: ignore[arg-type]


__all__ = [name for name in dir() if not name.startswith("_")]
