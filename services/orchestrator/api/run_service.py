"""behest.run.v1.RunService."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import cast

from behest.chat.v1 import chat_pb2
from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from behest.run.v1 import run_service_pb2 as pb
from behest.run.v1.run_service_pb2_grpc import RunServiceServicer
from chassis.faults import Violation
from chassis.rpc import current_call
from chassis.world import Ids
from orchestrator.api import convert, convert_approvals
from orchestrator.domain.commands import Steer
from orchestrator.domain.values import Agent, Body, Entry, RunId, SessionId
from orchestrator.operations.agents import Agents
from orchestrator.operations.approvals import ApprovalDesk
from orchestrator.operations.ports import Follows, Place, RunQuery, Runs, Scope, Terms, Toolset
from orchestrator.operations.runs import Preview, RunDesk, Wish

MOST_REASON = 1000


class RunServicer(RunServiceServicer):
    """Carries out orders."""

    def __init__(self, desk: RunDesk, approvals: ApprovalDesk, runs: Runs, follows: Follows, agents: Agents, ids: Ids) -> None:
        self._desk = desk
        self._approvals = approvals
        self._runs = runs
        self._follows = follows
        self._agents = agents
        self._ids = ids

    async def CreateRun(self, request: pb.CreateRunRequest, context: object) -> pb.CreateRunResponse:
        """Accepts an order."""
        opened = await self._desk.create(self._wish(request))
        return pb.CreateRunResponse(run=_row(opened.row))

    async def StreamRun(self, request: pb.StreamRunRequest, context: object) -> AsyncIterator[pb.StreamRunResponse]:
        """Accepts an order and follows it to its end."""
        opened = await self._desk.create(self._wish(request.create))
        yield pb.StreamRunResponse(run=_row(opened.row))
        async for events in self._follow(Place(Scope.RUN, opened.run_id, 0)):
            yield pb.StreamRunResponse(events=events)

    async def WatchRun(self, request: pb.WatchRunRequest, context: object) -> AsyncIterator[pb.WatchRunResponse]:
        """Replays a run's log, then follows it."""
        _require("run_id", request.run_id)
        _not_below("after_sequence", request.after_sequence, 0)
        async for events in self._follow(Place(Scope.RUN, request.run_id, request.after_sequence, request.replay_only)):
            yield pb.WatchRunResponse(events=events)

    async def WatchSession(self, request: pb.WatchSessionRequest, context: object) -> AsyncIterator[pb.WatchSessionResponse]:
        """Follows all runs of a session."""
        _require("session_id", request.session_id)
        _not_below("after_position", request.after_position, -1)
        async for events in self._follow(Place(Scope.SESSION, request.session_id, request.after_position, request.replay_only)):
            yield pb.WatchSessionResponse(events=events)

    async def WatchTenant(self, request: pb.WatchTenantRequest, context: object) -> AsyncIterator[pb.WatchTenantResponse]:
        """Follows all runs of the caller's tenant."""
        _not_below("after_position", request.after_position, -1)
        async for events in self._follow(Place(Scope.TENANT, "", request.after_position, request.replay_only)):
            yield pb.WatchTenantResponse(events=events)

    async def GetRun(self, request: pb.GetRunRequest, context: object) -> pb.GetRunResponse:
        """Gets one run."""
        _require("run_id", request.run_id)
        row, _ = await self._runs.get(RunId(request.run_id))
        return pb.GetRunResponse(run=_row(row))

    async def ListRuns(self, request: pb.ListRunsRequest, context: object) -> pb.ListRunsResponse:
        """Lists runs, newest first."""
        page = await self._follows.list_runs(RunQuery(request.session_id, tuple(request.states), request.page_size, request.page_token))
        return pb.ListRunsResponse(runs=map(_row, page.rows), next_page_token=page.next_page_token)

    async def CancelRun(self, request: pb.CancelRunRequest, context: object) -> pb.CancelRunResponse:
        """Asks a run to stop."""
        _require("run_id", request.run_id)
        if len(request.reason) > MOST_REASON:
            convert.refuse([Violation("reason", f"has {len(request.reason)} characters; at most {MOST_REASON}")])
        convert.refuse(convert.id_violations(request.request_id))
        digest = convert.digest_without_id(request)
        return pb.CancelRunResponse(run=_row(await self._desk.cancel(RunId(request.run_id), request.reason, request.request_id, digest)))

    async def SendInput(self, request: pb.SendInputRequest, context: object) -> pb.SendInputResponse:
        """Steers a run."""
        _require("run_id", request.run_id)
        convert.refuse(convert.id_violations(request.request_id))
        convert.check_input(request.input)
        steer = Steer(convert.entry(request.input, self._ids.new()), request.interrupt)
        digest = convert.digest_without_id(request)
        return pb.SendInputResponse(sequence=await self._desk.steer(RunId(request.run_id), steer, request.request_id, digest))

    async def ListApprovals(self, request: pb.ListApprovalsRequest, context: object) -> pb.ListApprovalsResponse:
        """Lists approvals."""
        query = convert_approvals.run_query(request)
        if not request.run_id:
            return convert_approvals.page(await self._approvals.pages(query, request.all))
        convert_approvals.refuse_two_scopes(request)
        return convert_approvals.page(await self._approvals.of_run(RunId(request.run_id), request.all))

    async def ResolveApproval(self, request: pb.ResolveApprovalRequest, context: object) -> pb.ResolveApprovalResponse:
        """Decides about a call that waits."""
        wish = convert_approvals.resolve(request, current_call().metadata)
        terms = Terms(request.request_id, convert.digest_without_id(request))
        return pb.ResolveApprovalResponse(approval=convert_approvals.approval(await self._approvals.resolve(wish, terms)))

    async def PreviewContext(self, request: pb.PreviewContextRequest, context: object) -> pb.PreviewContextResponse:
        """Tells what the model would see now."""
        agent = self._agents.get(request.agent)
        entry = _preview_entry(request.input, self._ids)
        session_id = SessionId(request.session_id) if request.session_id else None
        return _preview(await self._desk.preview(session_id, agent, entry), agent)

    def _wish(self, request: pb.CreateRunRequest) -> Wish:
        return convert.wish(request, self._agents.get(request.agent), self._ids.new())

    async def _follow(self, place: Place) -> AsyncGenerator[Sequence[event_pb2.Event], None]:
        async with aclosing(self._follows.follow(place)) as batches:
            async for events in batches:
                yield cast(Sequence[event_pb2.Event], events)


def _row(row: Body) -> run_pb2.Run:
    assert isinstance(row, run_pb2.Run)
    return row


def _require(field: str, value: str) -> None:
    if not value:
        convert.refuse([Violation(field, "is empty")])


def _not_below(field: str, value: int, least: int) -> None:
    if value < least:
        convert.refuse([Violation(field, f"is {value}; the least is {least}")])


def _preview_entry(parts: Sequence[chat_pb2.Part], ids: Ids) -> Entry | None:
    if not parts:
        return None
    convert.check_input(parts)
    return convert.entry(parts, ids.new())


def _preview(preview: Preview, agent: Agent) -> pb.PreviewContextResponse:
    context, toolset = preview.context, preview.toolset
    messages = [entry.body for entry in context.entries]
    system = [chat_pb2.Message(role=chat_pb2.ROLE_SYSTEM, parts=[chat_pb2.Part(text=text) for text in context.system])]
    sources = [pb.PreviewSource(name=s.name, items=s.items, tokens=s.tokens) for s in context.shares]
    sources += _tool_source(toolset)
    return pb.PreviewContextResponse(
        messages=[*(system if context.system else []), *messages],  # type: ignore[list-item]  # bodies are contract messages
        tools=toolset.definitions,  # type: ignore[arg-type]  # definitions are contract messages
        sources=sources,
        dropped_messages=context.dropped,
        total_tokens=sum(source.tokens for source in sources),
        model=agent.model,
    )


def _tool_source(toolset: Toolset) -> list[pb.PreviewSource]:
    return [pb.PreviewSource(name="tools", items=len(toolset.names), tokens=toolset.tokens)] if toolset.names else []
