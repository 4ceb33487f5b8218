"""The commands and their options, as typer reads them. What they do is in the modules they import when they run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from suite.cli.approval_commands import approvals, approve, deny
from suite.cli.options import (
    DEFAULT_DATA,
    Agent,
    Config,
    Data,
    Json,
    Limit,
    LocalModel,
    Model,
    OnBusy,
    Priority,
    Session,
    Target,
    Tenant,
)
from suite.cli.reach import Where


def _exit(code: int, **_: object) -> None:
    raise typer.Exit(int(code))


app = typer.Typer(
    name="behest",
    help="Runs AI agents: orders in words, carried out with models and tools, every step on record.",
    epilog="Exit codes: 0 done, 1 the run or command failed, 2 usage or settings, 3 no suite reached, 4 not found, 130 interrupted.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    result_callback=_exit,
)


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"behest {version('behest')}")
        raise typer.Exit


@app.callback()
def behest(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None:
    """The options that come before a command."""


@app.command()
def up(
    port_base: Annotated[int | None, typer.Option(min=1024, max=65532, help="The first of four ports [50051].")] = None,
    data: Data = DEFAULT_DATA,
    config: Config = None,
    local_model: LocalModel = None,
    processes: Annotated[bool, typer.Option("--processes", help="One supervised process per service.")] = False,
) -> int:
    """Run the four services until Ctrl-C."""
    from suite.cli.up import run_up
    from suite.composition import SuiteOptions

    return run_up(SuiteOptions(data, config, port_base, local_model), processes=processes)


@app.command()
def chat(
    model: Model = "",
    agent: Agent = "",
    session: Session = "",
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    local_model: LocalModel = None,
    json: Json = None,
) -> int:
    """Talk with an agent; Ctrl-C stops the answer. With standard input from a pipe: one order, one answer."""
    from suite.cli.ordering import Order, run_chat

    order = Order(model=model, agent=agent, session=session)
    return run_chat(Where(target, tenant, data, config, order.local_model(local_model), asks_model=not model), order, json)


@app.command()
def run(
    order: Annotated[str, typer.Argument(help="What is asked. Without it, or as -, standard input.")] = "-",
    model: Model = "",
    agent: Agent = "",
    session: Session = "",
    tool: Annotated[str, typer.Option(help="The tool that the first model call must use.")] = "",
    on_busy: OnBusy = "reject",
    priority: Priority = "normal",
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    local_model: LocalModel = None,
    json: Json = None,
) -> int:
    """Give one order and show how it is carried out."""
    from suite.cli.ordering import Order, run_order

    given = Order(order, model=model, agent=agent, session=session, tool=tool, on_busy=on_busy, priority=priority)
    return run_order(Where(target, tenant, data, config, given.local_model(local_model), asks_model=not model), given, json)


@app.command()
def watch(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    after: Annotated[int, typer.Option("--from", min=0, max=2**63 - 1, help="The last sequence already seen.")] = 0,
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """Show a run's events, past ones and then those that happen."""
    from suite.cli.listing import run_watch

    return run_watch(Where(target, tenant, data, config), run, after, json)


@app.command()
def runs(
    session: Annotated[str, typer.Option(help="Only this session's.")] = "",
    limit: Limit = 20,
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """List runs, newest first."""
    from suite.cli.listing import run_runs

    return run_runs(Where(target, tenant, data, config), session, limit, json)


@app.command()
def sessions(
    session: Annotated[str, typer.Argument(help="A session's id, to see its messages.")] = "",
    limit: Limit = 20,
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """List sessions, newest first, or show one."""
    from suite.cli.listing import run_session, run_sessions

    where = Where(target, tenant, data, config)
    return run_session(where, session, json) if session else run_sessions(where, limit, json)


@app.command()
def stats(
    session: Annotated[str, typer.Option(help="Only this session's runs.")] = "",
    run: Annotated[str, typer.Option(help="Only this run.")] = "",
    by_day: Annotated[bool, typer.Option("--by-day", help="One line for each day, in UTC.")] = False,
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """Sum up what runs did: turns, tools, tokens, money, time. Deleted sessions go on counting."""
    from suite.cli.counting import run_stats

    return run_stats(Where(target, tenant, data, config), session, run, json, by_day=by_day)


@app.command()
def delete(
    session: Annotated[str, typer.Argument(help="The session's id.")],
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """Delete a session with its messages, runs, logs, and what its tools did."""
    from suite.cli.transfer import run_delete

    return run_delete(Where(target, tenant, data, config), session, json)


@app.command()
def export(
    session: Annotated[str, typer.Argument(help="The session's id.")],
    output: Annotated[Path | None, typer.Option(help="The file to write. Default: the session's id with .behest.")] = None,
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """Write a session as one portable file, for any suite to import."""
    from suite.cli.transfer import run_export

    return run_export(Where(target, tenant, data, config), session, output, json)


@app.command(name="import")
def import_(
    file: Annotated[Path, typer.Argument(help="A file that `export` wrote.")],
    session: Annotated[str, typer.Option(help="Import a copy under this id; its runs get new ids too.")] = "",
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """Take an exported session in, whole or not at all."""
    from suite.cli.transfer import run_import

    return run_import(Where(target, tenant, data, config), file, session, json)


@app.command()
def backup(
    folder: Annotated[Path, typer.Argument(help="A new or empty folder to write the copies to.")],
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """Copy the SQLite databases while they are in use. For PostgreSQL use pg_dump."""
    from suite.cli.backup import run_backup

    return run_backup(data, config, folder, json)


@app.command()
def cancel(
    run: Annotated[str, typer.Argument(help="The run's id.")],
    reason: Annotated[str, typer.Option(help="Why, for the record.")] = "",
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """Ask a run to stop."""
    from suite.cli.listing import run_cancel

    return run_cancel(Where(target, tenant, data, config), run, reason, json)


app.command()(approvals)
app.command()(approve)
app.command()(deny)


@app.command()
def tools(target: Target = None, tenant: Tenant = "default", data: Data = DEFAULT_DATA, config: Config = None, json: Json = None) -> int:
    """List the tools that agents can be given."""
    from suite.cli.listing import run_tools

    return run_tools(Where(target, tenant, data, config), json)


@app.command()
def models(
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    local_model: LocalModel = None,
    json: Json = None,
) -> int:
    """List the models, and what keeps others from being called."""
    from suite.cli.listing import run_models

    return run_models(Where(target, tenant, data, config, local_model), json)


@app.command()
def budgets(target: Target = None, tenant: Tenant = "default", data: Data = DEFAULT_DATA, config: Config = None, json: Json = None) -> int:
    """List the budgets of the tenant and how much of each is used."""
    from suite.cli.listing import run_budgets

    return run_budgets(Where(target, tenant, data, config), json)


@app.command()
def agents(target: Target = None, tenant: Tenant = "default", data: Data = DEFAULT_DATA, config: Config = None, json: Json = None) -> int:
    """List the agents."""
    from suite.cli.listing import run_agents

    return run_agents(Where(target, tenant, data, config), json)


@app.command()
def doctor(
    port_base: Annotated[int, typer.Option(min=1024, max=65532, help="The first of the four ports.")] = 50051,
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """Check ports, settings, keys, storage and the model; say what to do."""
    from suite.cli.doctor import run_doctor

    return run_doctor(port_base, data, config, json)


@app.command()
def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only tell: exit code 0 when all are up to date, 1 when one is behind or ahead.")
    ] = False,
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """Bring the databases in PostgreSQL to this version's schema. SQLite migrates itself at start."""
    from suite.cli.migrate import run_migrate

    return run_migrate(data, config, json, check=check)


@app.command()
def demo(data: Annotated[Path | None, typer.Option(help="Where to keep the demo's database. Default: .data/demo.")] = None) -> int:
    """Show a suite at work, without a key and without a network."""
    from suite.demo import run_demo

    return run_demo(data)


topics = typer.Typer(help="Kafka's topics.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(topics, name="topics")


@topics.callback()
def _topics() -> None:
    """Kafka's topics."""


@topics.command()
def apply(
    check: Annotated[bool, typer.Option("--check", help="Create nothing; only compare.")] = False,
    config: Config = None,
    json: Json = None,
) -> int:
    """Create the topics that are missing, and say how the others differ from the settings. Nothing is changed or deleted."""
    from suite.cli.topics import run_topics

    return run_topics(config, check, json)


def invoke(argv: Sequence[str] | None = None) -> int:
    """Runs the command that argv names; returns the exit code and prints every failure as one message."""
    from chassis.faults import Fault
    from suite.cli.outcome import Exit, exit_of, message_of, tell

    if broken := next((argument for argument in argv or sys.argv[1:] if not _is_text(argument)), None):
        tell(f"error: the argument {broken!a} is not UTF-8 text; convert it first")
        return Exit.USAGE
    try:
        app(args=None if argv is None else list(argv), prog_name="behest")
    except SystemExit as end:
        return int(end.code or 0)
    except Fault as fault:
        tell(message_of(fault))
        return exit_of(fault)
    except OSError as error:  # storage and networks are faults by now: what is left is the output
        tell(f"error: the output cannot be written: {error.strerror or error}; make room or write elsewhere")
        return Exit.FAILED
    except Exception as error:
        if os.environ.get("BEHEST_TRACEBACK"):
            raise
        tell(f"error: behest itself failed: {type(error).__name__}: {error}; set BEHEST_TRACEBACK=1 to see where, and report it")
        return Exit.FAILED
    return Exit.OK


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8 come as halves of characters
        return False
    return True
