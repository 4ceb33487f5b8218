"""The arguments and options that several commands share, as typer reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

Target = Annotated[
    str | None, typer.Option(help="The suite's host:port, also BEHEST_TARGET. Without it: 127.0.0.1:50051, else one in this process.")
]
Tenant = Annotated[str, typer.Option(help="Whose runs and sessions.")]
Json = Annotated[bool | None, typer.Option("--json/--no-json", help="One JSON object per line. Default: unless a person reads.")]
Data = Annotated[Path, typer.Option(envvar="BEHEST_DATA", help="Where a suite in this process keeps its database.")]
Config = Annotated[Path | None, typer.Option(envvar="BEHEST_CONFIG", help="The settings file. Default: behest.yaml when it is there.")]
LocalModel = Annotated[
    bool | None,
    typer.Option(
        "--local-model/--no-local-model", help="Serve a small model from this machine. Default: when installed and nothing else is set up."
    ),
]
Model = Annotated[str, typer.Option(help="The model: provider/model or an alias. Default: the agent's.")]
Agent = Annotated[str, typer.Option(help="The agent. Default: the default agent.")]
Session = Annotated[str, typer.Option(help="The session to go on with. Default: a new one.")]
OnBusy = Annotated[
    Literal["reject", "queue", "interrupt", "fork"],
    typer.Option(help="When the session has a run under way: refuse, wait behind it, stop it and wait, or go on in a copy of the session."),
]
Priority = Annotated[Literal["low", "normal", "high"], typer.Option(help="How early it gets a driver when runs wait for one.")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")]

DEFAULT_DATA = Path(".data")
