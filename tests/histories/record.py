"""Writes golden histories from the loop with its neighbours in memory. Existing files are left as they are: they are the point."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

HERE = Path(__file__).parent
for folder in ("services", "gen", "tests"):
    sys.path.insert(0, str(HERE.parent.parent / folder))

from google.protobuf import json_format  # noqa: E402

from behest.agent.v1 import agent_pb2  # noqa: E402
from chassis.faults import ProviderRequestRefused, StreamIncomplete  # noqa: E402
from kit.loop import Bench, CountedTools, Sewn  # noqa: E402
from orchestrator.domain import events as e  # noqa: E402
from orchestrator.domain.approvals import Decision  # noqa: E402
from orchestrator.domain.run import Run, fold  # noqa: E402
from orchestrator.wire import event_to_proto  # noqa: E402

TOOLS = ([("work", {"n": 1}), ("look", {"n": 2})], [("work", {"n": 3})], "done")


def _agent(**limits: int) -> agent_pb2.Agent:
    return agent_pb2.Agent(name="a", model="fake/m", tools=["*"], limits=agent_pb2.Limits(**limits))


def _asking() -> agent_pb2.Agent:
    agent = _agent()
    agent.permissions.add(tool="*", action=agent_pb2.PERMISSION_ACTION_ASK, approvals_needed=2)
    return agent


def _decided(approval: str, decision: Decision, who: str, why: str = "", outstanding: int = 0) -> e.ApprovalResolved:
    return e.ApprovalResolved(f"run/{approval}", decision, who, why, outstanding)


APPROVE, DENY = Decision.APPROVE, Decision.DENY
DECISIONS = (
    (_decided("1/call_1", DENY, "ann", "not that one"), _decided("1/call_0", APPROVE, "ann", outstanding=1)),
    (_decided("1/call_0", APPROVE, "bob", "fine"),),
    (_decided("2/call_0", Decision.EXPIRE, ""),),
)


def _benches() -> dict[str, Bench]:
    tries = iter([StreamIncomplete("cut"), "in the end"])
    cancelled = Bench(TOOLS)
    cancelled.journal.before_append = lambda batch: _cancel_once(cancelled, batch)
    return {
        "text": Bench(["hello there"]),
        "tools": Bench(TOOLS),
        "retried": Bench([lambda ask: next(tries)]),
        "provider_refused": Bench([ProviderRequestRefused("bad")]),
        "doom_loop": Bench([[("work", {})]] * 20, agent=_agent(max_iterations=50), tools=CountedTools(results=lambda n, a: "same")),
        "iterations": Bench(TOOLS, agent=_agent(max_iterations=1)),
        "cancelled": cancelled,
        "approvals": Bench(TOOLS, agent=_asking()),
        "seam": Bench([Sewn("hello there")]),
    }


def _cancel_once(bench: Bench, batch: object) -> None:
    if isinstance(batch.events[-1].event, e.ToolExecutionStarted) and not any(
        isinstance(r.event, e.CancelRequested) for r in bench.journal.log
    ):
        bench.journal.command(e.CancelRequested("enough"))


async def _write(name: str, bench: Bench) -> None:
    await bench.run()
    for epoch, decisions in enumerate(DECISIONS if name == "approvals" else (), 2):
        for decision in decisions:
            bench.journal.command(decision)
        await bench.run(epoch)
    events = [json_format.MessageToDict(event_to_proto(recorded)) for recorded in bench.journal.log]
    run = fold(Run("run", "session"), bench.journal.log)
    end = {"phase": run.phase.value, "turn": run.turn, "tool_calls": run.tool_calls, "tokens": run.usage.total_tokens}
    path = HERE / f"{name}.json"
    if not path.exists():
        path.write_text(json.dumps(events, indent=1) + "\n")
        path.with_suffix(".end").write_text(json.dumps(end) + "\n")


async def _main() -> None:
    for name, bench in _benches().items():
        await _write(name, bench)
    broken = json.loads((HERE / "text.json").read_text())
    extra = {
        "sequence": str(len(broken) + 1),
        "time": broken[0]["time"],
        "toolExecutionFinished": {"turn": 1, "result": {"callId": "x", "status": 3}},
    }
    path = HERE / "refused_tool_after_end.json"
    if not path.exists():
        path.write_text(json.dumps([*broken, extra], indent=1) + "\n")


asyncio.run(_main())
