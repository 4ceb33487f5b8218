"""The loop at its edges: neighbours that leave at bad moments, models that answer badly, commands that come late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence

import pytest

from behest.agent.v1 import agent_pb2
from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_pb2
from chassis.faults import Internal, LeaseLost, ServiceUnavailable, StreamIncomplete
from kit.loop import Bench, CountedIds, CountedTools, MemoryJournal, ScriptedModels, unanswered
from orchestrator.adapters.rpc_models import _Reader, answer_from_proto
from orchestrator.domain import events as e
from orchestrator.domain.run import Recorded, Run, fold
from orchestrator.domain.values import Entry, Failure, Finish, MessageId, Usage
from orchestrator.operations.bearing import Interruption
from orchestrator.operations.inbox import Signal
from orchestrator.operations.ports import (
    Ask,
    Batch,
    CallStartedOutput,
    Outcome,
    Output,
    Patience,
    Progress,
    Spent,
    SpentOutput,
    Tail,
    TextOutput,
)
from orchestrator.wire import entry_from_proto


def agent(**limits: int) -> agent_pb2.Agent:
    return agent_pb2.Agent(name="a", model="fake/m", tools=["*"], limits=agent_pb2.Limits(**limits))


def user(text: str) -> Entry:
    return entry_from_proto(f"e-{text}", chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text=text)]))


def terminal(bench: Bench) -> e.Terminal:
    (end,) = [r.event for r in bench.journal.log if isinstance(r.event, e.Terminal)]
    assert bench.journal.log[-1].event is end
    assert unanswered(bench.journal.messages) == []
    return end


# What models write


def result(*calls: tuple[str, str]) -> provider_pb2.ChatResult:
    made = [chat_pb2.ToolCall(id=call_id, name=name, arguments=b"{}") for call_id, name in calls]
    message = chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, tool_calls=made)
    return provider_pb2.ChatResult(message=message, finish_reason=chat_pb2.FINISH_REASON_TOOL_CALLS)


@pytest.mark.feature("R11")
@pytest.mark.parametrize(
    ("ids", "unique"),
    [
        (("a", "b"), ["a", "b"]),
        (("a", "a", "a"), ["a", "a_2", "a_3"]),
        (("a", "a", "a_2"), ["a", "a_2", "a_2_2"]),
        (("", ""), ["call_0", "call_1"]),
        (("x" * 500,), ["call_0"]),
    ],
)
def test_calls_of_an_answer_have_unique_ids_in_the_message_and_in_the_deltas(ids: tuple[str, ...], unique: list[str]) -> None:
    whole = result(*((call_id, "work") for call_id in ids))
    answer = answer_from_proto(whole, CountedIds())
    assert answer.entry is not None
    assert [call.id for call in answer.calls] == list(answer.entry.calls) == unique
    assert [call.id for call in whole.message.tool_calls] == list(ids), "what others sent is not changed"
    reader = _Reader(CountedIds())
    started = [provider_pb2.ToolCallStarted(index=i, id=call_id, name="work") for i, call_id in enumerate(ids)]
    outputs = [output for call in started for output in reader.read(provider_pb2.ChatEvent(tool_call_started=call))]
    assert outputs == [CallStartedOutput(call_id, "work") for call_id in unique]


@pytest.mark.feature("R11")
async def test_a_call_without_a_name_is_answered_like_one_of_an_unknown_tool() -> None:
    answer = answer_from_proto(result(("c", "")), CountedIds())
    assert [call.name for call in answer.calls] == ["unnamed"]
    bench = Bench([answer, "sorry"])
    await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)


@pytest.mark.feature("R3")
@pytest.mark.parametrize("finish", [Finish.STOP, Finish.TOOL_CALLS, Finish.UNKNOWN, Finish.UNSPECIFIED, Finish.LENGTH])
async def test_an_empty_answer_ends_the_run_whatever_it_claims(finish: Finish) -> None:
    empty = provider_pb2.ChatResult(message=chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT), finish_reason=int(finish))
    bench = Bench([answer_from_proto(empty, CountedIds())])
    await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)


@pytest.mark.feature("R5")
@pytest.mark.parametrize(("limit", "ends"), [(3, e.RunCompleted), (2, e.RunFailed)])
async def test_as_many_tool_calls_as_the_limit_are_made_and_no_more(limit: int, ends: type) -> None:
    bench = Bench([[("work", {"n": 1}), ("work", {"n": 2})], [("work", {"n": 3})], "done"], agent=agent(max_tool_calls=limit))
    await bench.run()
    assert isinstance(terminal(bench), ends)
    assert len(bench.tools.effects) == limit


class _AtMost(CountedTools):
    """Tools that take no more calls at once than the executor does."""

    async def execute(self, run: Run, calls: Sequence[object], allowed: Sequence[str]) -> AsyncGenerator[Sequence[Outcome], None]:
        assert len(calls) <= 128
        async for items in super().execute(run, calls, allowed):
            yield items


@pytest.mark.feature("R3")
async def test_more_calls_than_the_executor_takes_at_once_are_run_in_pieces() -> None:
    calls = [("work", {"n": n}) for n in range(300)]
    definition = agent(max_tool_calls=1000)
    definition.history.max_messages = 1000
    bench = Bench([calls, "done"], agent=definition, tools=_AtMost())
    await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)
    assert len(bench.tools.effects) == 300


# Neighbours that leave


class _Away(CountedTools):
    """Tools that cannot be listed for a while."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.away = times

    async def visible(self, run_id: object, agent: object) -> object:
        self.away -= 1
        if self.away >= 0:
            raise ServiceUnavailable("away")
        return await super().visible(run_id, agent)


@pytest.mark.feature("R12")
async def test_an_executor_that_is_away_when_a_turn_begins_is_waited_for() -> None:
    bench = Bench([[("work", {})], "done"], tools=_Away(4))
    run = await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)
    assert run.attempt == 1


@pytest.mark.feature("R12")
async def test_an_executor_that_is_away_when_a_driver_takes_over_started_calls_is_waited_for() -> None:
    whole = Bench([[("work", {})], "done"])
    await whole.run()
    at = next(i for i, r in enumerate(whole.journal.log) if isinstance(r.event, e.ToolExecutionStarted)) + 1
    journal = MemoryJournal(whole.journal.log[:at], whole.journal.messages[:2])
    resumed = Bench([[("work", {})], "done"], journal=journal, tools=_Away(3))
    await resumed.run(epoch=2)
    assert isinstance(terminal(resumed), e.RunCompleted)
    assert resumed.tools.effects == ["run/1/call_0"]


@pytest.mark.feature("R7")
async def test_cancel_is_heard_while_the_executor_is_away() -> None:
    bench = Bench([[("work", {})], "done"], tools=_Away(1_000_000))
    bench.patience = Patience(neighbour=1e9, stopping=0.05, backoff=0.001, longest_backoff=0.001, retry=0.001)
    driving = asyncio.create_task(bench.run())
    while bench.tools.away > 999_990:
        await asyncio.sleep(0)
    bench.journal.command(e.CancelRequested("enough"))
    bench.signal.command()
    async with asyncio.timeout(5):
        await driving
    assert isinstance(terminal(bench), e.RunCancelled)


class _StoreAway(MemoryJournal):
    """A store whose messages cannot be read at first."""

    away = 3

    async def tail(self, session_id: object, count: int) -> Tail:
        self.away -= 1
        if self.away >= 0:
            raise ServiceUnavailable("away")
        return await super().tail(session_id, count)


@pytest.mark.feature("R12")
async def test_a_store_that_is_away_when_the_history_is_read_is_waited_for() -> None:
    bench = Bench(["done"], journal=_StoreAway())
    await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)


def test_patience_is_for_each_absence_and_not_for_the_effect() -> None:
    bench = Bench(["x"])
    interruption = Interruption(bench.clock, Patience(neighbour=10, backoff=0.1, longest_backoff=2))
    bench.clock.time += 300  # it worked for a while before it broke
    assert interruption.pause() == 0.1
    bench.clock.time += 9
    interruption.asking()
    assert interruption.pause() == 0.2
    bench.clock.time += 1
    interruption.asking()
    assert interruption.pause() is None
    bench.clock.time += 60
    assert interruption.pause() == 0.1, "it stood for a minute: this is another absence"
    interruption.asking()
    interruption.heard()
    bench.clock.time += 1
    assert interruption.pause() == 0.1


class _Stubborn(CountedTools):
    """Tools that cannot be cancelled."""

    async def cancel(self, run: Run, calls: Sequence[object]) -> None:
        await super().cancel(run, calls)
        raise Internal("cannot cancel")


@pytest.mark.feature("R7")
async def test_a_run_is_cancelled_even_if_its_tools_cannot_be() -> None:
    bench = Bench([[("work", {})], "done"], tools=_Stubborn(gate=asyncio.Event()))
    driving = asyncio.create_task(bench.run())
    while "ToolExecutionStarted" not in bench.journal.kinds():
        await asyncio.sleep(0)
    bench.journal.command(e.CancelRequested("stop"))
    bench.signal.command()
    while not bench.tools.cancelled:
        await asyncio.sleep(0)
    bench.clock.time += 1
    bench.signal.stir()
    await driving
    assert isinstance(terminal(bench), e.RunCancelled)


class _Telling(CountedTools):
    """Tools that say something right before they end."""

    async def execute(self, run: Run, calls: Sequence[object], allowed: Sequence[str]) -> AsyncGenerator[Sequence[object], None]:
        for call in calls:
            yield [Progress(call.id, "almost", 0.9), self._once(f"{run.id}/{run.turn}/{call.id}", call)]


@pytest.mark.feature("R3")
async def test_the_last_progress_of_a_tool_is_in_the_log() -> None:
    bench = Bench([[("work", {})], "done"], tools=_Telling())
    await bench.run()
    assert [r.event.message for r in bench.journal.log if isinstance(r.event, e.ToolExecutionProgress)] == ["almost"]
    assert isinstance(terminal(bench), e.RunCompleted)


# Attempts


class _Costly(ScriptedModels):
    """Says what it has consumed, then breaks, twice; then answers."""

    async def stream(self, ask: Ask) -> AsyncGenerator[Sequence[Output], None]:
        if len(self.asked) < 2:
            self.asked.append(ask)
            yield [SpentOutput(Spent("fake", "m", Usage(input_tokens=10, calls=1)))]
            yield [SpentOutput(Spent("fake", "m", Usage(input_tokens=100, output_tokens=1, calls=1)))]
            raise StreamIncomplete("cut")
        async for outputs in super().stream(ask):
            yield outputs


@pytest.mark.feature("R5")
async def test_what_broken_model_calls_consumed_is_counted() -> None:
    bench = Bench(["done"])
    bench.models = _Costly(["done"])
    run = await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)
    assert run.usage == Usage(210, 7, calls=3)


@pytest.mark.feature("R5")
async def test_what_broken_model_calls_consumed_counts_against_the_limits() -> None:
    bench = Bench(["done"], agent=agent(max_total_tokens=150))
    bench.models = _Costly(["done"])
    await bench.run()
    end = terminal(bench)
    assert isinstance(end, e.RunFailed)
    assert end.failure.reason == "TOKENS_EXHAUSTED"
    assert len(bench.models.asked) == 2


class _Interrupted(ScriptedModels):
    """Is interrupted so many times, then follows its script."""

    def __init__(self, bench: Bench, times: int, script: Sequence[object]) -> None:
        super().__init__(script)
        self._bench, self._times = bench, times

    async def stream(self, ask: Ask) -> AsyncGenerator[Sequence[Output], None]:
        if self._times:
            self.asked.append(ask)
            self._times -= 1
            self._bench.journal.command(e.InputReceived(user(f"wait {self._times}"), interrupt=True))
            self._bench.signal.command()
            yield [TextOutput("hm")]
            await asyncio.Event().wait()
        async for outputs in super().stream(ask):
            yield outputs


@pytest.mark.feature("R14")
async def test_interruptions_use_up_neither_the_model_nor_its_attempts() -> None:
    definition = agent()
    definition.fallback_models.append("other/m")
    tries = iter([StreamIncomplete("cut"), "done"])
    bench = Bench([], agent=definition)
    bench.models = _Interrupted(bench, 5, [lambda ask: next(tries)])
    await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)
    assert [ask.model for ask in bench.models.asked] == ["fake/m"] * 6 + ["other/m"]
    assert len({ask.key for ask in bench.models.asked}) == 7


@pytest.mark.feature("R12")
async def test_the_death_of_a_driver_costs_its_model_call_but_not_its_model() -> None:
    definition = agent()
    definition.fallback_models.append("other/m")
    whole = Bench(["done"], agent=definition)
    await whole.run()
    at = next(i for i, r in enumerate(whole.journal.log) if isinstance(r.event, e.ModelStarted)) + 1
    resumed = Bench(["done"], journal=MemoryJournal(whole.journal.log[:at], whole.journal.messages[:1]))
    await resumed.run(epoch=2)
    assert [ask.model for ask in resumed.models.asked] == ["fake/m"]
    assert [ask.key for ask in resumed.models.asked] == ["run/1/0/2"]


# Commands that come late


@pytest.mark.feature("R14")
@pytest.mark.parametrize("ending", ["cancel", "fail"])
async def test_input_that_the_model_never_heard_stays_in_the_session(ending: str) -> None:
    limits = {"max_iterations": 1} if ending == "fail" else {}
    bench = Bench([[("work", {})], "done"], agent=agent(**limits))
    sent = False

    def steer(batch: object) -> None:
        nonlocal sent
        if not sent and any(isinstance(r.event, e.ToolExecutionFinished) for r in batch.events):
            sent = True
            bench.journal.command(e.InputReceived(user("mind this"), interrupt=False))
            if ending == "cancel":
                bench.journal.command(e.CancelRequested("stop"))

    bench.journal.before_append = steer
    await bench.run()
    assert isinstance(terminal(bench), e.RunCancelled if ending == "cancel" else e.RunFailed)
    assert [line[0] for line in bench.conversation()] == ["user", "assistant", "tool", "user"]
    assert bench.conversation()[-1][1] == "mind this"
    committed = [i for r in bench.journal.log if isinstance(r.event, e.MessagesCommitted) for i in r.event.message_ids]
    assert committed.count(MessageId("e-mind this")) == 1


@pytest.mark.feature("R7")
async def test_a_queued_run_that_is_cancelled_adds_nothing_to_a_session_it_never_held() -> None:
    bench = Bench(["never"])
    bench.journal.command(e.InputReceived(user("and"), interrupt=False))
    bench.journal.command(e.CancelRequested("not needed"))
    await bench.run()
    assert isinstance(terminal(bench), e.RunCancelled)
    assert len(bench.journal.messages) == 1
    assert bench.models.asked == []


# History


@pytest.mark.feature("C2")
@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8])
async def test_a_driver_that_takes_over_shows_the_model_what_the_one_before_would_have(limit: int) -> None:
    script = [*[[("work", {"n": n}), ("look", {"n": n})] for n in range(9)], "done"]
    definition = agent(max_iterations=50)
    definition.history.max_messages = limit
    whole = Bench(script, agent=definition)
    whole.models = _Counting(script)
    await whole.run()
    assert isinstance(terminal(whole), e.RunCompleted)
    for at, ask in zip(_asked_at(whole), whole.models.asked, strict=True):
        journal = MemoryJournal(whole.journal.log[: at.sequence], whole.journal.messages[: at.messages])
        resumed = Bench(script, agent=definition, journal=journal)
        resumed.models = _Counting(script, line=ask.run.turn - 1)
        await resumed.run(epoch=2)
        assert [entry.body for entry in resumed.models.asked[0].entries] == [entry.body for entry in ask.entries]


class _Counting(ScriptedModels):
    """Follows its script by the number of calls, since a short history does not tell how far it is."""

    def __init__(self, script: Sequence[object], line: int = 0) -> None:
        super().__init__(script)
        self._next = line

    def _line(self, ask: Ask) -> int:
        self._next += 1
        return self._next - 1


class _At:
    def __init__(self, sequence: int, messages: int) -> None:
        self.sequence, self.messages = sequence, messages


def _asked_at(bench: Bench) -> list[_At]:
    """Where the log ended when each model call had begun."""
    places = []
    for sequence, messages in zip(bench.journal.batches, bench.journal.entries_at, strict=True):
        run = fold(Run("run", "session"), bench.journal.log[:sequence])
        if isinstance(bench.journal.log[sequence - 1].event, e.ModelStarted):
            places.append(_At(run.sequence, messages))
    return places


# Leases


def go_on_elsewhere(bench: Bench) -> None:
    """Another driver takes the run over and gives up the model call that this one makes."""
    gone = e.ModelFailed(1, 1, Failure.of(ServiceUnavailable("gone")), will_retry=True)
    for event in (e.RunResumed("driver-2", 2), gone):
        bench.journal.log.append(Recorded(len(bench.journal.log) + 1, 1000.0, event))


@pytest.mark.feature("S6")
async def test_a_driver_whose_append_meets_the_events_of_another_leaves_and_takes_it_for_no_defect() -> None:
    bench = Bench(["all done"])

    def lose_the_lease(batch: Batch) -> None:
        if isinstance(batch.events[0].event, e.TextDelta | e.ModelFinished):
            bench.journal.before_append = lambda batch: None
            go_on_elsewhere(bench)

    bench.journal.before_append = lose_the_lease
    with pytest.raises(LeaseLost):
        await bench.run()
    assert bench.journal.kinds()[-2:] == ["RunResumed", "ModelFailed"]


@pytest.mark.feature("S6")
async def test_a_driver_that_reads_of_a_command_and_of_another_driver_leaves() -> None:
    async def answer_late(ask: Ask) -> AsyncGenerator[Sequence[Output], None]:
        bench.journal.command(e.CancelRequested("late"))
        go_on_elsewhere(bench)
        bench.signal.command()
        yield [TextOutput("too ")]
        yield [TextOutput("late")]

    bench = Bench(["unused"])
    bench.models.stream = answer_late  # type: ignore[method-assign]
    with pytest.raises(LeaseLost):
        await bench.run()
    assert bench.journal.kinds()[-3:] == ["CancelRequested", "RunResumed", "ModelFailed"]


# Models that break off


class CountedSignal(Signal):
    """Notes each rest, and does not wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.rests: list[float] = []

    async def rest(self, seconds: float) -> None:
        self.rests.append(seconds)


@pytest.mark.feature("P11")
@pytest.mark.feature("R4")
async def test_a_model_whose_answers_break_off_is_left_alone_twice_as_long_each_time() -> None:
    signal = CountedSignal()
    bench = Bench([StreamIncomplete("cut")], signal=signal, patience=Patience(retry=4.0, longest_retry=100.0))
    await bench.run()
    first, second = signal.rests
    assert 3.0 <= first <= 4.0 and second == pytest.approx(2 * first)
    assert len(bench.models.asked) == 3


@pytest.mark.feature("R7")
async def test_a_cancel_ends_the_rest_before_a_model_is_asked_again() -> None:
    bench = Bench([StreamIncomplete("cut")], patience=Patience(retry=60.0, longest_retry=60.0))
    run = asyncio.create_task(bench.run())
    while "ModelFailed" not in bench.journal.kinds():  # what broke is durable before the rest
        await asyncio.sleep(0)
    bench.journal.command(e.CancelRequested("enough"))
    bench.signal.command()
    await asyncio.wait_for(run, 10)
    assert isinstance(terminal(bench), e.RunCancelled) and len(bench.models.asked) == 1
