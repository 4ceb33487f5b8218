"""Which tools there are: registered, replaced, listed, scoped, kept apart between tenants and runs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from behest.chat.v1 import chat_pb2
from behest.tool.v1 import tool_pb2
from behest.tool.v1 import tool_service_pb2 as pb
from chassis.faults import PageTokenInvalid, RequestInvalid, ToolInvalid, ToolNotFound, ToolsExhausted
from chassis.sqlite import open_sqlite
from chassis.world import SystemClock
from kit.executor import ExecutorClient, call, database_for, open_executor, tenant
from kit.postgres import fresh_database
from tool_executor.adapters.functions.load import Timeouts, load_functions
from tool_executor.adapters.json_schemas import JsonSchemas
from tool_executor.adapters.memory_registrations import MemoryRegistrations
from tool_executor.adapters.postgres import open_postgres_storage
from tool_executor.adapters.sqlite_registrations import SqliteRegistrations
from tool_executor.adapters.sqlite_schema import MIGRATIONS
from tool_executor.domain.tool import Scope
from tool_executor.operations.ports import Registrations
from tool_executor.operations.registry import Bounds, Registry
from tool_executor.operations.tools import RUN_IDLE_SECONDS, Registration, Tools

ECHO = "kit.sample_tools:echo"
APPEND = "kit.sample_tools:append_line"


@pytest.fixture
async def executor() -> AsyncIterator[ExecutorClient]:
    async with open_executor(functions=(ECHO, "kit.sample_tools:append_line", "builtin:time", "builtin:calculator")) as client:
        yield client


def tool(name: str = "echo", agent: str = "", run_id: str = "", description: str = "", **fields: Any) -> tool_pb2.Tool:
    definition = chat_pb2.ToolDefinition(
        name=name, description=description or f"{name} of {agent}{run_id}", parameters=fields.pop("parameters", b"")
    )
    return tool_pb2.Tool(
        function=fields.pop("function", ECHO), definition=definition, scope=tool_pb2.ToolScope(agent=agent, run_id=run_id), **fields
    )


async def register(executor: ExecutorClient, added: tool_pb2.Tool) -> pb.RegisterToolResponse:
    response: pb.RegisterToolResponse = await executor.stub.RegisterTool(pb.RegisterToolRequest(tool=added))
    return response


async def names(executor: ExecutorClient, **query: Any) -> list[str]:
    return [t.definition.name for t in (await executor.stub.ListTools(pb.ListToolsRequest(**query))).tools]


async def description(executor: ExecutorClient, name: str, agent: str = "", run_id: str = "") -> str:
    scope = tool_pb2.ToolScope(agent=agent, run_id=run_id)
    return (await executor.stub.GetTool(pb.GetToolRequest(name=name, scope=scope))).tool.definition.description


@pytest.mark.feature("T3")
async def test_the_operators_functions_are_listed_sorted_and_complete(executor: ExecutorClient) -> None:
    assert await names(executor) == ["append_line", "calculator", "echo", "time"]
    got = (await executor.stub.GetTool(pb.GetToolRequest(name="append_line"))).tool
    assert got.function == "kit.sample_tools:append_line" and got.timeout_ms == 30_000 and got.version
    said = {field.name: value for field, value in got.traits.ListFields()}
    careful = {"destructive": True, "open_world": True}
    assert said == {**dict.fromkeys(("read_only", "idempotent", "concurrency_safe", "long_running"), False), **careful}


@pytest.mark.feature("T3")
async def test_a_registered_tool_can_be_called_at_once_and_is_gone_once_unregistered(executor: ExecutorClient) -> None:
    schema = b'{"type": "object", "properties": {"value": {"const": 7}}, "required": ["value"]}'
    response = await register(executor, tool("seven", parameters=schema, timeout_ms=1500))
    assert not response.replaced and response.tool.traits.read_only and response.tool.timeout_ms == 1500
    assert (await executor.run("seven", '{"value": 7}')).content == "7"
    assert (await executor.run("seven", '{"value": 8}')).status == tool_pb2.EXECUTION_STATUS_ARGUMENTS_INVALID
    await executor.stub.UnregisterTool(pb.UnregisterToolRequest(name="seven"))
    assert (await executor.run("seven", '{"value": 7}')).status == tool_pb2.EXECUTION_STATUS_TOOL_NOT_FOUND


@pytest.mark.feature("T3")
async def test_registering_again_replaces_and_changes_the_version(executor: ExecutorClient) -> None:
    first = await register(executor, tool("mine", description="one"))
    second = await register(executor, tool("mine", description="two"))
    assert second.replaced and first.tool.version != second.tool.version
    assert await description(executor, "mine") == "two"


@pytest.mark.feature("T3")
async def test_lists_are_filtered_and_paged_and_a_token_belongs_to_its_query(executor: ExecutorClient) -> None:
    for number in range(25):
        await register(executor, tool(f"tool-{number:02}"))
    assert await names(executor, names=["time", "nothing", "echo"]) == ["echo", "time"]
    seen: list[str] = []
    token = ""
    while True:
        page = await executor.stub.ListTools(pb.ListToolsRequest(name_prefix="tool-", page_size=10, page_token=token))
        seen += [t.definition.name for t in page.tools]
        token = page.next_page_token
        if not token:
            break
        with pytest.raises(PageTokenInvalid):
            await names(executor, name_prefix="other", page_token=token)
    assert seen == [f"tool-{number:02}" for number in range(25)]
    for bad in ("nonsense", "é", "AAAA"):
        with pytest.raises(PageTokenInvalid):
            await names(executor, page_token=bad)
    with pytest.raises(RequestInvalid, match="page_size"):
        await names(executor, page_size=1001)


@pytest.mark.feature("T15")
async def test_inner_scopes_shadow_outer_ones(executor: ExecutorClient) -> None:
    for added in (tool("echo"), tool("echo", agent="a"), tool("echo", run_id="r")):
        await register(executor, added)
    assert await description(executor, "echo") == "echo of "
    assert await description(executor, "echo", agent="b", run_id="s") == "echo of "
    assert await description(executor, "echo", agent="a") == "echo of a"
    assert await description(executor, "echo", agent="a", run_id="r") == "echo of r"
    await executor.stub.UnregisterTool(pb.UnregisterToolRequest(name="echo", scope=tool_pb2.ToolScope(run_id="r")))
    assert await description(executor, "echo", agent="a", run_id="r") == "echo of a"
    await executor.stub.UnregisterTool(pb.UnregisterToolRequest(name="echo"))
    assert await description(executor, "echo", run_id="r") == "Get the value back."


@pytest.mark.feature("T15")
async def test_concurrent_runs_do_not_see_each_others_tools(executor: ExecutorClient) -> None:
    for run_id in ("r1", "r2"):
        schema = json.dumps({"type": "object", "properties": {"value": {"const": run_id}}, "required": ["value"]}).encode()
        await register(executor, tool("mine", run_id=run_id, parameters=schema))
    right = [await executor.batch(call("1", "mine", json.dumps({"value": r})), run_id=r) for r in ("r1", "r2")]
    wrong = [await executor.batch(call("2", "mine", json.dumps({"value": r})), run_id=o) for r, o in (("r1", "r2"), ("r2", "r1"))]
    assert [r["1"].content for r in right] == ["r1", "r2"]
    assert {r["2"].status for r in wrong} == {tool_pb2.EXECUTION_STATUS_ARGUMENTS_INVALID}
    assert (await executor.batch(call("3", "mine"), run_id="r3"))["3"].status == tool_pb2.EXECUTION_STATUS_TOOL_NOT_FOUND


@pytest.mark.feature("T15")
async def test_tenants_do_not_see_each_others_tools(executor: ExecutorClient) -> None:
    with tenant("one"):
        await register(executor, tool("mine"))
    with tenant("two"):
        assert "mine" not in await names(executor)
        with pytest.raises(ToolNotFound):
            await executor.stub.UnregisterTool(pb.UnregisterToolRequest(name="mine"))
    with tenant("one"):
        assert "mine" in await names(executor)


async def test_the_operators_tools_cannot_be_unregistered(executor: ExecutorClient) -> None:
    with pytest.raises(ToolNotFound, match=r"tool_executor\.functions"):
        await executor.stub.UnregisterTool(pb.UnregisterToolRequest(name="time"))


@pytest.mark.feature("T3")
@pytest.mark.parametrize(
    ("added", "fault", "field"),
    [
        (tool(function=""), RequestInvalid, "tool.function"),
        (tool(function="os:system"), ToolInvalid, "tool.function"),
        (tool("no spaces"), ToolInvalid, "tool.definition.name"),
        (tool("x" * 65), ToolInvalid, "tool.definition.name"),
        (tool(description="x" * 9000), ToolInvalid, "tool.definition.description"),
        (tool(parameters=b"{"), ToolInvalid, "tool.definition.parameters"),
        (tool(parameters=b"[]"), ToolInvalid, "tool.definition.parameters"),
        (tool(parameters=b'{"type": "array"}'), ToolInvalid, "tool.definition.parameters"),
        (tool(parameters=b'{"$ref": "http://127.0.0.1:1/"}'), ToolInvalid, "tool.definition.parameters"),
        (tool(parameters=b'{"a":' * 100 + b"1" + b"}" * 100), ToolInvalid, "tool.definition.parameters"),
        (tool(parameters=b'{"description": "' + b"x" * 65536 + b'"}'), ToolInvalid, "tool.definition.parameters"),
        (tool(result_schema=b"7"), ToolInvalid, "tool.result_schema"),
        (tool(timeout_ms=-1), ToolInvalid, "tool.timeout_ms"),
        (tool(timeout_ms=10**12), ToolInvalid, "tool.timeout_ms"),
        (tool(agent="a", run_id="r"), RequestInvalid, "tool.scope"),
        (tool(run_id="r" * 257), RequestInvalid, "scope.run_id"),
        (tool(traits=tool_pb2.ToolTraits(destructive=True)), ToolInvalid, "tool.traits.destructive"),
        (
            tool(function="kit.sample_tools:append_line", traits=tool_pb2.ToolTraits(read_only=True)),
            ToolInvalid,
            "tool.traits.read_only",
        ),
    ],
)
async def test_a_malformed_tool_is_refused_by_field(executor: ExecutorClient, added: tool_pb2.Tool, fault: type, field: str) -> None:
    with pytest.raises(fault) as caught:
        await register(executor, added)
    assert [violation.field for violation in caught.value.violations] == [field] and field in caught.value.message


@pytest.mark.feature("T3")
async def test_a_tenants_tools_are_bounded_and_replacing_needs_no_room() -> None:
    async with open_executor(functions=(ECHO,), max_tools_per_tenant=2) as executor:
        await register(executor, tool("one"))
        await register(executor, tool("two"))
        with pytest.raises(ToolsExhausted, match="unregister some"):
            await register(executor, tool("three"))
        await register(executor, tool("two"))
        with tenant("other"):
            await register(executor, tool("three"))
        await executor.stub.UnregisterTool(pb.UnregisterToolRequest(name="one"))
        await register(executor, tool("three"))


@pytest.mark.feature("T3")
@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
async def test_registered_tools_outlive_the_process_and_are_shared_with_other_executors(kind: str, tmp_path: Path) -> None:
    async with database_for(kind, tmp_path) as database:
        await register_here_and_there(database)


async def register_here_and_there(database: str) -> None:
    added = tool("mine", agent="a", parameters=b'{"type": "object"}', timeout_ms=1234, result_schema=b'{"type": "integer"}')
    async with (
        open_executor(functions=(ECHO, APPEND), database=database) as first,
        open_executor(functions=(ECHO,), database=database) as second,
    ):
        registered = (await register(first, added)).tool
        await register(first, tool("other", function=APPEND))
        scope = tool_pb2.ToolScope(agent="a")
        async with asyncio.timeout(5):
            while await names(second, scope=scope) != ["echo", "mine"]:  # "other" stands for a function that the second one does not have
                await asyncio.sleep(0.02)
        await second.stub.UnregisterTool(pb.UnregisterToolRequest(name="other"))
        with pytest.raises(ToolNotFound):
            await first.stub.UnregisterTool(pb.UnregisterToolRequest(name="other"))
    async with open_executor(functions=(ECHO, APPEND), database=database) as third:
        assert (await third.stub.GetTool(pb.GetToolRequest(name="mine", scope=scope))).tool == registered
        assert await names(third) == ["append_line", "echo"]


@dataclass
class Wound(SystemClock):
    """A clock that is wound by hand."""

    at: float = 0.0

    def now(self) -> float:
        return self.at


@pytest.fixture(params=["memory", "sqlite", "postgres"])
async def registrations(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Registrations]:
    if request.param == "memory":
        yield MemoryRegistrations()
        return
    if request.param == "postgres":
        async with fresh_database("tool_executor") as url, open_postgres_storage(lambda: url) as storage:
            yield storage.registrations
        return
    async with open_sqlite(str(tmp_path / "tools.db"), MIGRATIONS) as database:
        yield SqliteRegistrations(database)


@pytest.mark.feature("T15")
async def test_the_tools_of_a_run_that_nobody_asks_for_are_forgotten(registrations: Registrations) -> None:
    clock = Wound()
    registry = Registry(load_functions([ECHO], Timeouts()), JsonSchemas(), Bounds())
    tools = Tools(registry, registrations, clock, 3600.0)
    for run_id in ("used", "idle"):
        await tools.register("t", Registration(ECHO, "mine", scope=Scope(run_id=run_id)))
    await tools.register("t", Registration(ECHO, "kept"))
    clock.at = RUN_IDLE_SECONDS - 1
    assert registry.look_up("t", "mine", Scope(run_id="used"))
    assert await tools.expire() == 0
    clock.at = RUN_IDLE_SECONDS + 1
    assert await tools.expire() == 1
    await tools.refresh()
    assert registry.look_up("t", "mine", Scope(run_id="idle")) is None
    assert registry.look_up("t", "mine", Scope(run_id="used")) and registry.look_up("t", "kept", Scope())


async def test_every_change_of_registrations_changes_their_version(registrations: Registrations) -> None:
    own = load_functions([ECHO], Timeouts())[0].tool
    versions = [await registrations.version()]
    for change in (
        lambda: registrations.save("t", own, 1.0),
        lambda: registrations.save("t", own, 2.0),
        lambda: registrations.remove("t", own.name, own.scope),
    ):
        await change()
        versions.append(await registrations.version())
    assert len(set(versions)) == 4
    assert not await registrations.remove("t", own.name, own.scope) and await registrations.expire(9.0) == 0
    assert await registrations.version() == versions[-1]
    assert await registrations.load() == (versions[-1], [])
