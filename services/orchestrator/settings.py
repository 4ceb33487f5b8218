"""The orchestrator's settings: the section `orchestrator` of the configuration file."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chassis.tenants import TenantName

Positive = Annotated[int, Field(gt=0)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitSettings(_Section):
    """What one run may consume. Unset: the default."""

    max_iterations: Positive | None = Field(None, description="model calls that start a new turn; default 10")
    max_total_tokens: Positive | None = Field(None, description="input and output tokens together; default 1000000")
    max_cost_nano_usd: Positive | None = Field(None, description="billionths of a US dollar; default 10000000000")
    max_wall_ms: Positive | None = Field(None, description="milliseconds from creation to end; default 600000")
    max_tool_calls: Positive | None = Field(None, description="tool calls; default 100")
    max_continuations: Annotated[int, Field(ge=-1)] | None = Field(None, description="continuations of a cut answer; -1 none; default 3")


class HistorySettings(_Section):
    """How much of a session's history the model sees."""

    max_messages: Annotated[int, Field(gt=0, le=1000)] | None = Field(None, description="the newest messages; default 50")
    max_tokens: Positive | None = Field(None, description="the newest tokens, by estimate; default 64000")


class SamplingSettings(_Section):
    """How to draw answers. Unset: the provider's default."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = Field(None, description="randomness")
    top_p: Annotated[float, Field(ge=0, le=1)] | None = Field(None, description="nucleus mass")
    max_output_tokens: Positive | None = Field(None, description="the most tokens of one answer")
    stop: list[str] = Field(default_factory=list, max_length=16, description="texts that end the answer")
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = Field(None, description="how much to think")
    seed: int | None = Field(None, description="a seed for providers that take one")


class PermissionSettings(_Section):
    """A rule for calls of tools."""

    tool: Annotated[str, Field(min_length=1)] = Field(description="the tool's name; a trailing * matches a prefix")
    action: Literal["allow", "deny", "ask"] = Field(description="run it, refuse it, or wait for people to approve it")
    destructive_only: bool = Field(False, description="only for tools that may destroy something, as their traits say")
    approvals_needed: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="ask: how many different people must approve; default 1"
    )
    expires_ms: Positive | None = Field(None, description="ask: milliseconds until an undecided call counts as denied; default 86400000")


class AgentSettings(_Section):
    """One agent."""

    description: str = Field("", description="what it is for")
    mode: Literal["primary", "subagent"] = Field("primary", description="who may give it orders")
    instructions: str = Field("", description="the system text")
    model: str = Field("", description="provider/model or an alias; empty: the gateway's default")
    fallback_models: list[str] = Field(default_factory=list, description="models to try when the first cannot serve")
    tools: list[str] = Field(default_factory=list, description="tools it may call; a trailing * matches a prefix")
    context: list[str] = Field(default_factory=list, description="static system parts after the instructions")
    sampling: SamplingSettings = Field(default_factory=SamplingSettings, description="how to draw its answers")
    limits: LimitSettings = Field(default_factory=LimitSettings, description="what its runs may consume")
    history: HistorySettings = Field(default_factory=HistorySettings, description="how much history it sees")
    output_schema: dict[str, Any] | None = Field(None, description="JSON Schema of its answers")
    loop_exempt_tools: list[str] = Field(default_factory=list, description="tools that may repeat, such as polling tools")
    permissions: list[PermissionSettings] = Field(
        default_factory=list,
        max_length=1000,
        description="rules for calls of its tools; the last that matches counts",
    )
    hidden: bool = Field(False, description="left out of lists")


class NeighbourSettings(_Section):
    """How a neighbour is reached."""

    target: str = Field(description="host:port; a name stands for all its addresses: every replica that it has is used, new ones too")
    carrier: Literal["grpc", "mux"] = Field("mux", description="grpc: a call each; mux: many calls on one stream")
    streams: Annotated[int, Field(ge=1, le=64)] = Field(
        1,
        description="mux: at least so many streams, and one to each address; more than 1 where one address stands for all replicas",
    )


def _at(port: int) -> NeighbourSettings:
    return NeighbourSettings(target=f"127.0.0.1:{port}")


class NeighboursSettings(_Section):
    """The services that the orchestrator calls."""

    provider_gateway: NeighbourSettings = Field(default_factory=lambda: _at(50052), description="where models are called")
    tool_executor: NeighbourSettings = Field(default_factory=lambda: _at(50053), description="where tools are run")
    session_store: NeighbourSettings = Field(default_factory=lambda: _at(50054), description="where runs are kept")


class CommandsSettings(_Section):
    """Commands from Kafka: kafka.topics.commands names their topic."""

    enabled: bool = Field(False, description="whether to carry them out; whoever may write to the topic can then start runs")
    group: Annotated[str, Field(min_length=1, max_length=249)] = Field(
        "behest-orchestrator", description="the consumer group of all replicas"
    )
    tenants: list[TenantName] = Field(default_factory=list, description="whose commands are carried out; empty: any tenant's")
    max_in_flight: Annotated[int, Field(gt=0, le=1000)] = Field(16, description="commands carried out at once by this process")


def _default_agents() -> dict[str, AgentSettings]:
    text = "You are a helpful assistant. Use the tools you have when they help, and answer briefly."
    return {
        "assistant": AgentSettings(description="answers, tells the time and calculates", instructions=text, tools=["time", "calculator"])
    }


class OrchestratorSettings(_Section):
    """Everything the orchestrator can be told."""

    listen: str = Field("127.0.0.1:50051", description="host:port to listen on")
    neighbours: NeighboursSettings = Field(default_factory=NeighboursSettings, description="the services it calls")
    agents: dict[str, AgentSettings] = Field(default_factory=_default_agents, description="who can be given orders, by name")
    default_agent: str = Field("", description="the agent of runs that name none; empty: the first configured")
    max_runs: Positive = Field(256, description="runs driven at once by this process; more wait in the store")
    neighbour_patience_s: Annotated[float, Field(gt=0)] = Field(
        60.0, description="seconds to wait for a neighbour that is away, per effect"
    )
    commands: CommandsSettings = Field(default_factory=CommandsSettings, description="commands from Kafka")
