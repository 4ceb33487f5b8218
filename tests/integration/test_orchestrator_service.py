"""The orchestrator's services in a suite in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from behest.agent.v1 import agent_pb2
from behest.agent.v1 import agent_service_pb2 as agent_pb
from behest.agent.v1.agent_service_pb2_grpc import AgentServiceStub
from behest.chat.v1 import chat_pb2
from behest.run.v1 import run_pb2
from behest.run.v1 import run_service_pb2 as pb
from behest.run.v1.run_service_pb2_grpc import RunServiceStub
from chassis.faults import AgentNotFound, RequestInvalid, SessionNotFound
from chassis.rpc import Call, call_scope
from suite.addresses import Service
from suite.client import Behest
from suite.composition import SuiteOptions
from suite.embedded import Suite, open_suite

AGENTS: dict[str, Any] = {
    "clerk": {
        "description": "files things",
        "instructions": "You file things.",
        "context": ["The office is in Lisbon.", "It is closed on Sundays."],
        "tools": ["calculator"],
        "model": "scripted/echo",
        "sampling": {"temperature": 0.5, "reasoning_effort": "low"},
        "limits": {"max_iterations": 3},
        "history": {"max_messages": 4},
    },
    "ghost": {"hidden": True, "model": "scripted/echo"},
}


@pytest.fixture
async def suite(tmp_path: Path) -> AsyncIterator[Suite]:
    config = {
        "log": {"level": "warning"},
        "orchestrator": {"agents": AGENTS},
        "provider_gateway": {"default_model": "scripted/echo", "providers": {"scripted": {"adapter": "scripted"}}},
        "tool_executor": {"database": "memory:"},
        "session_store": {"database": "memory:"},
    }
    path = tmp_path / "behest.yaml"
    path.write_text(yaml.safe_dump(config))
    async with open_suite(SuiteOptions(data=tmp_path, config=path, local_model=False)) as suite:
        yield suite


@pytest.fixture
def runs(suite: Suite) -> RunServiceStub:
    return RunServiceStub(suite.channels[Service.ORCHESTRATOR])


@pytest.fixture
def agents(suite: Suite) -> AgentServiceStub:
    return AgentServiceStub(suite.channels[Service.ORCHESTRATOR])


async def carried_out(client: Behest, text: str, **order: Any) -> tuple[str, list[Any]]:
    handle = await client.run(text, **order)
    return handle.session_id, [event async for event in handle]


@pytest.mark.feature("C1")
@pytest.mark.feature("C9")
async def test_a_preview_shows_the_sources_in_order_with_their_tokens_and_changes_nothing(suite: Suite, runs: RunServiceStub) -> None:
    async with suite.client() as client:
        session_id, _ = await carried_out(client, "first", agent="clerk")
        request = pb.PreviewContextRequest(session_id=session_id, agent="clerk", input=[{"text": "next"}])
        preview = await runs.PreviewContext(request)
        assert [part.text for part in preview.messages[0].parts] == [AGENTS["clerk"]["instructions"], *AGENTS["clerk"]["context"]]
        assert [message.parts[0].text for message in preview.messages[1:]] == ["first", "first", "next"]
        assert [(source.name, source.items) for source in preview.sources] == [
            ("instructions", 1),
            ("static", 2),
            ("history", 3),
            ("tools", 1),
        ]
        assert preview.total_tokens == sum(source.tokens for source in preview.sources) > 0
        assert preview.model == "scripted/echo"
        assert [tool.name for tool in preview.tools] == ["calculator"]
        assert len(await client.messages(session_id)) == 2
        with pytest.raises(SessionNotFound):
            await runs.PreviewContext(pb.PreviewContextRequest(session_id="nowhere"))


@pytest.mark.feature("C2")
async def test_a_long_session_shows_the_model_its_newest_messages_and_says_how_many_it_left_out(suite: Suite) -> None:
    async with suite.client() as client:
        session_id, _ = await carried_out(client, "0", agent="clerk")
        for number in range(1, 5):
            _, events = await carried_out(client, str(number), session_id=session_id, agent="clerk")
        built = [event.context_built for event in events if event.HasField("context_built")]
        assert [source.items for source in built[0].sources if source.name == "history"] == [4]
        assert built[0].dropped_messages == 5


@pytest.mark.feature("E1")
async def test_every_event_carries_run_session_tenant_sequence_time_and_trace(suite: Suite) -> None:
    async with suite.client(tenant="acme") as client:
        session_id, events = await carried_out(client, "hello", agent="clerk")
        for event in events:
            assert (event.session_id, event.tenant, event.run_id) == (session_id, "acme", events[0].run_id)
            assert event.time.seconds > 0
            assert event.traceparent.startswith("00-")
        assert len({event.traceparent.split("-")[1] for event in events}) == 1


@pytest.mark.feature("A1")
@pytest.mark.feature("R19")
async def test_agents_are_listed_with_versions_and_a_run_keeps_the_one_it_began_with(suite: Suite, agents: AgentServiceStub) -> None:
    listed = await agents.ListAgents(agent_pb.ListAgentsRequest())
    assert [agent.name for agent in listed.agents] == ["clerk"]
    assert listed.default_agent == "clerk"
    every = await agents.ListAgents(agent_pb.ListAgentsRequest(include_hidden=True))
    assert [agent.name for agent in every.agents] == ["clerk", "ghost"]
    clerk = (await agents.GetAgent(agent_pb.GetAgentRequest())).agent
    assert clerk.sampling.reasoning_effort == chat_pb2.REASONING_EFFORT_LOW
    assert clerk.mode == agent_pb2.AGENT_MODE_PRIMARY
    async with suite.client() as client:
        _, events = await carried_out(client, "hello")
        assert events[0].run_created.agent.version == clerk.version
    with pytest.raises(AgentNotFound, match="did you mean 'clerk'"):
        await agents.GetAgent(agent_pb.GetAgentRequest(name="clark"))


@pytest.mark.feature("R8")
@pytest.mark.feature("P1")
async def test_overrides_of_an_order_are_in_what_the_run_was_created_with(suite: Suite, runs: RunServiceStub) -> None:
    request = pb.CreateRunRequest(
        input=[{"text": "hi"}],
        sampling={"temperature": 0.1, "stop": ["END"]},
        limits={"max_tool_calls": 7},
        metadata={"team": "blue"},
        tool_choice={"mode": chat_pb2.ToolChoice.MODE_NONE},
    )
    run = (await runs.CreateRun(request)).run
    stream = runs.WatchRun(pb.WatchRunRequest(run_id=run.id))
    created = (await anext(aiter(stream))).events[0].run_created
    assert round(created.agent.sampling.temperature, 3) == 0.1
    assert created.agent.sampling.reasoning_effort == chat_pb2.REASONING_EFFORT_LOW
    assert (created.agent.limits.max_iterations, created.agent.limits.max_tool_calls) == (3, 7)
    assert created.tool_choice.mode == chat_pb2.ToolChoice.MODE_NONE
    assert run.metadata == {"team": "blue"}
    stream.cancel()


@pytest.mark.feature("R2")
@pytest.mark.feature("G2")
@pytest.mark.parametrize(
    ("field", "order"),
    [
        ("request_id", {"request_id": "x" * 129}),
        ("metadata", {"metadata": {str(i): "" for i in range(17)}}),
        ("tool_choice.name", {"tool_choice": {"mode": chat_pb2.ToolChoice.MODE_NAMED}}),
        ("tool_choice.mode", {"tool_choice": {"mode": 99}}),
        ("limits.max_wall_ms", {"limits": {"max_wall_ms": -1}}),
        ("sampling.temperature", {"sampling": {"temperature": 3.0}}),
        ("sampling.temperature", {"sampling": {"temperature": float("nan")}}),
        ("on_busy", {"on_busy": 77}),
        ("input[0]", {"input": [{"reasoning": {"text": "hm"}}]}),
    ],
)
async def test_a_bad_order_is_refused_naming_the_field(runs: RunServiceStub, field: str, order: dict[str, Any]) -> None:
    with pytest.raises(RequestInvalid) as refused:
        await runs.CreateRun(pb.CreateRunRequest(**{"input": [{"text": "hi"}], **order}))
    assert [violation.field for violation in refused.value.violations] == [field]


@pytest.mark.feature("S12")
async def test_tenants_do_not_see_each_others_runs(suite: Suite, runs: RunServiceStub) -> None:
    async with suite.client(tenant="acme") as client:
        _, events = await carried_out(client, "secret")
    with call_scope(Call(tenant="rival")):
        assert list((await runs.ListRuns(pb.ListRunsRequest())).runs) == []
        with pytest.raises(Exception, match=events[0].run_id):
            await runs.GetRun(pb.GetRunRequest(run_id=events[0].run_id))
        stream = runs.WatchTenant(pb.WatchTenantRequest(replay_only=True))
        assert [response async for response in stream] == []


async def test_runs_are_listed_newest_first_in_pages_and_by_state(suite: Suite, runs: RunServiceStub) -> None:
    async with suite.client() as client:
        created = [(await carried_out(client, f"run {i}"))[1][0].run_id for i in range(5)]
    first = await runs.ListRuns(pb.ListRunsRequest(page_size=3))
    second = await runs.ListRuns(pb.ListRunsRequest(page_size=3, page_token=first.next_page_token))
    assert [run.id for run in (*first.runs, *second.runs)] == created[::-1]
    assert not second.next_page_token
    assert not (await runs.ListRuns(pb.ListRunsRequest(states=[run_pb2.RUN_STATE_FAILED]))).runs
