"""Clients as the world has them: impatient, forgetful, and not to be trusted to send a request once.

What a client decides follows from the seed; when it decides, and what it finds then, depends on the machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from random import Random
from typing import Any, TypeVar

import grpc.aio

from behest.agent.v1 import agent_pb2
from behest.chat.v1 import chat_pb2
from behest.run.v1 import run_pb2, run_service_pb2
from behest.run.v1.run_service_pb2_grpc import RunServiceStub
from chaos import programs
from chaos.history import STATES, Command, Order, SessionStream, Stream, event_of
from chaos.notebook import Known, Notebook, ends
from chaos.wire import AWAY, dial, responses, submessages

Answer = TypeVar("Answer")

SERVICE = "/behest.run.v1.RunService/"
PATIENCE = 8.0
"""Seconds until a client takes a call for lost."""
TRIES = 6
THINK = 0.15
WATCH_SECONDS = 30.0
SESSION_SECONDS = 6.0
ON_BUSY = {
    run_pb2.BUSY_POLICY_QUEUE: 6,
    run_pb2.BUSY_POLICY_REJECT: 2,
    run_pb2.BUSY_POLICY_INTERRUPT: 1,
    run_pb2.BUSY_POLICY_FORK: 2,
}
"""How often a client asks for what when a session is busy."""
FOLLOWERS = 6
"""Followers that one client has at once."""


class Client:
    """One client, which calls any orchestrator."""

    def __init__(self, name: str, addresses: Sequence[str], seed: int, notebook: Notebook) -> None:
        self._name = name
        self._rng = Random(f"{seed}/{name}")
        self._notebook = notebook
        self._channels = [dial(address) for address in addresses]
        self._sessions: list[str] = []
        self._places: dict[str, int] = {}
        self._sent: list[run_service_pb2.CreateRunRequest] = []
        self._count = 0
        self._following: set[asyncio.Task[None]] = set()

    async def live(self, until: float) -> None:
        """Does one thing after another until a moment of the loop's clock."""
        loop = asyncio.get_running_loop()
        while loop.time() < until:
            await asyncio.sleep(self._rng.expovariate(1 / THINK))
            await self._one_thing()

    async def see_the_end(self) -> None:
        """Returns when its followers have seen what they wanted to."""
        await asyncio.gather(*self._following)

    async def close(self) -> None:
        """Closes its channels."""
        for task in self._following:
            task.cancel()
        await asyncio.gather(*self._following, return_exceptions=True)
        await asyncio.gather(*(channel.close() for channel in self._channels))

    async def _one_thing(self) -> None:
        things = {
            self._order: 4,
            self._order_again: 1,
            self._order_several: 1,
            self._peek: 4,
            self._peek_at_session: 1,
            self._cancel: 1,
            self._steer: 2,
        }
        await self._rng.choices(list(things), list(things.values()))[0]()

    async def _order(self) -> None:
        request = self._new_request(self._session())
        if self._notebook.full:
            return
        self._sent.append(request)
        if self._rng.random() < 0.35:
            await self._stream(request)
        else:
            self._look_after(await self._create(request))

    async def _order_again(self) -> None:
        """Sends a request again that was sent before, answered or not; perhaps twice at once."""
        if not self._sent:
            return
        request = self._rng.choice(self._sent[-8:])
        await asyncio.gather(*(self._create(request) for _ in range(self._rng.choice((1, 1, 3)))))

    async def _order_several(self) -> None:
        """Several runs for one session at once, which wait for each other or are refused."""
        session, count = self._session(), self._rng.randrange(2, 4)
        requests = [self._new_request(session) for _ in range(count)]
        if self._notebook.full or not session:
            return
        self._sent += requests
        await asyncio.gather(*(self._create(request) for request in requests))

    async def _peek(self) -> None:
        """Follows some run from a random place, for some time or to the end."""
        place, most = self._rng.random(), self._rng.choice((1, 3, 10, 1_000_000))
        known = self._some(list(self._notebook.runs.values())[-60:])
        if known is not None:
            self._follow(known, round(place * known.length), most)

    async def _peek_at_session(self) -> None:
        """Follows one of its sessions as a whole, from a place that it has seen."""
        place, begin = self._rng.random(), self._rng.random() < 0.3
        if self._sessions and len(self._following) < FOLLOWERS:
            session_id = self._sessions[int(place * len(self._sessions))]
            self._own(self._watch_session(session_id, 0 if begin else self._places.get(session_id, 0)))

    async def _cancel(self) -> None:
        known = self._some(self._notebook.open)
        if known is None:
            return
        request, sent_at = run_service_pb2.CancelRunRequest(run_id=known.run_id, reason="chaos"), time.time()
        answer = await self._patiently("CancelRun", lambda stub: stub.CancelRun(request, timeout=PATIENCE))
        if answer is not None and answer.run.state not in STATES.values():
            self._notebook.commands.append(Command(known.run_id, "cancel", "", "", 0, sent_at))

    async def _steer(self) -> None:
        text, interrupt, twice = self._text(), self._rng.random() < 0.3, self._rng.random() < 0.3
        known = self._some(self._notebook.open)
        if known is None:
            return
        request = run_service_pb2.SendInputRequest(
            run_id=known.run_id, input=[chat_pb2.Part(text=text)], interrupt=interrupt, request_id=f"input {text}"
        )
        for _ in range(1 + twice):
            sent_at = time.time()
            answer = await self._patiently("SendInput", lambda stub: stub.SendInput(request, timeout=PATIENCE))
            if answer is not None:
                self._notebook.commands.append(Command(known.run_id, "input", request.request_id, text, answer.sequence, sent_at))

    def _new_request(self, session_id: str) -> run_service_pb2.CreateRunRequest:
        text, rng = self._text(), self._rng
        limits = agent_pb2.Limits()
        if rng.random() < 0.15:
            limits.max_tool_calls = rng.randrange(1, 6)
        if rng.random() < 0.1:
            limits.max_iterations = rng.randrange(1, 4)
        on_busy = rng.choices(list(ON_BUSY), list(ON_BUSY.values()))[0]
        return run_service_pb2.CreateRunRequest(
            request_id=f"order {text}", session_id=session_id, input=[chat_pb2.Part(text=text)], limits=limits, on_busy=on_busy
        )

    def _text(self) -> str:
        self._count += 1
        return programs.text(self._rng, f"{self._name}.{self._count}")

    def _session(self) -> str:
        """One of its sessions, or none for a new one."""
        place, new = self._rng.random(), self._rng.random() < 0.45
        recent = self._sessions[-5:]
        return "" if new or not recent else recent[int(place * len(recent))]

    async def _create(self, request: run_service_pb2.CreateRunRequest) -> Known | None:
        sent_at = time.time()
        answer = await self._patiently("CreateRun", lambda stub: stub.CreateRun(request, timeout=PATIENCE))
        run = answer.run if answer is not None else run_pb2.Run()
        self._note(request, sent_at, run)
        return self._notebook.runs.get(run.id)

    async def _stream(self, request: run_service_pb2.CreateRunRequest) -> None:
        """Creates and follows in one call; when that breaks off, follows on from where it was."""
        sent_at, accepted, events, complete = time.time(), run_pb2.Run(), list[bytes](), False
        creating = run_service_pb2.StreamRunRequest(create=request)
        try:
            async for data in responses(self._channel(), SERVICE + "StreamRun", creating, WATCH_SECONDS):
                accepted = next((run_pb2.Run.FromString(run) for run in submessages(data, 1)), accepted)
                events += submessages(data, 2)
            complete = True
        except grpc.aio.AioRpcError as error:
            self._notebook.refused("StreamRun", error)
        self._note(request, sent_at, accepted)
        if accepted.id:
            self._notebook.streamed(Stream(accepted.id, 0, tuple(events), complete, f"{self._name} StreamRun"))
            known = self._notebook.runs[accepted.id]
            if not known.ended:
                self._follow(known, len(events), 1_000_000)

    def _note(self, request: run_service_pb2.CreateRunRequest, sent_at: float, run: run_pb2.Run) -> None:
        limits = request.limits
        order = Order(
            request_id=request.request_id,
            text=request.input[0].text,
            sent_at=sent_at,
            answered_at=time.time(),
            run_id=run.id,
            session_id=run.session_id,
            on_busy=request.on_busy,
            max_tool_calls=limits.max_tool_calls,
            max_iterations=limits.max_iterations,
        )
        self._notebook.ordered(order)
        if run.session_id and run.session_id not in self._sessions:
            self._sessions.append(run.session_id)

    def _look_after(self, known: Known | None) -> None:
        if known is not None and self._rng.random() < 0.7:
            self._follow(known, 0, 1_000_000)

    def _follow(self, known: Known, after: int, most: int) -> None:
        if len(self._following) < FOLLOWERS:
            self._own(self._watch(known, after, most))

    def _own(self, following: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(following)
        self._following.add(task)
        task.add_done_callback(self._following.discard)

    async def _watch_session(self, session_id: str, after: int) -> None:
        """Follows a session for a while; it never ends by itself."""
        events = list[bytes]()
        request = run_service_pb2.WatchSessionRequest(session_id=session_id, after_position=after)
        try:
            async for data in responses(self._channel(), SERVICE + "WatchSession", request, SESSION_SECONDS):
                events += submessages(data, 1)
        except grpc.aio.AioRpcError as error:
            self._notebook.refused("WatchSession", error)
        self._notebook.session_streams.append(SessionStream(session_id, after, tuple(events), f"{self._name} WatchSession"))
        if events:
            self._places[session_id] = event_of(events[self._rng.randrange(len(events))]).position

    async def _watch(self, known: Known, after: int, most: int) -> None:
        """Follows until it has seen enough or the end, connecting again where it was whenever the stream breaks."""
        loop = asyncio.get_running_loop()
        until = loop.time() + WATCH_SECONDS
        while loop.time() < until:
            stream = await self._watch_once(known.run_id, after, most, until - loop.time())
            self._notebook.streamed(stream)
            after += len(stream.events)
            if stream.complete or len(stream.events) >= most or ends(stream.events):
                return
            await asyncio.sleep(0.1)

    async def _watch_once(self, run_id: str, after: int, most: int, seconds: float) -> Stream:
        events, complete = list[bytes](), False
        request = run_service_pb2.WatchRunRequest(run_id=run_id, after_sequence=after)
        try:
            async for data in responses(self._channel(), SERVICE + "WatchRun", request, seconds):
                events += submessages(data, 1)
                if len(events) >= most:
                    break
            else:
                complete = True
        except grpc.aio.AioRpcError as error:
            self._notebook.refused("WatchRun", error)
        return Stream(run_id, after, tuple(events), complete, f"{self._name} WatchRun")

    async def _patiently(self, what: str, ask: Callable[[Any], Awaitable[Answer]]) -> Answer | None:
        """The answer, asking again at any replica while nobody knows what became of the call; None when it was refused or never came."""
        for attempt in range(TRIES):
            try:
                return await ask(RunServiceStub(self._channel()))
            except grpc.aio.AioRpcError as error:
                self._notebook.refused(what, error)
                if error.code() not in AWAY:
                    return None
            await asyncio.sleep(0.1 * 2**attempt)
        return None

    def _channel(self) -> grpc.aio.Channel:
        return self._rng.choice(self._channels)

    def _some(self, runs: Sequence[Known]) -> Known | None:
        place = self._rng.random()
        return runs[int(place * len(runs))] if runs else None
