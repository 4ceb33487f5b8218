"""The Python client: typed calls to a suite, and runs whose streams survive lost connections.

async with Behest() as behest:
    run = await behest.run("What is 6 times 7?")
    async for piece in run.text():
        print(piece, end="", flush=True)
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterable
from types import TracebackType
from typing import Protocol, Self, TypeVar

import grpc.aio

from behest.agent.v1 import agent_pb2 as agent_pb
from behest.agent.v1 import agent_service_pb2 as agents
from behest.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from behest.chat.v1 import chat_pb2 as chat_pb
from behest.event.v1 import event_pb2 as event_pb
from behest.provider.v1 import provider_pb2 as provider_pb
from behest.provider.v1 import provider_service_pb2 as providers
from behest.provider.v1.provider_service_pb2 import ChatRequest, CountTokensResponse, EmbedResponse
from behest.provider.v1.provider_service_pb2_grpc import ProviderServiceStub
from behest.run.v1 import run_pb2 as run_pb
from behest.run.v1 import run_service_pb2 as runs
from behest.run.v1.run_service_pb2_grpc import RunServiceStub
from behest.session.v1 import session_pb2 as session_pb
from behest.session.v1 import session_service_pb2 as sessions
from behest.session.v1.session_service_pb2_grpc import SessionServiceStub
from behest.tool.v1 import tool_pb2 as tool_pb
from behest.tool.v1 import tool_service_pb2 as tools
from behest.tool.v1.tool_service_pb2_grpc import ToolServiceStub
from chassis.rpc import Call, call_scope, open_channel
from chassis.rpc.call import DEFAULT_TENANT, PRINCIPAL_KEY
from chassis.world import World
from suite.addresses import DEFAULT_PORT_BASE, HOST, Service, beside, configured_target
from suite.following import Backoff, Batches, Following
from suite.handle import RunHandle

# Safe to send twice: they read, or carry a request id.
IDEMPOTENT = frozenset(
    f"/behest.{service}/{method}"
    for service, methods in {
        "run.v1.RunService": (
            "CreateRun",
            "GetRun",
            "ListRuns",
            "CancelRun",
            "SendInput",
            "ListApprovals",
            "ResolveApproval",
            "PreviewContext",
        ),
        "agent.v1.AgentService": ("ListAgents", "GetAgent"),
        "provider.v1.ProviderService": ("ListModels", "ListProviders", "CountTokens"),
        "tool.v1.ToolService": ("ListTools", "DeleteExecutions"),
        "session.v1.SessionService": ("GetSession", "ListSessions", "ListMessages", "GetUsage", "GetStatistics"),
    }.items()
    for method in methods
)
PAGE = 200
MOST_RUNS = 1000  # whose executions are deleted in one call
ENDED_STATES = (run_pb.RUN_STATE_COMPLETED, run_pb.RUN_STATE_FAILED, run_pb.RUN_STATE_CANCELLED)

Request = TypeVar("Request")
Response = TypeVar("Response")
Item = TypeVar("Item")


class _PagedRequest(Protocol):
    page_token: str


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


PagedRequest = TypeVar("PagedRequest", bound=_PagedRequest)
Page = TypeVar("Page", bound=_Page)


class Dial(Protocol):
    """Opens a channel to one of the services."""

    def __call__(self, service: Service) -> contextlib.AbstractAsyncContextManager[grpc.aio.Channel]:
        """The channel, open inside the context."""


def dial_beside(target: str) -> Dial:
    """Dials a suite whose orchestrator is at target and whose other services listen on the ports after it."""

    def dial(service: Service) -> contextlib.AbstractAsyncContextManager[grpc.aio.Channel]:
        return open_channel(beside(target, service), "grpc", idempotent=IDEMPOTENT)

    return dial


class Behest:
    """A suite as a client sees it. Use it as an async context manager.

    `target` is the orchestrator's host:port, or several addresses, as in dns:///orchestrator:50051 or ipv4:10.0.0.1:1,10.0.0.2:1: calls
    are spread over the replicas, and a stream that breaks goes on at another. Without it the environment's BEHEST_TARGET counts, then
    127.0.0.1:50051. The session store, the gateway and the executor are looked for on the ports after it, unless `dial` knows better.
    `timeout` in seconds bounds each plain call, not streams. Every failure is a `chassis.faults.Fault`.
    """

    def __init__(
        self,
        target: str | None = None,
        *,
        tenant: str = DEFAULT_TENANT,
        timeout: float = 10.0,
        dial: Dial | None = None,
        world: World | None = None,
    ) -> None:
        self.target = target or configured_target() or f"{HOST}:{DEFAULT_PORT_BASE}"
        self._dial = dial or dial_beside(self.target)
        self._call = Call(tenant=tenant)
        self._timeout = timeout
        self._world = world or World()
        self._open = contextlib.AsyncExitStack()
        self._channels: dict[Service, grpc.aio.Channel] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._channels.clear()
        await self._open.aclose()

    # runs

    async def run(self, text: str, **order: object) -> RunHandle:
        """Accepts an order in words and returns the run; it is durable by then. `order` holds more fields of CreateRunRequest.

        With `session_id` of a session that has a run under way, `on_busy` says what to do: "BUSY_POLICY_QUEUE" waits behind it,
        "BUSY_POLICY_INTERRUPT" stops it, "BUSY_POLICY_FORK" goes on in a copy of the session, whose id is the handle's `session_id`.
        """
        return await self.create_run(runs.CreateRunRequest(input=[chat_pb.Part(text=text)], **order))  # type: ignore[arg-type] # protobuf checks them

    async def create_run(self, order: runs.CreateRunRequest) -> RunHandle:
        """Accepts an order. One without a request id gets one, so that it can be sent again safely."""
        if not order.request_id:
            order.request_id = self._world.ids.new()
        stub = RunServiceStub(await self._channel(Service.ORCHESTRATOR))
        return RunHandle(self, (await self._ask(stub.CreateRun, order)).run)

    async def attach(self, run_id: str) -> RunHandle:
        """The handle of a run that exists; raises RunNotFound."""
        return RunHandle(self, await self.get_run(run_id))

    def watch(self, run_id: str, *, after: int = 0, backoff: Backoff | None = None) -> AsyncIterator[event_pb.Event]:
        """A run's events after a sequence number, ending with the terminal one; lost connections are taken up where they broke."""

        def connect(sequence: int) -> Batches:
            return self._batches(runs.WatchRunRequest(run_id=run_id, after_sequence=sequence))

        return Following(connect, after, self._world.clock, backoff or Backoff()).events()

    async def replay(self, run_id: str, *, after: int = 0) -> list[event_pb.Event]:
        """A run's events so far."""
        request = runs.WatchRunRequest(run_id=run_id, after_sequence=after, replay_only=True)
        return [event async for batch in self._batches(request) for event in batch]

    async def cancel(self, run_id: str, reason: str = "") -> run_pb.Run:
        """Asks a run to stop and returns it; a run that has ended stays as it is."""
        stub = RunServiceStub(await self._channel(Service.ORCHESTRATOR))
        return (await self._ask(stub.CancelRun, runs.CancelRunRequest(run_id=run_id, reason=reason))).run

    async def send_input(self, run_id: str, text: str, *, interrupt: bool = False) -> int:
        """Steers a run; returns the sequence of the recorded event."""
        stub = RunServiceStub(await self._channel(Service.ORCHESTRATOR))
        part, request_id = chat_pb.Part(text=text), self._world.ids.new()
        request = runs.SendInputRequest(run_id=run_id, input=[part], interrupt=interrupt, request_id=request_id)
        return (await self._ask(stub.SendInput, request)).sequence

    async def approvals(
        self, *, run_id: str = "", session_id: str = "", everything: bool = False, limit: int = 1000
    ) -> list[run_pb.Approval]:
        """Tool calls that wait for approval, of the newest runs first, at most limit; with everything also those that waited."""
        stub = RunServiceStub(await self._channel(Service.ORCHESTRATOR))
        request = runs.ListApprovalsRequest(run_id=run_id, session_id=session_id, all=everything)
        return await self._pages(stub.ListApprovals, request, lambda page: page.approvals, limit)

    async def approve(self, approval: run_pb.Approval, *, principal: str, reason: str = "") -> run_pb.Approval:
        """Lets a call run, exactly as it stands in approval, once as many people as are needed have approved; principal is who approves.

        Raises ApprovalDecided, ApprovalExpired, ApprovalMismatch, RunEnded.
        """
        return await self._resolve(approval, event_pb.APPROVAL_DECISION_APPROVE, principal, reason)

    async def deny(self, approval: run_pb.Approval, *, principal: str, reason: str = "") -> run_pb.Approval:
        """Keeps a call from running; the model reads who denied it and the reason. Raises as approve does."""
        return await self._resolve(approval, event_pb.APPROVAL_DECISION_DENY, principal, reason)

    async def _resolve(
        self, approval: run_pb.Approval, decision: event_pb.ApprovalDecision.ValueType, principal: str, reason: str
    ) -> run_pb.Approval:
        stub = RunServiceStub(await self._channel(Service.ORCHESTRATOR))
        request = runs.ResolveApprovalRequest(
            approval_id=approval.id,
            arguments_digest=approval.arguments_digest,
            decision=decision,
            reason=reason,
            request_id=self._world.ids.new(),
        )
        with call_scope(self._call):
            response = await stub.ResolveApproval(request, timeout=self._timeout, metadata=((PRINCIPAL_KEY, principal),))
        return response.approval

    async def get_run(self, run_id: str) -> run_pb.Run:
        """A run as it is now."""
        stub = RunServiceStub(await self._channel(Service.ORCHESTRATOR))
        return (await self._ask(stub.GetRun, runs.GetRunRequest(run_id=run_id))).run

    async def list_runs(self, session_id: str = "", states: Iterable[run_pb.RunState.ValueType] = (), limit: int = 50) -> list[run_pb.Run]:
        """The newest runs, at most limit."""
        stub = RunServiceStub(await self._channel(Service.ORCHESTRATOR))
        request = runs.ListRunsRequest(session_id=session_id, states=list(states), page_size=min(limit, PAGE))
        return await self._pages(stub.ListRuns, request, lambda page: page.runs, limit)

    async def preview(self, text: str = "", *, session_id: str = "", agent: str = "") -> runs.PreviewContextResponse:
        """What the model would see now, and what it would cost in tokens."""
        stub = RunServiceStub(await self._channel(Service.ORCHESTRATOR))
        parts = [chat_pb.Part(text=text)] if text else []
        return await self._ask(stub.PreviewContext, runs.PreviewContextRequest(session_id=session_id, agent=agent, input=parts))

    async def agents(self) -> agents.ListAgentsResponse:
        """The agents that take orders, and which one is the default."""
        stub = AgentServiceStub(await self._channel(Service.ORCHESTRATOR))
        return await self._ask(stub.ListAgents, agents.ListAgentsRequest())

    async def agent(self, name: str = "") -> agent_pb.Agent:
        """One agent; the default one without a name."""
        stub = AgentServiceStub(await self._channel(Service.ORCHESTRATOR))
        return (await self._ask(stub.GetAgent, agents.GetAgentRequest(name=name))).agent

    # sessions

    async def list_sessions(self, limit: int = 50) -> list[session_pb.Session]:
        """The newest sessions, at most limit."""
        stub = SessionServiceStub(await self._channel(Service.SESSION_STORE))
        request = sessions.ListSessionsRequest(page_size=min(limit, PAGE))
        return await self._pages(stub.ListSessions, request, lambda page: page.sessions, limit)

    async def get_session(self, session_id: str) -> session_pb.Session:
        """A session."""
        stub = SessionServiceStub(await self._channel(Service.SESSION_STORE))
        return (await self._ask(stub.GetSession, sessions.GetSessionRequest(session_id=session_id))).session

    async def delete_session(self, session_id: str) -> None:
        """Deletes a session and all that hangs on it, what its tools did included; when it fails half-way, do it again."""
        ended = await self._run_ids(session_id, ENDED_STATES)
        if await self._run_ids(session_id) == ended:  # otherwise deleting is refused, and what its tools did stays
            executor = ToolServiceStub(await self._channel(Service.TOOL_EXECUTOR))
            for start in range(0, len(ended), MOST_RUNS):
                await self._ask(executor.DeleteExecutions, tools.DeleteExecutionsRequest(run_ids=ended[start : start + MOST_RUNS]))
        stub = SessionServiceStub(await self._channel(Service.SESSION_STORE))
        await self._ask(stub.DeleteSession, sessions.DeleteSessionRequest(session_id=session_id))

    async def messages(self, session_id: str, limit: int = 1000) -> list[session_pb.StoredMessage]:
        """A session's messages, oldest first, at most limit."""
        stub = SessionServiceStub(await self._channel(Service.SESSION_STORE))
        request = sessions.ListMessagesRequest(session_id=session_id, page_size=min(limit, PAGE))
        return await self._pages(stub.ListMessages, request, lambda page: page.messages, limit)

    async def usage(self, session_id: str = "", run_id: str = "") -> sessions.GetUsageResponse:
        """Tokens and money by model: of a run, of a session, or of the tenant."""
        stub = SessionServiceStub(await self._channel(Service.SESSION_STORE))
        return await self._ask(stub.GetUsage, sessions.GetUsageRequest(session_id=session_id, run_id=run_id))

    async def statistics(self, session_id: str = "", run_id: str = "", *, by_day: bool = False) -> sessions.GetStatisticsResponse:
        """What runs came to: all of the tenant's, a session's, or one."""
        stub = SessionServiceStub(await self._channel(Service.SESSION_STORE))
        return await self._ask(stub.GetStatistics, sessions.GetStatisticsRequest(session_id=session_id, run_id=run_id, by_day=by_day))

    async def export_session(self, session_id: str) -> AsyncIterator[bytes]:
        """A session as one portable file, in pieces; raises SessionBusy while a run is under way."""
        stub = SessionServiceStub(await self._channel(Service.SESSION_STORE))
        with call_scope(self._call):
            call = stub.ExportSession(sessions.ExportSessionRequest(session_id=session_id))
        try:
            async for response in call:
                yield response.data
        finally:
            call.cancel()

    async def import_session(self, pieces: AsyncIterator[bytes], session_id: str = "") -> sessions.ImportSessionResponse:
        """Takes a session in, whole or not at all; with a session_id as a copy of that name. Raises SessionExists, ExportDamaged."""
        stub = SessionServiceStub(await self._channel(Service.SESSION_STORE))

        async def requests() -> AsyncIterator[sessions.ImportSessionRequest]:
            yield sessions.ImportSessionRequest(session_id=session_id)
            async for piece in pieces:
                yield sessions.ImportSessionRequest(data=piece)

        with call_scope(self._call):
            return await stub.ImportSession(requests())

    # tools and models

    async def tools(self, limit: int = 1000) -> list[tool_pb.Tool]:
        """The tools that every agent can be given, sorted by name."""
        stub = ToolServiceStub(await self._channel(Service.TOOL_EXECUTOR))
        return await self._pages(stub.ListTools, tools.ListToolsRequest(page_size=min(limit, PAGE)), lambda page: page.tools, limit)

    async def models(self, provider: str = "") -> list[provider_pb.Model]:
        """The models that can be called now, sorted by name."""
        stub = ProviderServiceStub(await self._channel(Service.PROVIDER_GATEWAY))
        return list((await self._ask(stub.ListModels, providers.ListModelsRequest(provider=provider))).models)

    async def providers(self) -> list[provider_pb.Provider]:
        """The configured providers, with what keeps each from being ready."""
        stub = ProviderServiceStub(await self._channel(Service.PROVIDER_GATEWAY))
        return list((await self._ask(stub.ListProviders, providers.ListProvidersRequest())).providers)

    async def embed(self, texts: Iterable[str], model: str = "", dimensions: int | None = None) -> EmbedResponse:
        """A vector for each text, in their order, and what they cost; all of them or a Fault. At most 2048 texts."""
        stub = ProviderServiceStub(await self._channel(Service.PROVIDER_GATEWAY))
        inputs = [providers.EmbedInput(text=text) for text in texts]
        return await self._ask(stub.Embed, providers.EmbedRequest(model=model, inputs=inputs, dimensions=dimensions))

    async def count_tokens(self, request: str | ChatRequest, model: str = "") -> CountTokensResponse:
        """How many tokens a model would read for a request, or for a text as a user's message; `exact` where its provider counted."""
        stub = ProviderServiceStub(await self._channel(Service.PROVIDER_GATEWAY))
        if isinstance(request, str):
            said = chat_pb.Message(role=chat_pb.ROLE_USER, parts=[chat_pb.Part(text=request)])
            request = ChatRequest(model=model, messages=[said])
        return await self._ask(stub.CountTokens, providers.CountTokensRequest(request=request))

    async def budgets(self, budget_key: str = "", limit: int = 1000) -> list[provider_pb.BudgetStatus]:
        """The caps on what the tenant's calls consume and how much of each is used, sorted by name and scope, at most limit."""
        stub = ProviderServiceStub(await self._channel(Service.PROVIDER_GATEWAY))
        request = providers.ListBudgetsRequest(budget_key=budget_key, page_size=min(limit, PAGE))
        return await self._pages(stub.ListBudgets, request, lambda page: page.budgets, limit)

    # how calls are made

    async def _run_ids(self, session_id: str, states: Iterable[run_pb.RunState.ValueType] = ()) -> list[str]:
        return [run.id for run in await self.list_runs(session_id, states, limit=sys.maxsize)]

    async def _channel(self, service: Service) -> grpc.aio.Channel:
        if service not in self._channels:
            self._channels[service] = await self._open.enter_async_context(self._dial(service))
        return self._channels[service]

    async def _ask(self, method: grpc.aio.UnaryUnaryMultiCallable[Request, Response], request: Request) -> Response:
        with call_scope(self._call):
            return await method(request, timeout=self._timeout)

    async def _pages(
        self,
        method: grpc.aio.UnaryUnaryMultiCallable[PagedRequest, Page],
        request: PagedRequest,
        items: Callable[[Page], Iterable[Item]],
        limit: int,
    ) -> list[Item]:
        found: list[Item] = []
        while True:
            page = await self._ask(method, request)
            found.extend(items(page))
            if not page.next_page_token or len(found) >= limit:
                return found[:limit]
            request.page_token = page.next_page_token

    async def _batches(self, request: runs.WatchRunRequest) -> Batches:
        stub = RunServiceStub(await self._channel(Service.ORCHESTRATOR))
        with call_scope(self._call):
            call = stub.WatchRun(request)
        try:
            async for response in call:
                yield response.events
        finally:
            call.cancel()
