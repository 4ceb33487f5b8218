"""The commands about approvals and their options, as typer reads them. What they do is in approving.py, imported when they run."""

from __future__ import annotations

from typing import Annotated

import typer

from suite.cli.options import DEFAULT_DATA, Config, Data, Json, Target, Tenant
from suite.cli.reach import Where


def approvals(
    run: Annotated[str, typer.Argument(help="Only this run's.")] = "",
    session: Annotated[str, typer.Option(help="Only this session's.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Also those that were decided, expired or abandoned.")] = False,
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """List tool calls that wait for approval."""
    from suite.cli.approving import run_approvals

    return run_approvals(Where(target, tenant, data, config), run, session, json, everything=everything)


Approval = Annotated[str, typer.Argument(help="The approval's id, as `approvals` lists it.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]
Principal = Annotated[str, typer.Option("--as", help="Who decides. Default: the user who is logged in.")]
Digest = Annotated[str, typer.Option(help="The digest of the arguments that were looked at. Default: of those listed now.")]


def approve(
    approval: Approval,
    reason: Reason = "",
    principal: Principal = "",
    digest: Digest = "",
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """Let a tool call run that waits for approval."""
    from suite.cli.approving import Verdict, run_decide

    return run_decide(Where(target, tenant, data, config), Verdict(approval, True, reason, principal, digest), json)


def deny(
    approval: Approval,
    reason: Annotated[str, typer.Option(help="Why, for the record and for the model.")] = "",
    principal: Principal = "",
    digest: Digest = "",
    target: Target = None,
    tenant: Tenant = "default",
    data: Data = DEFAULT_DATA,
    config: Config = None,
    json: Json = None,
) -> int:
    """Keep a tool call from running that waits for approval."""
    from suite.cli.approving import Verdict, run_decide

    return run_decide(Where(target, tenant, data, config), Verdict(approval, False, reason, principal, digest), json)
