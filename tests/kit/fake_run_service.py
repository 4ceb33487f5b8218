"""A run service without a suite behind it: it tells prepared logs, and breaks its streams where a test says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field

from behest.event.v1 import event_pb2 as event_pb
from behest.run.v1 import run_pb2 as run_pb
from behest.run.v1 import run_service_pb2 as runs
from behest.run.v1.run_service_pb2_grpc import RunServiceServicer, add_RunServiceServicer_to_server
from chassis.faults import RunNotFound, ServiceUnavailable
from chassis.rpc.methods import Methods, Pipeline


@dataclass(frozen=True, slots=True)
class Break:
    """How one stream breaks: after so many events, by a clean end or a fault, having repeated or skipped some first."""

    after_events: int
    clean: bool = False
    repeats: int = 0
    skips: bool = False


@dataclass
class FakeRunService(RunServiceServicer):
    """Serves `logs` by run id. The n-th stream opened breaks as `breaks[n]` says; later ones run to the end."""

    logs: dict[str, Sequence[event_pb.Event]] = field(default_factory=dict)
    breaks: Sequence[Break] = ()
    connections: list[int] = field(default_factory=list)
    orders: list[runs.CreateRunRequest] = field(default_factory=list)

    async def CreateRun(self, request: runs.CreateRunRequest, context: object) -> runs.CreateRunResponse:
        self.orders.append(request)
        return runs.CreateRunResponse(run=self._run(next(iter(self.logs))))

    async def GetRun(self, request: runs.GetRunRequest, context: object) -> runs.GetRunResponse:
        return runs.GetRunResponse(run=self._run(request.run_id))

    async def ListRuns(self, request: runs.ListRunsRequest, context: object) -> runs.ListRunsResponse:
        start, ids = int(request.page_token or 0), list(self.logs)
        page = ids[start : start + 2]
        more = str(start + 2) if start + 2 < len(ids) else ""
        return runs.ListRunsResponse(runs=[self._run(run_id) for run_id in page], next_page_token=more)

    async def WatchRun(self, request: runs.WatchRunRequest, context: object) -> AsyncIterator[runs.WatchRunResponse]:
        self._run(request.run_id)
        self.connections.append(request.after_sequence)
        number = len(self.connections) - 1
        planned = self.breaks[number] if number < len(self.breaks) else None
        for event in told(self.logs[request.run_id], request.after_sequence, planned):
            yield runs.WatchRunResponse(events=[event])
        if planned is not None and not planned.clean:
            raise ServiceUnavailable("the stream was cut by the test")

    def _run(self, run_id: str) -> run_pb.Run:
        if run_id not in self.logs:
            raise RunNotFound(f"no run {run_id!r}; list the runs", metadata={"run_id": run_id})
        return run_pb.Run(id=run_id, session_id="s-1", state=run_pb.RUN_STATE_RUNNING, agent="assistant")


def told(log: Sequence[event_pb.Event], after: int, planned: Break | None) -> Iterable[event_pb.Event]:
    """What a stream opened after a sequence tells before it breaks as planned."""
    if planned is None:
        return [event for event in log if event.sequence > after]
    found = [event for event in log if event.sequence > after - planned.repeats][: planned.after_events]
    # A gap before a delta stands for pruned deltas, so only others can be seen to be wrong.
    if planned.skips and len(found) > 2 and found[2].WhichOneof("kind") != "text_delta":
        del found[1]
    return found


def served(service: FakeRunService) -> Methods:
    """The service's methods, as an App offers them."""
    methods = Methods("orchestrator", Pipeline())
    add_RunServiceServicer_to_server(service, methods.server())
    return methods


def log_of(texts: Sequence[str], run_id: str = "r-1") -> list[event_pb.Event]:
    """A run's log that answers with texts, one delta each."""
    log = [event_pb.Event(run_created=event_pb.RunCreated()), event_pb.Event(run_started=event_pb.RunStarted())]
    log.append(event_pb.Event(model_started=event_pb.ModelStarted(turn=1, attempt=1)))
    log += [event_pb.Event(text_delta=event_pb.TextDelta(turn=1, text=text)) for text in texts]
    log.append(event_pb.Event(model_finished=event_pb.ModelFinished(turn=1, attempt=1)))
    log.append(event_pb.Event(run_completed=event_pb.RunCompleted(turns=1)))
    return numbered(log, run_id)


def numbered(log: Sequence[event_pb.Event], run_id: str = "r-1") -> list[event_pb.Event]:
    """Copies of the events with sequence numbers from 1."""
    copies = []
    for sequence, event in enumerate(log, start=1):
        copy = event_pb.Event()
        copy.CopyFrom(event)
        copy.run_id, copy.session_id, copy.sequence = run_id, "s-1", sequence
        copies.append(copy)
    return copies
