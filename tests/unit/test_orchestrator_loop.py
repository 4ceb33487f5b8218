"""The loop, with its neighbours in memory."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from behest.agent.v1 import agent_pb2
from behest.chat.v1 import chat_pb2
from chassis.faults import (
    ContextSourceFailed,
    ProviderRateLimited,
    ProviderRequestRefused,
    ServiceUnavailable,
    SessionNotFound,
    StreamIncomplete,
)
from kit.loop import Bench, CountedTools, MemoryJournal, ScriptedModels, StoppedClock, unanswered
from orchestrator.domain import events as e
from orchestrator.domain.run import LEGAL, IllegalEvent, Phase, Recorded, Run, evolve, fold
from orchestrator.domain.values import Entry, Finish, MessageId, Role, Usage
from orchestrator.operations.ports import Answer, TextOutput
from orchestrator.wire import entry_from_proto

TOOL_LOOP = ([("work", {"n": 1}), ("look", {"n": 2})], [("work", {"n": 3})], "done")


def limited(**limits: int) -> agent_pb2.Agent:
    return agent_pb2.Agent(name="a", model="fake/m", tools=["*"], limits=agent_pb2.Limits(**limits))


def terminal(bench: Bench) -> e.Terminal:
    ends = [r.event for r in bench.journal.log if isinstance(r.event, e.Terminal)]
    assert len(ends) == 1
    assert bench.journal.log[-1].event is ends[0]
    assert unanswered(bench.journal.messages) == []
    return ends[0]


@pytest.mark.feature("R3")
async def test_a_text_run_answers_and_completes() -> None:
    bench = Bench(["hello there"])
    run = await bench.run()
    assert bench.conversation() == [("user", "please", ()), ("assistant", "hello there", ())]
    end = terminal(bench)
    assert isinstance(end, e.RunCompleted)
    assert end.message_id == bench.journal.messages[-1].id
    assert run.usage == Usage(10, 5, calls=1)


@pytest.mark.feature("R3")
async def test_a_tool_loop_takes_two_appends_a_turn() -> None:
    bench = Bench(TOOL_LOOP)
    await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)
    assert bench.tools.effects == ["run/1/call_0", "run/1/call_1", "run/2/call_0"]
    text_flushes = 1
    assert len(bench.journal.batches) <= 2 * 3 + text_flushes + 2


@pytest.mark.feature("R8")
async def test_the_user_message_is_in_the_request_exactly_once() -> None:
    bench = Bench(TOOL_LOOP)
    await bench.run()
    for request in bench.models.requests:
        assert sum(message.role == chat_pb2.ROLE_USER for message in request.messages) == 1


@pytest.mark.feature("R3")
async def test_each_request_holds_everything_that_was_said_before_it() -> None:
    bench = Bench(TOOL_LOOP)
    await bench.run()
    said = [entry.body for entry in bench.journal.messages]
    for request, length in zip(bench.models.requests, (1, 4, 6), strict=True):
        assert list(request.messages)[1:] == said[:length]


@pytest.mark.feature("R8")
async def test_tool_choice_holds_for_the_first_model_call_only() -> None:
    bench = Bench(TOOL_LOOP, tool_choice=chat_pb2.ToolChoice(mode=chat_pb2.ToolChoice.MODE_NAMED, name="work"))
    await bench.run()
    assert [request.tool_choice.name for request in bench.models.requests] == ["work", "", ""]


@pytest.mark.feature("R12")
@given(cut=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_every_prefix_of_a_history_resumes_to_the_same_end_without_repeating_a_finished_effect(cut: int) -> None:
    asyncio.run(_resumes(cut))


async def _resumes(cut: int) -> None:
    whole = Bench(TOOL_LOOP)
    await whole.run()
    at = min(cut, len(whole.journal.batches))
    sequence = whole.journal.batches[at - 1] if at else 1
    messages = whole.journal.entries_at[at - 1] if at else 1
    journal = MemoryJournal(whole.journal.log[:sequence], whole.journal.messages[:messages])
    if isinstance(journal.log[-1].event, e.Terminal):
        return
    # The executor outlives the driver: it keeps the receipts of what had finished by then.
    finished = sum(isinstance(r.event, e.ToolExecutionFinished) for r in journal.log)
    keys = whole.tools.effects[:finished]
    tools = CountedTools(effects=list(keys), receipts={key: whole.tools.receipts[key] for key in keys})
    resumed = Bench(TOOL_LOOP, journal=journal, tools=tools)
    run = await resumed.run(epoch=2)
    assert isinstance(terminal(resumed), e.RunCompleted)
    assert resumed.conversation() == whole.conversation()
    assert resumed.tools.effects == whole.tools.effects
    assert run.turn == 3


@pytest.mark.feature("R12")
async def test_a_driver_that_dies_at_any_append_is_followed_by_one_that_finishes_with_the_same_conversation() -> None:
    whole = Bench(TOOL_LOOP)
    await whole.run()
    for deaths in range(len(whole.journal.batches)):
        bench = Bench(TOOL_LOOP)
        await _die_after(bench, deaths)
        bench.journal.before_append = lambda batch: None
        successor = Bench(TOOL_LOOP, journal=bench.journal, tools=bench.tools)
        if not isinstance(bench.journal.log[-1].event, e.Terminal):
            await successor.run(epoch=2)
        assert successor.conversation() == whole.conversation()
        assert successor.tools.effects == whole.tools.effects


async def _die_after(bench: Bench, appends: int) -> None:
    count = 0

    def refuse(batch: object) -> None:
        nonlocal count
        count += 1
        if count > appends:
            raise asyncio.CancelledError

    bench.journal.before_append = refuse
    with pytest.raises(asyncio.CancelledError):
        await bench.run()


@pytest.mark.feature("R5")
@pytest.mark.parametrize(
    ("limits", "reason"),
    [
        ({"max_iterations": 1}, "ITERATIONS_EXHAUSTED"),
        ({"max_total_tokens": 12}, "TOKENS_EXHAUSTED"),
        ({"max_tool_calls": 1}, "TOOL_CALLS_EXHAUSTED"),
    ],
)
async def test_each_limit_ends_the_run_with_its_reason_before_more_is_spent(limits: dict[str, int], reason: str) -> None:
    bench = Bench(TOOL_LOOP, agent=limited(**limits))
    await bench.run()
    end = terminal(bench)
    assert isinstance(end, e.RunFailed)
    assert end.failure.reason == reason
    assert len(bench.models.asked) == 1


@pytest.mark.feature("R5")
async def test_money_is_a_limit() -> None:
    costly = Answer(entry(chat_pb2.ROLE_ASSISTANT, "x"), (), Finish.LENGTH, "length", Usage(1, 1, cost_nano_usd=60, calls=1), "p", "m")
    bench = Bench([costly], agent=limited(max_cost_nano_usd=100))
    await bench.run()
    assert len(bench.models.asked) == 2
    assert isinstance(terminal(bench), e.RunCompleted)


def entry(role: int, text: str) -> Entry:
    return entry_from_proto(f"e-{text}", chat_pb2.Message(role=role, parts=[chat_pb2.Part(text=text)]))


@pytest.mark.feature("R5")
async def test_wall_time_ends_the_run_with_its_partial_text() -> None:
    clock = StoppedClock()
    bench = Bench([_late(clock)], clock=clock, agent=limited(max_wall_ms=5000))
    await bench.run()
    end = terminal(bench)
    assert isinstance(end, e.RunFailed)
    assert end.failure.reason == "TIME_EXHAUSTED"
    assert bench.conversation()[-1] == ("assistant", "partial", ())


class _Hanging(ScriptedModels):
    """Says something, then nothing."""

    def __init__(self, after: object) -> None:
        super().__init__([])
        self._after = after

    async def stream(self, ask: object):
        self.asked.append(ask)
        yield [TextOutput("partial")]
        self._after()
        await asyncio.Event().wait()


def _late(clock: StoppedClock) -> object:
    return clock


@pytest.fixture(autouse=True)
def _hanging_scripts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script of one clock means a model that hangs until the clock has passed the deadline."""
    made = Bench.__post_init__

    def make(self: Bench) -> None:
        made(self)
        if self.script and isinstance(self.script[0], StoppedClock):
            clock, bench = self.script[0], self

            def pass_the_deadline() -> None:
                clock.time += 10
                bench.signal.stir()

            self.models = _Hanging(pass_the_deadline)

    monkeypatch.setattr(Bench, "__post_init__", make)


@pytest.mark.feature("R7")
async def test_cancel_in_mid_stream_keeps_the_partial_text_and_a_valid_history() -> None:
    bench = Bench(["never"])

    def cancel() -> None:
        bench.journal.command(e.CancelRequested("changed my mind"))
        bench.signal.command()

    bench.models = _Hanging(cancel)
    await bench.run()
    end = terminal(bench)
    assert isinstance(end, e.RunCancelled)
    assert end.reason == "changed my mind"
    assert bench.conversation()[-1] == ("assistant", "partial", ())


@pytest.mark.feature("R7")
@pytest.mark.feature("R11")
async def test_cancel_while_a_tool_runs_stops_it_and_says_that_its_outcome_is_unknown() -> None:
    bench = Bench(TOOL_LOOP, tools=CountedTools(gate=asyncio.Event()))
    started = asyncio.Event()
    bench.journal.before_append = lambda batch: started.set() if isinstance(batch.events[-1].event, e.ToolExecutionStarted) else None
    driving = asyncio.create_task(bench.run())
    await started.wait()
    for _ in range(5):
        await asyncio.sleep(0)
    bench.clock.time += 0.01
    bench.journal.command(e.CancelRequested("stop"))
    bench.signal.command()
    while not bench.tools.cancelled:
        await asyncio.sleep(0)
    bench.clock.time += 1
    bench.signal.stir()
    await driving
    assert isinstance(terminal(bench), e.RunCancelled)
    assert bench.tools.cancelled == ["call_0", "call_1"]
    assert [line[0] for line in bench.conversation()] == ["user", "assistant", "tool", "tool"]


@pytest.mark.feature("R7")
async def test_a_command_that_comes_between_decision_and_append_wins_over_the_plan() -> None:
    bench = Bench(TOOL_LOOP)
    done = False

    def cancel_first(batch: object) -> None:
        nonlocal done
        if not done and isinstance(batch.events[-1].event, e.ToolExecutionStarted):
            done = True
            bench.journal.command(e.CancelRequested("just in time"))

    bench.journal.before_append = cancel_first
    await bench.run()
    assert isinstance(terminal(bench), e.RunCancelled)
    assert bench.tools.effects == []


@pytest.mark.feature("R14")
async def test_input_sent_while_the_model_answers_is_heard_before_the_run_completes() -> None:
    bench = Bench(["first", "second"])
    sent = False

    def steer(batch: object) -> None:
        nonlocal sent
        if not sent and isinstance(batch.events[-1].event, e.RunCompleted):
            sent = True
            bench.journal.command(e.InputReceived(entry(chat_pb2.ROLE_USER, "and this"), interrupt=False))

    bench.journal.before_append = steer
    await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)
    assert [line[:2] for line in bench.conversation()] == [
        ("user", "please"),
        ("assistant", "first"),
        ("user", "and this"),
        ("assistant", "first"),
    ]


@pytest.mark.feature("R14")
async def test_interrupting_input_stops_the_model_call_and_keeps_what_it_said() -> None:
    bench = Bench(["answer"])
    scripted = bench.models

    def interrupt() -> None:
        bench.journal.command(e.InputReceived(entry(chat_pb2.ROLE_USER, "wait"), interrupt=True))
        bench.signal.command()
        bench.models.stream = scripted.stream

    bench.models = _Hanging(interrupt)
    await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)
    assert [line[1] for line in bench.conversation()] == ["please", "partial", "wait", "answer"]


@pytest.mark.feature("R9")
async def test_a_length_cut_answer_continues_three_times_at_most() -> None:
    cut = Answer(entry(chat_pb2.ROLE_ASSISTANT, "more"), (), Finish.LENGTH, "length", Usage(1, 1, calls=1), "p", "m")
    bench = Bench([cut])
    await bench.run()
    end = terminal(bench)
    assert isinstance(end, e.RunCompleted)
    assert end.finish is Finish.LENGTH
    assert [ask.continuing for ask in bench.models.asked] == [False, True, True, True]
    assert "Continue" in str(bench.models.requests[1].messages[-1])


@pytest.mark.feature("R10")
async def test_a_doom_loop_is_warned_of_first_and_then_fails() -> None:
    bench = Bench([[("work", {})]] * 20, agent=limited(max_iterations=50), tools=CountedTools(results=lambda name, arguments: "same"))
    await bench.run()
    end = terminal(bench)
    assert isinstance(end, e.RunFailed)
    assert end.failure.reason == "DOOM_LOOP"
    loops = [r.event for r in bench.journal.log if isinstance(r.event, e.DoomLoopDetected)]
    assert [(loop.pattern, loop.warned) for loop in loops] == [("identical_calls", True)]
    assert len(bench.tools.effects) == 4


@pytest.mark.feature("R10")
async def test_parallel_identical_calls_of_one_turn_are_not_a_loop() -> None:
    bench = Bench([[("work", {})] * 6, "done"])
    await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)


@pytest.mark.feature("R10")
async def test_a_polling_tool_can_be_exempt() -> None:
    agent = limited(max_iterations=50)
    agent.loop_exempt_tools.append("work")
    bench = Bench([*[[("work", {})]] * 8, "done"], agent=agent, tools=CountedTools(results=lambda name, arguments: "same"))
    await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)


@pytest.mark.feature("R4")
@pytest.mark.parametrize(
    ("fault", "asked"), [(ProviderRequestRefused("bad"), 1), (ProviderRateLimited("slow"), 1), (StreamIncomplete("cut"), 3)]
)
async def test_a_provider_that_keeps_failing_ends_the_run_typed(fault: Exception, asked: int) -> None:
    bench = Bench([fault])
    await bench.run()
    end = terminal(bench)
    assert isinstance(end, e.RunFailed)
    assert end.failure.reason == fault.reason
    assert len(bench.models.asked) == asked


@pytest.mark.feature("A1")
async def test_fallback_models_are_tried_when_the_first_refuses() -> None:
    agent = limited()
    agent.fallback_models.append("other/m")
    bench = Bench([lambda ask: "ok" if ask.model == "other/m" else ProviderRequestRefused("no")], agent=agent)
    await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)
    assert [ask.model for ask in bench.models.asked] == ["fake/m", "other/m"]


@pytest.mark.feature("C1")
async def test_a_context_source_that_fails_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(["never"])

    async def gone(session_id: str, count: int) -> None:
        raise SessionNotFound("no such session")

    monkeypatch.setattr(bench.journal, "tail", gone)
    drive = bench.drive()
    with pytest.raises(ContextSourceFailed, match="history failed: no such session") as failed:
        await drive.to_the_end()
    assert failed.value.metadata == {"source": "history", "reason": "SESSION_NOT_FOUND"}
    await drive.fail(failed.value)
    assert terminal(bench).failure.reason == "CONTEXT_SOURCE_FAILED"


@pytest.mark.feature("R12")
async def test_a_gateway_that_is_away_for_a_moment_costs_no_attempt() -> None:
    tries = iter([ServiceUnavailable("away"), ServiceUnavailable("away"), "back"])
    bench = Bench([lambda ask: next(tries)])
    run = await bench.run()
    assert isinstance(terminal(bench), e.RunCompleted)
    assert run.attempt == 1


@pytest.mark.feature("R3")
@given(phase=st.sampled_from(Phase), kind=st.sampled_from(sorted(LEGAL, key=lambda k: k.__name__)))
def test_an_event_is_refused_in_every_phase_that_the_table_does_not_list(phase: Phase, kind: type) -> None:
    if phase in LEGAL[kind]:
        return
    with pytest.raises(IllegalEvent):
        evolve(Run("r", "s", phase=phase), Recorded(1, 0.0, object.__new__(kind)))


@pytest.mark.feature("R3")
def test_events_out_of_sequence_are_refused() -> None:
    with pytest.raises(IllegalEvent):
        fold(Run("r", "s"), [Recorded(2, 0.0, e.CancelRequested(""))])


def test_message_ids_are_names() -> None:
    assert MessageId("x") == "x"
    assert Role.USER == chat_pb2.ROLE_USER
