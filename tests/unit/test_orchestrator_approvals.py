"""Approvals: the rules that ask for them, the run that waits, and the decisions that let it go on."""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from behest.agent.v1 import agent_pb2
from chassis.faults import (
    ApprovalDecided,
    ApprovalExpired,
    ApprovalMismatch,
    ApprovalNotFound,
    Fault,
    RequestIdReused,
    RunEnded,
    RunNotFound,
    SequenceConflict,
)
from kit.loop import RUN, SESSION, Bench, CountedTools, MemoryJournal, StoppedClock, unanswered
from orchestrator.adapters.configured_agents import configured_agents
from orchestrator.domain import events as e
from orchestrator.domain.approvals import Approval, Decision, Standing, Vote, permission_of
from orchestrator.domain.deciding import Approvals, Resolve, resolve
from orchestrator.domain.run import IllegalEvent, Phase, Recorded, Run, evolve, fold
from orchestrator.domain.values import Action, CallId, CallStatus, MessageId, Permission, RunId, SessionId, ToolCall
from orchestrator.operations.approvals import ApprovalDesk
from orchestrator.operations.ports import NOWHERE, RunPage, RunQuery, Terms
from orchestrator.wire import event_from_proto, event_to_proto

ASK, DENY, ALLOW = agent_pb2.PERMISSION_ACTION_ASK, agent_pb2.PERMISSION_ACTION_DENY, agent_pb2.PERMISSION_ACTION_ALLOW
SCRIPT = ([("work", {"n": 1}), ("look", {"n": 2})], "done")
WORK, LOOK = "run/1/call_0", "run/1/call_1"
ANONYMOUS = Terms()
MINUTE = 60_000


def asking(*rules: agent_pb2.Permission, **limits: int) -> agent_pb2.Agent:
    permissions = rules or (agent_pb2.Permission(tool="work", action=ASK, expires_ms=MINUTE),)
    return agent_pb2.Agent(name="a", model="fake/m", tools=["*"], permissions=permissions, limits=agent_pb2.Limits(**limits))


def digest(**arguments: object) -> str:
    return hashlib.sha256(json.dumps(arguments).encode()).hexdigest()


def kinds(bench: Bench) -> list[str]:
    return bench.journal.kinds()


def rests(bench: Bench) -> bool:
    return bench.journal.rests_until is not None


async def asked(*rules: agent_pb2.Permission, script: object = SCRIPT, **limits: int) -> Bench:
    """A run that waits for approval."""
    bench = Bench(script, agent=asking(*rules, **limits))  # type: ignore[arg-type]  # a script
    run = await bench.run()
    assert run.phase is Phase.AWAITING and rests(bench)
    return bench


def decide(bench: Bench, decision: Decision, approval_id: str = WORK, who: str = "ann", why: str = "", outstanding: int = 0) -> None:
    bench.journal.command(e.ApprovalResolved(approval_id, decision, who, why, outstanding), bench.clock.now())


def results(bench: Bench) -> list[str]:
    return [text for role, text, _ in bench.conversation() if role == "tool"]


@pytest.mark.feature("A2")
@pytest.mark.parametrize(
    ("tool", "action"), [("read", Action.ALLOW), ("write_file", Action.ASK), ("write_log", Action.DENY), ("write", Action.ALLOW)]
)
def test_the_last_rule_that_matches_counts_and_what_none_matches_may_run(tool: str, action: Action) -> None:
    rules = [Permission("write_*", Action.DENY), Permission("write_f*", Action.ASK)]
    assert permission_of(rules, ToolCall(CallId("c"), tool, "d")).action is action


@pytest.mark.feature("A2")
@pytest.mark.parametrize(("destructive", "action"), [(True, Action.ASK), (False, Action.ALLOW)])
def test_a_rule_may_be_for_destructive_tools_alone(destructive: bool, action: Action) -> None:
    rules = [Permission("*", Action.ASK, destructive_only=True)]
    assert permission_of(rules, ToolCall(CallId("c"), "drop", "d", destructive=destructive)).action is action


@pytest.mark.feature("A2")
async def test_only_destructive_tools_wait_where_the_rule_says_so_also_when_another_driver_goes_on() -> None:
    rule = agent_pb2.Permission(tool="*", action=ASK, destructive_only=True, expires_ms=MINUTE)
    bench = Bench(SCRIPT, agent=asking(rule), tools=CountedTools(destructive=frozenset({"work"})))  # type: ignore[arg-type]  # a script
    await bench.run()
    assert [r.event.approval_id for r in bench.journal.log if isinstance(r.event, e.ApprovalRequested)] == [WORK]
    bench.tools.destructive = frozenset()  # type: ignore[assignment]  # as it is now, which does not count
    assert (await bench.run(epoch=2)).phase is Phase.AWAITING
    decide(bench, Decision.APPROVE)
    await bench.run(epoch=3)
    assert bench.tools.effects == [WORK, LOOK]


@pytest.mark.feature("A2")
def test_rules_come_from_the_settings_with_defaults_and_change_the_agents_version() -> None:
    rule = {"tool": "pay*", "action": "ask", "approvals_needed": 2}
    agents = configured_agents({"plain": {}, "careful": {"permissions": [rule]}, "same": {"permissions": []}})
    assert agents["careful"].permissions == (Permission("pay*", Action.ASK, 2, 86_400_000),)
    assert agents["plain"].permissions == ()
    assert agents["careful"].version != agents["plain"].version


@pytest.mark.feature("R15")
async def test_a_run_asks_and_lets_go_before_any_tool_of_the_turn_runs() -> None:
    bench = await asked()
    assert kinds(bench)[-3:] == ["UsageRecorded", "MessagesCommitted", "ApprovalRequested"]
    request = bench.journal.log[-1].event
    assert request == e.ApprovalRequested(1, WORK, "call_0", "work", digest(n=1), bench.clock.now() + 60, 1)  # type: ignore[arg-type]  # an id
    assert bench.journal.rests_until == bench.clock.now() + 60
    assert bench.tools.effects == []


@pytest.mark.feature("R15")
async def test_an_approved_call_runs_once_and_results_join_in_the_order_of_the_calls() -> None:
    bench = await asked()
    decide(bench, Decision.APPROVE)
    run = await bench.run(epoch=2)
    assert run.ended and bench.tools.effects == [WORK, LOOK]
    assert results(bench) == ['work did {"n": 1}', 'look did {"n": 2}']
    assert unanswered(bench.journal.messages) == []


@pytest.mark.feature("A3")
async def test_a_denied_call_does_not_run_and_the_model_reads_who_denied_it_and_why() -> None:
    bench = await asked()
    decide(bench, Decision.DENY, why="too dear")
    await bench.run(epoch=2)
    assert bench.tools.effects == [LOOK]
    assert results(bench) == ["denied by ann: too dear", 'look did {"n": 2}']
    (denied,) = [r.event for r in bench.journal.log if isinstance(r.event, e.ToolExecutionFinished) and r.event.call_id == "call_0"]
    assert denied.status is CallStatus.DENIED and bench.journal.messages[2].body.is_error


@pytest.mark.feature("A2")
async def test_a_call_that_a_rule_denies_is_refused_without_asking_anybody() -> None:
    bench = Bench(SCRIPT, agent=asking(agent_pb2.Permission(tool="*", action=DENY)))  # type: ignore[arg-type]  # a script
    run = await bench.run()
    assert run.ended and bench.tools.effects == []
    assert results(bench) == ["denied: agent a may not call work", "denied: agent a may not call look"]
    assert not {"ApprovalRequested", "ToolExecutionStarted"} & set(kinds(bench))


@pytest.mark.feature("A3")
async def test_each_call_of_a_turn_has_its_own_approval_and_the_run_goes_on_when_all_are_decided() -> None:
    bench = await asked(agent_pb2.Permission(tool="*", action=ASK, expires_ms=MINUTE))
    decide(bench, Decision.APPROVE, LOOK)
    run = await bench.run(epoch=2)
    assert run.phase is Phase.AWAITING and rests(bench) and bench.tools.effects == []
    decide(bench, Decision.DENY, WORK)
    run = await bench.run(epoch=3)
    assert run.ended and bench.tools.effects == [LOOK]


@pytest.mark.feature("A3")
async def test_nobody_deciding_in_time_counts_as_denied() -> None:
    bench = await asked()
    bench.clock.time += 60
    run = await bench.run(epoch=2)
    assert run.ended and bench.tools.effects == [LOOK]
    assert results(bench)[0] == "denied: nobody approved it in time"


@pytest.mark.feature("A3")
async def test_an_approval_that_is_in_the_log_counts_though_the_driver_looks_after_its_expiry() -> None:
    bench = await asked()
    decide(bench, Decision.APPROVE)
    bench.clock.time += 61
    await bench.run(epoch=2)
    assert bench.tools.effects == [WORK, LOOK]


@pytest.mark.feature("A3")
async def test_an_approval_that_comes_while_the_expiry_is_being_written_wins() -> None:
    bench = await asked()
    bench.clock.time += 60
    came = iter([None])
    bench.journal.before_append = lambda batch: None if next(came, 1) else decide(bench, Decision.APPROVE)
    await bench.run(epoch=2)
    assert bench.tools.effects == [WORK, LOOK]
    assert not any(r.event.decision is Decision.EXPIRE for r in bench.journal.log if isinstance(r.event, e.ApprovalResolved))


@pytest.mark.feature("R5")
async def test_a_run_whose_wall_time_ends_first_fails_and_gives_every_call_a_result() -> None:
    bench = await asked(max_wall_ms=30_000)
    assert bench.journal.rests_until == bench.clock.now() + 30
    bench.clock.time += 30
    run = await bench.run(epoch=2)
    end = bench.journal.log[-1].event
    assert run.ended and isinstance(end, e.RunFailed) and end.failure.reason == "TIME_EXHAUSTED"
    assert bench.tools.effects == [] and unanswered(bench.journal.messages) == []


@pytest.mark.feature("R7")
async def test_a_run_is_cancelled_while_it_waits() -> None:
    bench = await asked()
    bench.journal.command(e.CancelRequested("enough"))
    await bench.run(epoch=2)
    assert isinstance(bench.journal.log[-1].event, e.RunCancelled)
    assert bench.tools.effects == [] and unanswered(bench.journal.messages) == []


@pytest.mark.feature("R7")
async def test_a_command_that_comes_before_the_run_lets_go_is_heard() -> None:
    bench = Bench(SCRIPT, agent=asking())  # type: ignore[arg-type]  # a script

    def cancel(batch: object) -> None:
        if batch.rests_until is not None and "CancelRequested" not in kinds(bench):  # type: ignore[attr-defined]  # a batch
            bench.journal.command(e.CancelRequested("enough"))

    bench.journal.before_append = cancel
    await bench.run()
    assert kinds(bench)[-1] == "RunCancelled" and not rests(bench)


@pytest.mark.feature("R9")
async def test_what_is_said_while_a_run_waits_is_heard_after_the_results() -> None:
    bench = await asked()
    entry = Bench(["x"]).journal.messages[0]
    bench.journal.command(e.InputReceived(entry, interrupt=False))
    run = await bench.run(epoch=2)
    assert run.phase is Phase.AWAITING and rests(bench)
    decide(bench, Decision.APPROVE)
    await bench.run(epoch=3)
    assert [role for role, _, _ in bench.conversation()] == ["user", "assistant", "tool", "tool", "user", "assistant"]


@pytest.mark.feature("A3")
async def test_as_many_different_people_must_approve_as_the_rule_says() -> None:
    bench = await asked(agent_pb2.Permission(tool="work", action=ASK, approvals_needed=2, expires_ms=MINUTE))
    for who in ("ann", "ann"):
        decide(bench, Decision.APPROVE, who=who, outstanding=1)
    assert (await bench.run(epoch=2)).phase is Phase.AWAITING
    decide(bench, Decision.APPROVE, who="bob")
    await bench.run(epoch=3)
    assert bench.tools.effects == [WORK, LOOK]


@pytest.mark.feature("R12")
@given(cut=st.integers(1, 60), approve=st.booleans())
@settings(max_examples=80, deadline=None)
def test_every_prefix_of_a_history_with_an_approval_resumes_to_the_same_end(cut: int, approve: bool) -> None:
    asyncio.run(_resumes(cut, Decision.APPROVE if approve else Decision.DENY))


async def _resumes(cut: int, decision: Decision) -> None:
    rules = (agent_pb2.Permission(tool="*", action=ASK, expires_ms=MINUTE), agent_pb2.Permission(tool="look", action=ALLOW))
    whole = await asked(*rules)
    decide(whole, decision)
    await whole.run(epoch=2)
    at = min(cut, len(whole.journal.batches))
    sequence = whole.journal.batches[at - 1]
    journal = MemoryJournal(whole.journal.log[:sequence], whole.journal.messages[: whole.journal.entries_at[at - 1]])
    if isinstance(journal.log[-1].event, e.Terminal):
        return
    finished = {f"run/{r.event.turn}/{r.event.call_id}" for r in journal.log if isinstance(r.event, e.ToolExecutionFinished)}
    receipts = {key: outcome for key, outcome in whole.tools.receipts.items() if key in finished}
    bench = Bench(SCRIPT, journal=journal, tools=CountedTools(effects=list(receipts), receipts=receipts), agent=asking(*rules))  # type: ignore[arg-type]  # a script
    run = await bench.run(epoch=3)
    if not run.ended:
        assert run.phase is Phase.AWAITING and rests(bench)
        decide(bench, decision)
        run = await bench.run(epoch=4)
    assert run.ended and bench.conversation() == whole.conversation()
    assert sorted(bench.tools.effects) == sorted(whole.tools.effects)


@pytest.mark.feature("R3")
async def test_a_tool_cannot_start_while_its_turn_waits() -> None:
    bench = await asked()
    started = e.ToolExecutionStarted(1, "call_1", "look", "d")  # type: ignore[arg-type]  # an id
    run = fold(Run(RUN, SESSION), bench.journal.log)
    with pytest.raises(IllegalEvent, match="awaiting"):
        evolve(run, Recorded(run.sequence + 1, 0.0, started))


@pytest.mark.feature("A3")
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([Decision.APPROVE, Decision.DENY, Decision.EXPIRE])), max_size=8))
def test_once_decided_nothing_changes_an_approval(votes: list[tuple[str, Decision]]) -> None:
    approval = Approval("id", "d", 2, 0.0, 1.0)
    seen = Standing.PENDING
    for who, decision in votes:
        approval = approval.with_vote(Vote(who, decision, "", 0.0))
        assert seen in (Standing.PENDING, approval.standing)
        seen = approval.standing
    approvers = {vote.principal for vote in approval.votes if vote.decision is Decision.APPROVE}
    assert (seen is Standing.APPROVED) == (len(approvers) == 2 == len(approval.votes))
    assert bool(approval.refusal) == (seen in (Standing.DENIED, Standing.EXPIRED))


def wish(approval_id: str = WORK, who: str = "ann", decision: Decision = Decision.APPROVE, digest_: str = "", why: str = "") -> Resolve:
    return Resolve(approval_id, digest_ or digest(n=1), decision, who, why)


@dataclass
class MemoryRuns:
    """The store's side of commands, over the journal of a bench."""

    bench: Bench
    requests: dict[str, str] = field(default_factory=dict)
    terms: list[Terms] = field(default_factory=list)

    async def read(self, run_id: RunId, after: int) -> tuple[SessionId, tuple[Recorded, ...]]:
        if run_id != RUN:
            raise RunNotFound("no run")
        found = tuple(self.bench.journal.log[after:])
        await asyncio.sleep(0)
        return SESSION, found

    async def command(self, run_id: RunId, event: e.Command, terms: Terms) -> tuple[int, object]:
        log = self.bench.journal.log
        if terms.request_id in self.requests:
            if self.requests[terms.request_id] != terms.payload_digest:
                raise RequestIdReused("another payload")
            return 7, None
        if isinstance(log[-1].event, e.Terminal):
            raise RunEnded("over")
        if terms.expected not in (None, len(log)):
            raise SequenceConflict("moved on")
        if terms.request_id:
            self.requests[terms.request_id] = terms.payload_digest
        self.terms.append(terms)
        self.bench.journal.command(event, self.bench.clock.now())
        return len(log), None

    async def list_runs(self, query: RunQuery) -> RunPage:
        raise NotImplementedError


def desk_of(bench: Bench) -> tuple[ApprovalDesk, MemoryRuns]:
    runs = MemoryRuns(bench)
    return ApprovalDesk(runs, runs, bench.clock), runs  # type: ignore[arg-type]  # as much of the ports as is used


async def refused(desk: ApprovalDesk, given: Resolve, terms: Terms = ANONYMOUS) -> type[Fault]:
    with pytest.raises(Fault) as caught:
        await desk.resolve(given, terms)
    return type(caught.value)


@pytest.mark.feature("A3")
async def test_of_many_decisions_at_once_exactly_one_is_recorded_and_the_others_are_told() -> None:
    bench = await asked()
    desk, _ = desk_of(bench)
    wishes = [wish(who=f"p{i}", decision=Decision.DENY if i % 2 else Decision.APPROVE) for i in range(8)]
    outcomes = await asyncio.gather(*(desk.resolve(each, Terms()) for each in wishes), return_exceptions=True)
    assert sum(isinstance(outcome, ApprovalDecided) for outcome in outcomes) == 7
    assert kinds(bench).count("ApprovalResolved") == 1


@pytest.mark.feature("A3")
async def test_a_decision_about_other_arguments_is_refused() -> None:
    bench = await asked()
    desk, _ = desk_of(bench)
    assert await refused(desk, wish(digest_=digest(n=2))) is ApprovalMismatch
    assert await refused(desk, wish(LOOK)) is ApprovalNotFound, "a call that nobody had to approve has no approval"
    assert await refused(desk, wish("other/1/call_0")) is ApprovalNotFound
    assert await refused(desk, wish("/")) is ApprovalNotFound
    assert "ApprovalResolved" not in kinds(bench)


@pytest.mark.feature("A3")
async def test_after_its_time_an_approval_cannot_be_given_whether_or_not_a_driver_has_said_so() -> None:
    bench = await asked()
    desk, _ = desk_of(bench)
    bench.clock.time += 60
    assert await refused(desk, wish()) is ApprovalExpired
    await bench.run(epoch=2)
    assert await refused(desk, wish()) is ApprovalExpired


@pytest.mark.feature("A3")
async def test_a_decision_that_was_recorded_is_acknowledged_again_and_another_one_is_refused() -> None:
    bench = await asked()
    desk, _ = desk_of(bench)
    first = await desk.resolve(wish(why="fine"), Terms("r-1", "d"))
    assert first.standing is Standing.APPROVED and first.asked.approval.votes[0].reason == "fine"
    assert (await desk.resolve(wish(why="fine"), Terms("r-1", "d"))).standing is Standing.APPROVED
    await bench.run(epoch=2)
    assert (await desk.resolve(wish(why="fine"), Terms("r-1", "d"))).standing is Standing.APPROVED
    assert await refused(desk, wish(decision=Decision.DENY), Terms("r-1", "other")) is RequestIdReused
    assert await refused(desk, wish(decision=Decision.DENY), Terms("r-2", "d")) is ApprovalDecided
    assert await refused(desk, wish()) is ApprovalDecided
    assert kinds(bench).count("ApprovalResolved") == 1


@pytest.mark.feature("A3")
async def test_one_person_counts_once_and_may_still_deny() -> None:
    bench = await asked(agent_pb2.Permission(tool="work", action=ASK, approvals_needed=3, expires_ms=MINUTE))
    desk, runs = desk_of(bench)
    assert (await desk.resolve(wish(who="ann"), Terms())).standing is Standing.PENDING
    assert await refused(desk, wish(who="ann")) is ApprovalDecided
    assert (await desk.resolve(wish(who="ann", decision=Decision.DENY), Terms())).standing is Standing.DENIED
    assert [terms.keeps_waiting for terms in runs.terms] == [True, False]


@pytest.mark.feature("R15")
async def test_the_run_keeps_waiting_until_the_last_of_its_approvals_is_decided() -> None:
    bench = await asked(agent_pb2.Permission(tool="*", action=ASK, expires_ms=MINUTE))
    desk, runs = desk_of(bench)
    await desk.resolve(wish(), Terms())
    await desk.resolve(wish(LOOK, digest_=digest(n=2)), Terms())
    assert [terms.keeps_waiting for terms in runs.terms] == [True, False]
    assert all(terms.expected not in (None, NOWHERE) for terms in runs.terms)


@pytest.mark.feature("A3")
async def test_the_end_of_a_run_abandons_what_was_not_decided() -> None:
    bench = await asked()
    desk, _ = desk_of(bench)
    bench.journal.command(e.CancelRequested("enough"))
    await bench.run(epoch=2)
    assert await refused(desk, wish()) is RunEnded
    assert [listed.standing for listed in (await desk.of_run(RUN, everything=True)).approvals] == [Standing.ABANDONED]
    assert (await desk.of_run(RUN, everything=False)).approvals == ()


@pytest.mark.feature("A3")
async def test_a_log_that_moves_on_meanwhile_is_read_on_and_the_decision_is_recorded() -> None:
    bench = await asked()
    desk, runs = desk_of(bench)
    entry = Bench(["x"]).journal.messages[0]
    read, once = runs.read, iter([True])

    async def overtaken(run_id: RunId, after: int) -> tuple[SessionId, tuple[Recorded, ...]]:
        found = await read(run_id, after)
        if next(once, False):
            bench.journal.command(e.InputReceived(entry, interrupt=False))
        return found

    runs.read = overtaken  # type: ignore[method-assign]  # something happens after the first look
    assert (await desk.resolve(wish(), Terms())).standing is Standing.APPROVED


@pytest.mark.feature("A4")
async def test_all_approvals_of_a_log_are_told_of_whatever_turn_they_were_asked_in() -> None:
    script = ([("work", {"n": 1})], [("work", {"n": 1})], "done")
    bench = await asked(script=script)
    decide(bench, Decision.APPROVE)
    await bench.run(epoch=2)
    approvals = Approvals()
    approvals.take(bench.journal.log)
    assert [(asked.turn, asked.approval.id, approvals.standing(asked)) for asked in approvals.all()] == [
        (1, "run/1/call_0", Standing.APPROVED),
        (2, "run/2/call_0", Standing.PENDING),
    ]
    with pytest.raises(ApprovalDecided):
        resolve(approvals, wish(who="bob"), bench.clock.now())
    assert StoppedClock().now() < resolve_time(approvals)


def resolve_time(approvals: Approvals) -> float:
    return approvals.find("run/2/call_0").approval.expires_at


@pytest.mark.feature("E1")
@pytest.mark.parametrize(
    "event",
    [
        e.ApprovalRequested(1, WORK, "call_0", "work", "d", 1234.5, 2),  # type: ignore[arg-type]  # an id
        e.ApprovalResolved(WORK, Decision.DENY, "ann", "no", 0),
        e.ApprovalResolved(WORK, Decision.APPROVE, "ann", "", 1),
        e.ApprovalResolved(WORK, Decision.EXPIRE),
    ],
)
def test_events_of_approvals_come_back_from_the_wire_as_they_went(event: e.Event) -> None:
    recorded = Recorded(3, 1000.0, event)
    assert event_from_proto(event_to_proto(recorded)) == recorded


DEEDS = st.one_of(
    st.tuples(st.just("vote"), st.sampled_from([WORK, LOOK, "run/2/call_0", ""]), st.sampled_from(list(Decision)), st.sampled_from("ab")),
    st.tuples(st.just("say")),
    st.tuples(st.just("wait"), st.sampled_from([1.0, 30.0, 61.0])),
    st.tuples(st.just("drive")),
    st.tuples(st.just("cancel")),
)


@pytest.mark.feature("A3")
@pytest.mark.feature("R12")
@given(deeds=st.lists(DEEDS, max_size=14), needed=st.integers(1, 2))
@settings(max_examples=150, deadline=None)
def test_whatever_happens_in_whatever_order_only_approved_calls_run_each_once_and_the_run_ends_once(
    deeds: list[tuple[Any, ...]], needed: int
) -> None:
    asyncio.run(_happens(deeds, needed))


async def _happens(deeds: list[tuple[Any, ...]], needed: int) -> None:
    rule = agent_pb2.Permission(tool="*", action=ASK, approvals_needed=needed, expires_ms=MINUTE)
    bench = Bench([*SCRIPT[:1], [("work", {"n": 3})], "done"], agent=asking(rule))
    epoch, said = 1, iter(Bench(["x"]).journal.messages)
    for deed in [("drive",), *deeds, *([("drive",), ("wait", 61.0)] * 8)]:
        if isinstance(bench.journal.log[-1].event, e.Terminal):
            break
        match deed:
            case ("vote", approval_id, decision, who):
                decide(bench, decision, approval_id, who)
            case ("say",) if entry := next(said, None):
                bench.journal.command(e.InputReceived(replace(entry, id=MessageId("said")), interrupt=False))
            case ("wait", seconds):
                bench.clock.time += seconds
            case ("cancel",):
                bench.journal.command(e.CancelRequested("enough"))
            case ("drive",):
                await bench.run(epoch)
                epoch += 1
    approvals = Approvals()
    approvals.take(bench.journal.log)
    approved = {asked.approval.id for asked in approvals.all() if asked.approval.standing is Standing.APPROVED}
    assert len(bench.tools.effects) == len(set(bench.tools.effects)) and set(bench.tools.effects) <= approved
    ends = [recorded.event for recorded in bench.journal.log if isinstance(recorded.event, e.Terminal)]
    assert ends == [bench.journal.log[-1].event] and unanswered(bench.journal.messages) == []
    assert isinstance(ends[0], e.RunCancelled) or set(bench.tools.effects) == approved
