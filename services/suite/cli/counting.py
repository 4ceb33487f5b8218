"""`behest stats`: what runs came to."""

from __future__ import annotations

from collections.abc import Sequence

from behest.session.v1 import session_pb2 as session_pb
from suite import timeline
from suite.cli.listing import with_client
from suite.cli.outcome import Exit
from suite.cli.output import Column, Output
from suite.cli.reach import Where
from suite.client import Behest

STATES = ("queued", "running", "awaiting_approval", "completed", "failed", "cancelled")
DAYS = [
    Column("day", whole=True),
    *(Column(name, True, True) for name in ("runs", "failed", "turns", "tools", "failed tools", "tokens", "cost")),
]


def run_stats(where: Where, session: str, run: str, json: bool | None, *, by_day: bool) -> Exit:
    """Sums of the tenant, a session or a run; by day, one row for each."""

    async def show(client: Behest, output: Output) -> Exit:
        found = await client.statistics(session, run, by_day=by_day)
        if output.json:
            for day in found.days:
                output.message(day)
            if not by_day:
                output.message(found.total)
        elif by_day:
            output.table(DAYS, [_cells(day) for day in found.days], empty="no runs yet")
        else:
            _show(output, found.total)
        return Exit.OK

    return with_client(where, show, json)


def _cells(day: session_pb.DayStatistics) -> Sequence[str]:
    sums = day.statistics
    counts = (sums.runs, sums.runs_failed, sums.turns, sums.tool_executions, sums.tool_failures)
    return (day.day, *map(str, counts), timeline.tokens_of(sums.usage_total), timeline.cost_of(sums.usage_total))


def _show(output: Output, sums: session_pb.Statistics) -> None:
    states = [(name.replace("_", " "), getattr(sums, f"runs_{name}")) for name in STATES]
    split = ", ".join(f"{count} {name}" for name, count in states if count)
    output.line(f"runs      {sums.runs}{f' ({split})' if split else ''}, {_seconds(sums.run_ms)} under way")
    output.line(f"turns     {sums.turns}, {sums.messages} messages, {sums.events} events")
    failed = ", ".join(f"{count} {name}" for count, name in ((sums.tool_failures, "failed"), (sums.tool_unknown, "unknown")) if count)
    output.line(f"tools     {sums.tool_executions}{f' ({failed})' if failed else ''}, {_seconds(sums.tool_ms)}")
    for row in sums.usage:
        parts = [f"{row.usage.calls} calls", f"{timeline.tokens_of(row.usage)} tokens", timeline.cost_of(row.usage)]
        output.line(f"{row.provider}/{row.model}: {', '.join(part for part in parts if part)}")


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds / 1000:.1f} s"
