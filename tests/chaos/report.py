"""Says what was found, with the evidence and the command that repeats it; and what was done, so that finding nothing means something."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from behest.tool.v1 import tool_pb2
from chaos.cluster import Shape
from chaos.history import TERMINAL, History, events_of
from chaos.rules import Finding
from chassis.waypoints import POINTS

MOST = 3
"""Findings shown of each rule."""


def command_of(seed: int, duration: float, shape: Shape) -> str:
    """The command that does the same again."""
    kafka = "--kafka" if shape.kafka else "--no-kafka"
    options = f"--backend {shape.backend} {kafka} --replicas {shape.replicas}"
    return f'make chaos DURATION={duration:g} SEED={seed} CHAOS_ARGS="{options}"'


def tell_summary(history: History, faults: Counter[str], reached: Counter[str], codes: Counter[str]) -> None:
    """What was done."""
    ends = Counter(event.WhichOneof("kind") for run_id in history.runs for event in events_of(history, run_id, *TERMINAL))
    resumed = sum(len(events_of(history, run_id, "run_resumed")) for run_id in history.runs)
    print(f"runs        {len(history.runs)}: {_counted(ends)}; taken over {resumed} times")
    print(f"failures    {_counted(_reasons(history)) or 'none'}")
    print(f"tool calls  {_counted(_outcomes(history))}; {sum(i.phase == 'begin' for i in history.invocations)} begun")
    seen = sum(len(stream.events) for stream in history.streams)
    print(
        f"followers   {len(history.streams)} streams, {seen} events; {sum(len(a.events) for a in history.appends)} appended by the player"
    )
    print(f"commands    {_counted(Counter(command.kind for command in history.commands))}")
    print(f"refusals    {_counted(codes)}")
    print(f"faults      {_counted(faults)}")
    missed = sorted(set(POINTS) - set(reached))
    print(f"waypoints   {_counted(reached)}; not reached: {', '.join(missed) or 'none'}")


def tell_findings(findings: Mapping[str, Sequence[Finding]], command: str, folder: Path) -> int:
    """What is wrong; 1 when anything is."""
    for rule, found in findings.items():
        print(f"\nBROKEN: {rule} ({len(found)})")
        for finding in found[:MOST]:
            print(f"  run {finding.run_id or '-'}: {finding.text}")
            for line in finding.evidence:
                print(f"      {line}")
    if not findings:
        print(f"\nno finding; everything is in {folder}")
        return 0
    print(f"\n{sum(map(len, findings.values()))} findings; everything is in {folder}\nrepeat it: {command}")
    return 1


def _counted(counter: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _reasons(history: History) -> Counter[str]:
    return Counter(e.run_failed.fault.reason for run_id in history.runs for e in events_of(history, run_id, "run_failed"))


def _outcomes(history: History) -> Counter[str]:
    finished = (e.tool_execution_finished for run_id in history.runs for e in events_of(history, run_id, "tool_execution_finished"))
    return Counter(tool_pb2.ExecutionStatus.Name(each.result.status).removeprefix("EXECUTION_STATUS_").lower() for each in finished)
