"""Reads everything back when the faults are healed: rows, logs, sessions, receipts, and the logs again through every other replica."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import grpc.aio

from behest.run.v1 import run_pb2, run_service_pb2
from behest.session.v1 import journal_service_pb2, session_service_pb2
from behest.session.v1.journal_service_pb2_grpc import JournalServiceStub
from behest.session.v1.session_service_pb2_grpc import SessionServiceStub
from behest.tool.v1 import tool_service_pb2
from behest.tool.v1.tool_service_pb2_grpc import ToolServiceStub
from chaos.history import History, Invocation, RunRecord, SessionRecord, Stream, Trait, event_of, kind_of
from chaos.notebook import Notebook
from chaos.wire import AWAY, dial, response, responses, submessages

Key = TypeVar("Key")
Value = TypeVar("Value")

AT_ONCE = 16
TIMEOUT = 20.0
PATIENCE = 30.0
"""Seconds until a service that was healed must answer."""
OPEN_STATES = (run_pb2.RUN_STATE_QUEUED, run_pb2.RUN_STATE_RUNNING)


async def wait_for_rest(store: str, seconds: float) -> int:
    """Waits until no run is open, so long at most, and returns how many still are."""
    async with _dialled(store) as channel:
        until = asyncio.get_running_loop().time() + seconds
        while True:
            left = len([run async for run in _runs(channel, OPEN_STATES)])
            if not left or asyncio.get_running_loop().time() > until:
                return left
            await asyncio.sleep(0.2)


async def read_back(notebook: Notebook, stores: Sequence[str], orchestrators: Sequence[str], executor: str, invocations: Path) -> History:
    """The history: what was seen and what is there."""
    async with _dialled(stores[0]) as store, _dialled(executor) as tools:
        rows = {run.id: run async for run in _runs(store)}
        logs = await _each(rows, lambda run_id: _log(store, run_id))
        sessions = await _each({run.session_id for run in rows.values()}, lambda session_id: _session(store, session_id))
        keys = {key for run_id, log in logs.items() for key in _keys(run_id, log)}
        history = History(
            orders=tuple(notebook.orders),
            commands=tuple(notebook.commands),
            appends=tuple(notebook.appends),
            streams=tuple(notebook.streams),
            session_streams=tuple(notebook.session_streams),
            invocations=tuple(_invocations(invocations)),
            runs={run_id: RunRecord(row.SerializeToString(), logs[run_id]) for run_id, row in rows.items()},
            sessions=sessions,
            receipts=await _each(keys, lambda key: _receipt(tools, key)),
            tools=await _traits(tools),
            defects=tuple(notebook.defects),
            letters=tuple(notebook.letters),
        )
    elsewhere = [*await _replays(stores[1:], rows, _log), *await _replays(orchestrators, rows, _watched)]
    return replace(history, streams=(*history.streams, *elsewhere))


@contextlib.asynccontextmanager
async def _dialled(address: str) -> AsyncIterator[grpc.aio.Channel]:
    channel = dial(address)
    try:
        yield channel
    finally:
        await channel.close()


async def _each(keys: Iterable[Key], read: Callable[[Key], Awaitable[Value]]) -> dict[Key, Value]:
    """What is read for each key, a few at a time."""
    room = asyncio.Semaphore(AT_ONCE)

    async def one(key: Key) -> tuple[Key, Value]:
        async with room:
            return key, await _surely(lambda: read(key))

    return dict(await asyncio.gather(*map(one, keys)))


async def _surely(read: Callable[[], Awaitable[Value]]) -> Value:
    """What is read, waiting for a service that comes back."""
    until = asyncio.get_running_loop().time() + PATIENCE
    while True:
        try:
            return await read()
        except grpc.aio.AioRpcError as error:
            if error.code() not in AWAY or asyncio.get_running_loop().time() > until:
                raise
        await asyncio.sleep(0.2)


async def _runs(store: grpc.aio.Channel, states: Sequence[run_pb2.RunState.ValueType] = ()) -> AsyncIterator[run_pb2.Run]:
    request = journal_service_pb2.ListRunsRequest(states=states, page_size=200)
    while True:
        page = await _surely(lambda: JournalServiceStub(store).ListRuns(request, timeout=TIMEOUT))
        for run in page.runs:
            yield run
        if not page.next_page_token:
            return
        request.page_token = page.next_page_token


async def _log(store: grpc.aio.Channel, run_id: str) -> tuple[bytes, ...]:
    request = journal_service_pb2.FollowRequest(run_id=run_id, replay_only=True)
    return await _events(store, "/behest.session.v1.JournalService/Follow", request)


async def _watched(orchestrator: grpc.aio.Channel, run_id: str) -> tuple[bytes, ...]:
    request = run_service_pb2.WatchRunRequest(run_id=run_id, replay_only=True)
    return await _events(orchestrator, "/behest.run.v1.RunService/WatchRun", request)


async def _events(channel: grpc.aio.Channel, path: str, request: object) -> tuple[bytes, ...]:
    stream = responses(channel, path, request, TIMEOUT)  # type: ignore[arg-type]
    return tuple([raw async for data in stream for raw in submessages(data, 1)])


async def _session(store: grpc.aio.Channel, session_id: str) -> SessionRecord:
    following = journal_service_pb2.FollowRequest(session_id=session_id, replay_only=True)
    events = await _events(store, "/behest.session.v1.JournalService/Follow", following)
    sessions = SessionServiceStub(store)
    usage = await sessions.GetUsage(session_service_pb2.GetUsageRequest(session_id=session_id), timeout=TIMEOUT)
    row = (await sessions.GetSession(session_service_pb2.GetSessionRequest(session_id=session_id), timeout=TIMEOUT)).session
    return SessionRecord(
        messages=tuple([raw async for raw in _messages(store, session_id)]),
        events=events,
        usage=usage.total.SerializeToString(),
        forked_from=row.forked_from_session_id,
        forked_at=row.forked_at_position,
    )


async def _messages(store: grpc.aio.Channel, session_id: str) -> AsyncIterator[bytes]:
    request = session_service_pb2.ListMessagesRequest(session_id=session_id, page_size=1000)
    while True:
        data = await response(store, "/behest.session.v1.SessionService/ListMessages", request, TIMEOUT)
        for raw in submessages(data, 1):
            yield raw
        request.page_token = session_service_pb2.ListMessagesResponse.FromString(data).next_page_token
        if not request.page_token:
            return


async def _receipt(tools: grpc.aio.Channel, key: str) -> bytes:
    try:
        answer = await ToolServiceStub(tools).GetExecution(tool_service_pb2.GetExecutionRequest(key=key), timeout=TIMEOUT)
    except grpc.aio.AioRpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return b""
        raise
    return answer.execution.SerializeToString()


async def _traits(tools: grpc.aio.Channel) -> dict[str, Trait]:
    answer = await ToolServiceStub(tools).ListTools(tool_service_pb2.ListToolsRequest(page_size=1000), timeout=TIMEOUT)
    return {tool.definition.name: Trait(tool.traits.idempotent or tool.traits.read_only, tool.traits.read_only) for tool in answer.tools}


def _keys(run_id: str, log: Sequence[bytes]) -> list[str]:
    """The keys of the calls that a log says began."""
    started = [event_of(raw).tool_execution_started for raw in log if kind_of(raw) == "tool_execution_started"]
    return [f"{run_id}/{call.turn}/{call.call_id}" for call in started]


def _invocations(path: Path) -> list[Invocation]:
    lines = path.read_text().splitlines() if path.exists() else []
    return [Invocation(**json.loads(line)) for line in lines]


async def _replays(
    addresses: Sequence[str], run_ids: Iterable[str], read: Callable[[grpc.aio.Channel, str], Awaitable[tuple[bytes, ...]]]
) -> list[Stream]:
    """Every log as other replicas tell it."""
    streams: list[Stream] = []
    for address in addresses:
        async with _dialled(address) as channel:
            told = await _each(run_ids, lambda run_id, channel=channel: read(channel, run_id))
        streams += [Stream(run_id, 0, events, True, f"replay by {address}") for run_id, events in told.items()]
    return streams
