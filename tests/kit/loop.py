"""A driver's neighbours in memory, so that the loop can be tried at every point: a journal that can be cut, a model that follows a
script by the shape of what it is asked, and tools whose effects are counted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from behest.agent.v1 import agent_pb2
from behest.chat.v1 import chat_pb2
from behest.tool.v1 import tool_pb2
from chassis.faults import Fault, SequenceConflict
from chassis.world import Clock
from orchestrator.adapters.rpc_models import chat_request
from orchestrator.adapters.scribe import ProtoScribe
from orchestrator.domain import events as e
from orchestrator.domain.run import Recorded, Run, fold
from orchestrator.domain.values import CallStatus, Entry, Failure, Finish, MessageId, Role, RunId, Seam, SessionId, Usage
from orchestrator.operations.drive import Drive
from orchestrator.operations.inbox import Signal
from orchestrator.operations.ports import (
    Answer,
    Ask,
    Batch,
    CallStartedOutput,
    Lease,
    Outcome,
    Output,
    Patience,
    Ports,
    Tail,
    TextOutput,
    Toolset,
)
from orchestrator.wire import agent_from_proto, call_from_proto, entry_from_proto, event_from_proto, event_to_proto

RUN, SESSION = RunId("run"), SessionId("session")


class CountedIds:
    """Ids in order."""

    def __init__(self, prefix: str = "id") -> None:
        self._prefix, self._count = prefix, 0

    def new(self) -> str:
        self._count += 1
        return f"{self._prefix}-{self._count}"


@dataclass
class StoppedClock:
    """A clock that moves when told."""

    time: float = 1000.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)


@dataclass
class MemoryJournal:
    """One run's log and its session's messages. `before_append` may record a command or refuse, to try what happens between."""

    log: list[Recorded] = field(default_factory=list)
    messages: list[Entry] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)
    entries_at: list[int] = field(default_factory=list)
    rests_until: float | None = None
    before_append: Callable[[Batch], None] = lambda batch: None

    async def append(self, lease: Lease, batch: Batch) -> None:
        await asyncio.sleep(0)
        self.before_append(batch)
        if batch.expected_sequence != len(self.log):
            raise SequenceConflict("the log moved on")
        # Through the wire and back: what a driver reads later is what was written.
        self.log += [event_from_proto(event_to_proto(recorded)) for recorded in batch.events]
        self.messages += batch.entries
        self.batches.append(len(self.log))
        self.entries_at.append(len(self.messages))
        self.rests_until = batch.rests_until

    async def read(self, run_id: RunId, after: int) -> tuple[SessionId, tuple[Recorded, ...]]:
        return SESSION, tuple(self.log[after:])

    async def drive(self, signs: object) -> AsyncGenerator[object, None]:
        raise NotImplementedError
        yield

    async def tail(self, session_id: SessionId, count: int) -> Tail:
        return Tail(tuple(self.messages[-count:]), max(0, len(self.messages) - count))

    def command(self, event: e.Command, time: float = 1000.0) -> None:
        """Records a command as the store does."""
        self.log.append(event_from_proto(event_to_proto(Recorded(len(self.log) + 1, time, event))))

    def kinds(self) -> list[str]:
        """The names of the events so far."""
        return [type(recorded.event).__name__ for recorded in self.log]


@dataclass(frozen=True)
class Sewn:
    """A text whose second half comes from another target."""

    text: str


Say = str | list[tuple[str, dict[str, object]]] | Fault | Answer | Sewn | Callable[[Ask], "Say"]
"""What a scripted model does: answers text, calls tools, or fails."""


@dataclass
class ScriptedModels:
    """A model that chooses its line by the assistant messages since the last user message, so that asking again gives the same."""

    script: Sequence[Say]
    asked: list[Ask] = field(default_factory=list)
    requests: list[object] = field(default_factory=list)
    ids: CountedIds = field(default_factory=lambda: CountedIds("answer"))

    async def stream(self, ask: Ask) -> AsyncGenerator[Sequence[Output], None]:
        self.asked.append(ask)
        self.requests.append(chat_request(ask))
        await asyncio.sleep(0)
        say = self.script[min(self._line(ask), len(self.script) - 1)]
        while callable(say):
            say = say(ask)
        if isinstance(say, Fault):
            raise say
        if isinstance(say, Answer):
            yield [say]
            return
        for outputs in self._speak(say):
            yield outputs

    def _line(self, ask: Ask) -> int:
        line = 0
        for entry in ask.entries:
            line = 0 if entry.role is Role.USER and "[behest]" not in str(entry.body) else line + (entry.role is Role.ASSISTANT)
        return line

    def _speak(self, say: str | list[tuple[str, dict[str, object]]] | Sewn) -> list[list[Output]]:
        if isinstance(say, Sewn):
            first, *rest = self._speak(say.text)
            failure = Failure("STREAM_INCOMPLETE", "cut", {}, "provider-gateway", True)
            return [first, [Seam(failure, "other", "n", len(say.text) // 2)], *rest]
        if isinstance(say, str):
            message = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, parts=[chat_pb2.Part(text=say)])
            half = len(say) // 2
            return [[TextOutput(say[:half])], [TextOutput(say[half:])], [self._answer(message, Finish.STOP)]]
        calls = [
            chat_pb2.ToolCall(id=f"call_{i}", name=name, arguments=json.dumps(arguments).encode())
            for i, (name, arguments) in enumerate(say)
        ]
        message = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, tool_calls=calls)
        return [[CallStartedOutput(call.id, call.name) for call in calls], [self._answer(message, Finish.TOOL_CALLS)]]

    def _answer(self, message: chat_pb2.Message, finish: Finish) -> Answer:
        calls = tuple(call_from_proto(call) for call in message.tool_calls)
        usage = Usage(input_tokens=10, output_tokens=5, calls=1)
        return Answer(entry_from_proto(self.ids.new(), message), calls, finish, finish.name.lower(), usage, "fake", "m")


@dataclass
class CountedTools:
    """Tools that count their effects and remember receipts by key, as the executor does."""

    results: Callable[[str, str], str] = lambda name, arguments: f"{name} did {arguments}"
    effects: list[str] = field(default_factory=list)
    receipts: dict[str, Outcome] = field(default_factory=dict)
    names: tuple[str, ...] = ("work", "look")
    destructive: frozenset[str] = frozenset()
    gate: asyncio.Event | None = None
    cancelled: list[str] = field(default_factory=list)

    async def visible(self, run_id: RunId, agent: object) -> Toolset:
        return Toolset(self.names, tuple(chat_pb2.ToolDefinition(name=name, parameters=b"{}") for name in self.names), 10, self.destructive)

    async def execute(self, run: Run, calls: Sequence[object], allowed: Sequence[str]) -> AsyncGenerator[Sequence[Outcome], None]:
        for call in calls:
            await asyncio.sleep(0)
            if self.gate:
                await self.gate.wait()
            yield [self._once(f"{run.id}/{run.turn}/{call.id}", call)]

    async def cancel(self, run: Run, calls: Sequence[object]) -> None:
        self.cancelled += [call.id for call in calls]

    def _once(self, key: str, call: object) -> Outcome:
        if key not in self.receipts:
            self.effects.append(key)
            record = tool_pb2.ToolResult(call_id=call.id, tool=call.name, status=tool_pb2.EXECUTION_STATUS_SUCCEEDED)
            content = self.results(call.name, call.body.arguments.decode())
            self.receipts[key] = Outcome(call.id, CallStatus.SUCCEEDED, content, False, record)
        return self.receipts[key]


@dataclass
class Bench:
    """A run with its neighbours. `run()` drives it to the end from wherever its log is."""

    script: Sequence[Say]
    journal: MemoryJournal = field(default_factory=MemoryJournal)
    tools: CountedTools = field(default_factory=CountedTools)
    clock: StoppedClock = field(default_factory=StoppedClock)
    agent: agent_pb2.Agent = field(default_factory=lambda: agent_pb2.Agent(name="a", model="fake/m", instructions="Do it.", tools=["*"]))
    signal: Signal = field(default_factory=Signal)
    patience: Patience = field(default_factory=lambda: Patience(neighbour=1.0, stopping=0.05, backoff=0.01, retry=0.001))
    tool_choice: chat_pb2.ToolChoice | None = None

    def __post_init__(self) -> None:
        self.models = ScriptedModels(self.script)
        if not self.journal.log:
            self._create()

    def _create(self) -> None:
        message = chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text="please")])
        created = e.RunCreated(agent_from_proto(self.agent), message, MessageId("m-0"), self.tool_choice)
        self.journal.log.append(event_from_proto(event_to_proto(Recorded(1, self.clock.now(), created))))
        self.journal.messages.append(entry_from_proto("m-0", message))

    def drive(self, epoch: int = 1) -> Drive:
        run = fold(Run(RUN, SESSION), self.journal.log)
        ports = Ports(self.journal, self.journal, self.models, self.tools, ProtoScribe(CountedIds(f"s{epoch}")))
        clock: Clock = self.clock
        return Drive(run, Lease(RUN, SESSION, "default", f"driver-{epoch}", epoch), ports, clock, self.patience, self.signal)

    async def run(self, epoch: int = 1) -> Run:
        drive = self.drive(epoch)
        await drive.to_the_end()
        return drive.run

    def conversation(self) -> list[tuple[str, str, tuple[str, ...]]]:
        """The session's messages as (role, text, calls)."""
        return [_line(entry.body) for entry in self.journal.messages]


def _line(message: chat_pb2.Message) -> tuple[str, str, tuple[str, ...]]:
    text = "".join(part.text for part in message.parts)
    return chat_pb2.Role.Name(message.role)[5:].lower(), text, tuple(call.id for call in message.tool_calls)


def unanswered(messages: Sequence[Entry]) -> list[str]:
    """Calls of a conversation that are not directly followed by their results."""
    missing: list[str] = []
    waiting: list[str] = []
    for entry in messages:
        if entry.role is Role.TOOL and entry.answers in waiting:
            waiting.remove(entry.answers)
            continue
        missing += waiting
        waiting = list(entry.calls)
    return missing + waiting
