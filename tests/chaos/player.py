"""A driver that the harness plays itself, so that acknowledged appends are known from outside.

It opens runs in its own name, appends as the orchestrator would, and leaves each run in the midst of a model call. Its lease ends then,
or ended before by some fault, and an orchestrator takes the run over and brings it to its end: the appended events stay where they are.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from random import Random
from typing import Any

import grpc.aio

from behest.agent.v1 import agent_pb2
from behest.chat.v1 import chat_pb2
from behest.event.v1 import event_pb2
from behest.run.v1 import run_pb2
from behest.session.v1 import journal_service_pb2, session_pb2
from behest.session.v1.journal_service_pb2_grpc import JournalServiceStub
from chaos import programs
from chaos.history import Append, Order
from chaos.notebook import Notebook
from chaos.wire import AWAY, dial

PATIENCE = 4.0
SIGN_SECONDS = 1.0
SCENE_SECONDS = 6.0
"""How long it drives a run at most."""
BATCHES = 60


class Player:
    """Plays one driver after another."""

    def __init__(self, addresses: Sequence[str], seed: int, notebook: Notebook) -> None:
        self._rng = Random(f"{seed}/player")
        self._channels = [dial(address) for address in addresses]
        self._notebook = notebook
        self._count = 0

    async def play(self, until: float) -> None:
        """Drives runs, each as another driver, until a moment of the loop's clock."""
        while asyncio.get_running_loop().time() < until:
            self._count += 1
            try:
                await self._scene(f"player-{self._count}-{uuid.uuid4().hex[:8]}")
            except grpc.aio.AioRpcError as error:
                self._notebook.refused("the player's call", error)
            await asyncio.sleep(self._rng.random())

    async def close(self) -> None:
        """Closes its channels."""
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def _scene(self, driver_id: str) -> None:
        driving = JournalServiceStub(self._rng.choice(self._channels)).Drive(_signs(driver_id), timeout=SCENE_SECONDS)
        try:
            await driving.read()  # the lease stands
            run = await self._open(driver_id)
            if run is not None:
                await self._drive(driver_id, *run)
        finally:
            driving.cancel()

    async def _open(self, driver_id: str) -> tuple[run_pb2.Run, int] | None:
        run_id, session_id = str(uuid.uuid4()), str(uuid.uuid4())
        text, sent_at = programs.text(self._rng, driver_id), time.time()
        request = _opening(run_id, session_id, text, driver_id)
        answer = await self._surely("OpenRun", request)
        if answer is None:
            return None
        self._notebook.ordered(Order(request.request_id, text, sent_at, time.time(), answer.run.id, answer.run.session_id))
        return (answer.run, answer.epoch) if answer.epoch else None

    async def _drive(self, driver_id: str, run: run_pb2.Run, epoch: int) -> None:
        start = event_pb2.Event(run_started=event_pb2.RunStarted(driver_id=driver_id, epoch=epoch))
        call = event_pb2.Event(model_started=event_pb2.ModelStarted(turn=1, attempt=1, model="played"))
        after, batches = 1, [[start, call], *([_delta(n) for n in range(self._rng.randrange(1, 4))] for _ in range(BATCHES))]
        for batch in batches:
            request = _append(driver_id, run, epoch, after, batch)
            answer = await self._surely("Append", request)
            if answer is None:
                return
            events = tuple(event.SerializeToString(deterministic=True) for event in request.events)
            self._notebook.appends.append(Append(run.id, after + 1, events))
            after += len(batch)
            await asyncio.sleep(self._rng.random() * 0.1)

    async def _surely(self, what: str, request: Any) -> Any:
        """The answer of any replica, asking again as a driver does; None when it was refused."""
        until = time.monotonic() + SCENE_SECONDS
        while time.monotonic() < until:
            try:
                return await getattr(JournalServiceStub(self._rng.choice(self._channels)), what)(request, timeout=PATIENCE)
            except grpc.aio.AioRpcError as error:
                self._notebook.refused(f"the player's {what}", error)
                if error.code() not in AWAY:
                    return None
            await asyncio.sleep(0.1)
        return None


async def _signs(driver_id: str) -> AsyncIterator[journal_service_pb2.DriveRequest]:
    while True:
        yield journal_service_pb2.DriveRequest(driver_id=driver_id)
        await asyncio.sleep(SIGN_SECONDS)


def _opening(run_id: str, session_id: str, text: str, driver_id: str) -> journal_service_pb2.OpenRunRequest:
    limits = agent_pb2.Limits(
        max_iterations=50, max_total_tokens=10**6, max_cost_nano_usd=10**10, max_wall_ms=600_000, max_tool_calls=100, max_continuations=3
    )
    history = agent_pb2.HistoryLimits(max_messages=50, max_tokens=64_000)
    agent = agent_pb2.Agent(name="worker", instructions="Work.", tools=["*"], limits=limits, history=history)
    said = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text=text)])
    created = event_pb2.RunCreated(agent=agent, input=said, input_message_id=str(uuid.uuid4()))
    return journal_service_pb2.OpenRunRequest(
        run=run_pb2.Run(id=run_id, session_id=session_id, agent="worker", limits=limits),
        request_id=f"played {run_id}",
        payload_digest=text,
        create_session=True,
        events=_placed(run_id, session_id, 0, [event_pb2.Event(run_created=created)]),
        messages=[session_pb2.StoredMessage(id=created.input_message_id, message=said)],
        driver_id=driver_id,
    )


def _append(
    driver_id: str, run: run_pb2.Run, epoch: int, after: int, events: Sequence[event_pb2.Event]
) -> journal_service_pb2.AppendRequest:
    request = journal_service_pb2.AppendRequest(
        run_id=run.id,
        driver_id=driver_id,
        epoch=epoch,
        expected_sequence=after,
        events=_placed(run.id, run.session_id, after, events),
    )
    if after == 1:
        request.patch.state = run_pb2.RUN_STATE_RUNNING
    return request


def _placed(run_id: str, session_id: str, after: int, events: Sequence[event_pb2.Event]) -> list[event_pb2.Event]:
    placed = []
    for sequence, event in enumerate(events, after + 1):
        whole = event_pb2.Event(run_id=run_id, session_id=session_id, tenant="default", sequence=sequence)
        whole.MergeFrom(event)
        whole.time.GetCurrentTime()
        placed.append(whole)
    return placed


def _delta(number: int) -> event_pb2.Event:
    return event_pb2.Event(text_delta=event_pb2.TextDelta(turn=1, text=f"played {number} "))
