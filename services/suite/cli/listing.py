"""Looking at what a suite holds: runs, sessions, tools, models, agents; and asking a run to stop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Sequence
from time import time as wall_clock
from typing import TypeVar

from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from behest.agent.v1 import agent_pb2 as agent_pb
from behest.chat.v1 import chat_pb2 as chat_pb
from behest.provider.v1 import provider_pb2 as provider_pb
from behest.run.v1 import run_pb2 as run_pb
from behest.session.v1 import session_pb2 as session_pb
from behest.tool.v1 import tool_pb2 as tool_pb
from suite import timeline
from suite.cli.loop import open_loop
from suite.cli.outcome import Exit, command
from suite.cli.output import Column, Output
from suite.cli.reach import Where, reach
from suite.client import ENDED_STATES, Behest
from suite.plain import enum_word, plain

Show = Callable[[Behest, Output], Coroutine[None, None, Exit]]
Item = TypeVar("Item", bound=Message)


def run_watch(where: Where, run_id: str, after: int, json: bool | None) -> Exit:
    """`behest watch`."""

    async def show(client: Behest, output: Output) -> Exit:
        start: float | None = None
        async for event in client.watch(run_id, after=after):
            start = timeline.started_at(event) if start is None else start
            if output.json:
                output.event(event)
            else:
                show_row(output, timeline.row(event, start))
        return Exit.OK

    return with_client(where, show, json)


def show_row(output: Output, row: timeline.Row) -> None:
    """A row of a timeline as text of fixed columns; long details go on below themselves."""
    output.note(timeline_line(row), indent=len(TIMELINE_HEAD) - len(TIMELINE_DETAILS))


def timeline_line(row: timeline.Row) -> str:
    """A row of a timeline as text of fixed columns."""
    tokens = f"  [{row.tokens}]" if row.tokens else ""
    return f"{row.sequence:>8}  {row.at_ms:>+9.1f} ms  {row.kind:<23} {row.details}{tokens}".rstrip()


TIMELINE_DETAILS = "details [tokens read → written]"
TIMELINE_HEAD = f"{'sequence':>8}  {'time':>12}  {'event':<23} {TIMELINE_DETAILS}"


def run_runs(where: Where, session: str, limit: int, json: bool | None) -> Exit:
    """`behest runs`."""
    columns = [
        Column("run", whole=True),
        Column("state", whole=True),
        Column("age", True, True),
        Column("tokens", True, True),
        Column("input"),
    ]

    def cells(run: run_pb.Run) -> Sequence[str]:
        return run.id, state_word(run.state), age(run.created_at), timeline.tokens_of(run.usage), timeline.shortened(run.title)

    async def show(client: Behest, output: Output) -> Exit:
        found = await client.list_runs(session, limit=limit)
        return list_all(output, found, columns, cells, f'no runs yet; start one with `{command()} run "…"`')

    return with_client(where, show, json)


def run_sessions(where: Where, limit: int, json: bool | None) -> Exit:
    """`behest sessions`."""
    columns = [Column("session", whole=True), Column("messages", True, True), Column("changed", True, True), Column("under way and title")]

    def cells(session: session_pb.Session) -> Sequence[str]:
        rest = timeline.shortened(f"{session.active_run_id} {session.title}".strip())
        return session.id, str(session.message_count), age(session.updated_at), rest

    async def show(client: Behest, output: Output) -> Exit:
        return list_all(output, await client.list_sessions(limit), columns, cells, f"no sessions yet; `{command()} chat` begins one")

    return with_client(where, show, json)


def run_session(where: Where, session_id: str, json: bool | None) -> Exit:
    """`behest sessions ID`."""

    async def show(client: Behest, output: Output) -> Exit:
        session, messages = await client.get_session(session_id), await client.messages(session_id)
        if output.json:
            output.object({**_fields(session), "messages": [plain(message) for message in messages]})
            return Exit.OK
        for stored in messages:
            _show_message(output, stored.message)
        usage = (await client.usage(session_id)).total
        cost = timeline.cost_of(usage)
        output.aside(f"{session.id} · {len(messages)} messages · {timeline.tokens_of(usage)} tokens{f' · {cost}' if cost else ''}")
        return Exit.OK

    return with_client(where, show, json)


def _show_message(output: Output, message: chat_pb.Message) -> None:
    speaker = enum_word(chat_pb.Role.DESCRIPTOR, message.role)
    if message.tool_name:
        speaker = f"{speaker} {message.tool_name}{' failed' if message.is_error else ''}"
    output.line(output.bold(speaker))
    text = timeline.text_of(message)
    for line in [*([text] if text else []), *(f"⚙ {timeline.call_text(call)}" for call in message.tool_calls)]:
        output.line(line)
    output.line()


def run_cancel(where: Where, run_id: str, reason: str, json: bool | None) -> Exit:
    """`behest cancel`."""

    async def show(client: Behest, output: Output) -> Exit:
        run = await client.cancel(run_id, reason)
        if output.json:
            output.message(run)
        else:
            output.line(f"{run.id} is {state_word(run.state)}" + ("" if run.state in ENDED_STATES else "; it ends soon"))
        return Exit.OK

    return with_client(where, show, json)


def run_tools(where: Where, json: bool | None) -> Exit:
    """`behest tools`."""
    columns = [Column("tool", whole=True), Column("traits"), Column("what it does")]

    def cells(tool: tool_pb.Tool) -> Sequence[str]:
        traits = [field.name.replace("_", " ") for field, value in tool.traits.ListFields() if value]
        return tool.definition.name, ", ".join(traits), timeline.shortened(tool.definition.description)

    async def show(client: Behest, output: Output) -> Exit:
        return list_all(output, await client.tools(), columns, cells, "no tools; name functions in tool_executor.functions of behest.yaml")

    return with_client(where, show, json)


def run_models(where: Where, json: bool | None) -> Exit:
    """`behest models`."""
    columns = [Column("model", whole=True), Column("context", True), Column("can")]

    def cells(model: provider_pb.Model) -> Sequence[str]:
        able = [field.name.replace("_", " ") for field, value in model.capabilities.ListFields() if value is True]
        return model.name, str(model.capabilities.context_tokens or ""), ", ".join(able)

    async def show(client: Behest, output: Output) -> Exit:
        code = list_all(output, await client.models(), columns, cells, "no model can be called")
        if not output.json:
            for provider in await client.providers():
                if not provider.ready:
                    output.aside(provider.problem)
        return code

    return with_client(where, show, json)


def run_budgets(where: Where, json: bool | None) -> Exit:
    """`behest budgets`."""
    words, numbers = [Column("budget", whole=True), Column("of")], [Column(name, True, True) for name in ("used", "limit", "refills in")]

    def cells(budget: provider_pb.BudgetStatus) -> Sequence[str]:
        scope = ", ".join(budget.scope[cut] for cut in ("tenant", "key", "model") if cut in budget.scope) or "everybody"
        refills = span(budget.resets_at.seconds - int(wall_clock())) if budget.HasField("resets_at") else "never"
        return budget.name, scope, _amount(budget.used + budget.reserved, budget), _amount(budget.limit, budget), refills

    async def show(client: Behest, output: Output) -> Exit:
        found = await client.budgets()
        return list_all(output, found, [*words, *numbers], cells, "no budgets; set some in provider_gateway.budgets of behest.yaml")

    return with_client(where, show, json)


def _amount(value: int, budget: provider_pb.BudgetStatus) -> str:
    if budget.unit == provider_pb.BudgetStatus.UNIT_NANO_USD:
        return f"${value / 1e9:.4f}"
    return f"{value} {enum_word(provider_pb.BudgetStatus.Unit.DESCRIPTOR, budget.unit)}"


def run_agents(where: Where, json: bool | None) -> Exit:
    """`behest agents`."""
    columns = [Column("agent", whole=True), Column("model"), Column("tools"), Column("what it is for")]

    def cells(agent: agent_pb.Agent) -> Sequence[str]:
        return agent.name, agent.model or "the default", ", ".join(agent.tools), timeline.shortened(agent.description)

    async def show(client: Behest, output: Output) -> Exit:
        listed = await client.agents()
        code = list_all(output, listed.agents, columns, cells, "no agents; name some in orchestrator.agents of behest.yaml")
        if listed.default_agent and not output.json:
            output.line(output.dim(f"the default is {listed.default_agent}"))
        return code

    return with_client(where, show, json)


def state_word(state: run_pb.RunState.ValueType) -> str:
    """A run's state in a word."""
    return enum_word(run_pb.RunState.DESCRIPTOR, state).replace("_", " ")


def age(time: Timestamp, now: float | None = None) -> str:
    """How long ago something was, in its largest unit: 40 s, 3 min, 5 h, 12 d."""
    return span(int((now or wall_clock()) - time.seconds))


def span(seconds: int) -> str:
    """A time in its largest unit."""
    seconds = max(0, seconds)
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _fields(message: Message) -> dict[str, object]:
    value = plain(message)
    return value if isinstance(value, dict) else {}


def list_all(output: Output, found: Iterable[Item], columns: Sequence[Column], cells: Callable[[Item], Sequence[str]], empty: str) -> Exit:
    """Shows what was found, as objects or as a table, or the sentence that stands for nothing."""
    if output.json:
        for item in found:
            output.message(item)
    else:
        output.table(columns, [cells(item) for item in found], empty=empty)
    return Exit.OK


def with_client(where: Where, show: Show, json: bool | None) -> Exit:
    """Runs a command with a client of the suite that it wants."""

    async def work() -> Exit:
        async with reach(where) as client:
            return await show(client, Output(json))

    with open_loop() as loop:
        return loop.run(work())
