"""The settings of the tool executor. See services/tool_executor/README.md for an example."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from chassis.database import Database


class ToolExecutorSettings(BaseModel):
    """Which tools there are, where executions are remembered, and the limits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: Annotated[str, Field(description="host:port to listen on, such as 127.0.0.1:50053")] = "127.0.0.1:50053"
    database: Annotated[
        Database,
        Field(
            description="where executions are remembered: sqlite:PATH, memory:, or for replicas postgresql://user:password@host:5432/name"
        ),
    ] = Database("sqlite:behest.db")
    durability: Annotated[
        Literal["full", "normal"],
        Field(description="full survives a power cut, normal only a killed process"),
    ] = "full"
    functions: Annotated[
        tuple[str, ...],
        Field(
            description="functions offered as tools: builtin:time, package.module:function, path/to/file.py:function, or …:* for all marked"
        ),
    ] = ("builtin:time", "builtin:calculator")
    timeout_ms: Annotated[int, Field(gt=0, description="milliseconds one call may take when its tool says nothing")] = 30_000
    max_timeout_ms: Annotated[int, Field(gt=0, description="milliseconds that a tool may ask for at most")] = 3_600_000
    parallel_calls: Annotated[
        int, Field(ge=1, le=64, description="calls of one batch that run at once, when they are concurrency-safe")
    ] = 4
    max_executions: Annotated[int, Field(ge=1, description="executions under way at once in this process")] = 1024
    threads: Annotated[int, Field(ge=1, le=1024, description="threads for functions that are not async")] = 32
    output_max_bytes: Annotated[int, Field(ge=1024, description="bytes of a result that the model reads; the middle is cut out")] = (
        50 * 1024
    )
    output_max_lines: Annotated[int, Field(ge=3, description="lines of a result that the model reads")] = 2000
    retention_days: Annotated[float, Field(gt=0, description="days after which executions are forgotten")] = 7
    publish_content: Annotated[
        bool, Field(description="whether executions published to Kafka hold arguments and results, not only what ran and how it ended")
    ] = False
    max_tools_per_tenant: Annotated[int, Field(ge=0, description="tools that one tenant may register")] = 1000
    drain_ms: Annotated[
        int, Field(ge=0, description="milliseconds that executions under way get to end when the process is told to stop")
    ] = 10_000
