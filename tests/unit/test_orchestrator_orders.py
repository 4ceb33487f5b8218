"""Orders and commands as callers give them: what is refused, and what happens when the run ends meanwhile."""

from __future__ import annotations

import math
from typing import Any

import pytest

from behest.agent.v1 import agent_pb2
from behest.chat.v1 import chat_pb2
from behest.run.v1 import run_service_pb2 as pb
from chassis.faults import InputEmpty, RequestInvalid, RunEnded
from chassis.world import World
from kit.driving import MemoryStore, driving
from kit.loop import CountedIds, StoppedClock
from orchestrator.api import convert
from orchestrator.domain import events as e
from orchestrator.domain.commands import Steer
from orchestrator.domain.values import OnBusy, Priority, RunId
from orchestrator.operations.ports import Opened, Order, Terms
from orchestrator.operations.runs import RunDesk
from orchestrator.wire import agent_from_proto

TEXT = {"text": "please"}
FORMAT = chat_pb2.ResponseFormat.Kind
CHOICE = chat_pb2.ToolChoice.Mode


def wish(tools: tuple[str, ...] = ("work", "files_*"), **order: Any) -> Any:
    agent = agent_from_proto(agent_pb2.Agent(name="a", tools=tools))
    return convert.wish(pb.CreateRunRequest(**({"input": [TEXT]} | order)), agent, "m")


@pytest.mark.feature("R2")
@pytest.mark.parametrize(
    ("order", "field"),
    [
        ({"request_id": "x" * 129}, "request_id"),
        ({"session_id": "no spaces"}, "session_id"),
        ({"session_id": "x" * 129}, "session_id"),
        ({"model": "x" * 257}, "model"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata"),
        ({"metadata": {"": "x"}}, "metadata[]"),
        ({"metadata": {"k": "x" * 1025}}, "metadata[k]"),
        ({"on_busy": 9}, "on_busy"),
        ({"priority": 4}, "priority"),
        ({"limits": {"max_iterations": -1}}, "limits.max_iterations"),
        ({"limits": {"max_continuations": -2}}, "limits.max_continuations"),
        ({"sampling": {"temperature": math.nan}}, "sampling.temperature"),
        ({"sampling": {"temperature": math.inf}}, "sampling.temperature"),
        ({"sampling": {"top_p": -0.1}}, "sampling.top_p"),
        ({"sampling": {"max_output_tokens": 0}}, "sampling.max_output_tokens"),
        ({"sampling": {"reasoning_effort": 99}}, "sampling.reasoning_effort"),
        ({"sampling": {"stop": [""]}}, "sampling.stop"),
        ({"sampling": {"stop": ["x"] * 17}}, "sampling.stop"),
        ({"tool_choice": {"mode": 9}}, "tool_choice.mode"),
        ({"tool_choice": {"mode": CHOICE.MODE_NAMED}}, "tool_choice.name"),
        ({"tool_choice": {"mode": CHOICE.MODE_NAMED, "name": "other"}}, "tool_choice.name"),
        ({"tool_choice": {"mode": CHOICE.MODE_AUTO, "name": "work"}}, "tool_choice.name"),
        ({"response_format": {"kind": 9}}, "response_format.kind"),
        ({"response_format": {"kind": FORMAT.KIND_JSON_SCHEMA}}, "response_format.schema"),
        ({"response_format": {"kind": FORMAT.KIND_JSON_SCHEMA, "schema": b"{"}}, "response_format.schema"),
        ({"response_format": {"kind": FORMAT.KIND_JSON_SCHEMA, "schema": b"[]"}}, "response_format.schema"),
        ({"response_format": {"kind": FORMAT.KIND_TEXT, "schema": b"{}"}}, "response_format.schema"),
        ({"input": [TEXT, {}]}, "input[1]"),
        ({"input": [{"refusal": "no"}]}, "input[0]"),
        ({"input": [{"json": b"{"}]}, "input[0].json"),
        ({"input": [{"json": b"NaN"}]}, "input[0].json"),
        ({"input": [{"json": b"[" * 100_000}]}, "input[0].json"),
        ({"input": [{"image": {}}]}, "input[0].image"),
        ({"input": [{"document": {"data": b"x"}}]}, "input[0].document.media_type"),
    ],
)
def test_what_no_run_could_use_is_refused_with_its_field(order: dict[str, Any], field: str) -> None:
    with pytest.raises(RequestInvalid) as refused:
        wish(**order)
    assert [violation.field for violation in refused.value.violations] == [field]


@pytest.mark.feature("R2")
def test_a_tool_cannot_be_required_of_an_agent_that_has_none() -> None:
    with pytest.raises(RequestInvalid, match="has none"):
        wish(tools=(), tool_choice={"mode": CHOICE.MODE_REQUIRED})


@pytest.mark.feature("R2")
@pytest.mark.parametrize("parts", [[], [{"text": " \n"}], [{"text": ""}, {"text": "\t"}]])
def test_input_that_says_nothing_is_refused(parts: list[dict[str, str]]) -> None:
    with pytest.raises(InputEmpty):
        wish(input=parts)


@pytest.mark.feature("R8")
def test_what_an_order_may_say_is_kept() -> None:
    made = wish(
        session_id="s:1",
        tool_choice={"mode": CHOICE.MODE_NAMED, "name": "files_read"},
        response_format={"kind": FORMAT.KIND_JSON_SCHEMA, "schema": b'{"type": "object"}'},
        limits={"max_continuations": -1, "max_wall_ms": 2**62},
        sampling={"temperature": 0, "stop": ["END"]},
        input=[{"json": b'{"a": 1}'}, {"image": {"url": "https://example.org/a.png"}}],
    )
    assert made.agent.limits.max_continuations == 0
    assert made.agent.limits.max_wall_ms == 2**62
    assert made.agent.body.sampling.HasField("temperature")


@pytest.mark.feature("R6")
@pytest.mark.feature("R22")
@pytest.mark.parametrize(("said", "meant"), [(0, OnBusy.REJECT), *((policy.value, policy) for policy in OnBusy)])
async def test_what_to_do_when_busy_and_how_early_reach_the_store(said: int, meant: OnBusy) -> None:
    store = _Opening()
    async with driving(MemoryStore()) as driver:
        desk = RunDesk(store, driver, None, World(StoppedClock(), CountedIds()))  # type: ignore[arg-type]  # no ports are needed
        await desk.create(wish(on_busy=said, priority=3, session_id="s", limits={"max_wall_ms": 7}))
    (order,) = store.orders
    assert (order.on_busy, order.priority, order.session_id) == (meant, Priority.HIGH, "s")
    assert bool(order.fork_session_id) == (meant is OnBusy.FORK)
    assert order.fork_session_id != order.session_id
    assert wish().priority is Priority.NORMAL


class _Opening:
    """A store that takes orders and gives nobody a run."""

    def __init__(self) -> None:
        self.orders: list[Order] = []

    async def open(self, order: Order) -> Opened:
        self.orders.append(order)
        return Opened(order.run_id, order.session_id, None, epoch=0, existed=False)


class _Ending:
    """A store in which a run ends between two calls, and which remembers requests."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.ended = False

    async def open(self, order: Order) -> object:
        raise NotImplementedError

    async def get(self, run_id: RunId) -> tuple[str, bool]:
        return ("ended" if self.ended else "running"), self.ended

    async def command(self, run_id: RunId, event: e.Command, terms: Terms) -> tuple[int, str]:
        request_id = terms.request_id
        if request_id and request_id in self.asked:
            return 7, "ended"
        self.asked.append(request_id)
        if self.ended or isinstance(event, e.CancelRequested):
            self.ended = True
            raise RunEnded("over")
        return 7, "running"


async def desk_on(runs: _Ending) -> RunDesk:
    async with driving(MemoryStore()) as driver:
        return RunDesk(runs, driver, None, World(StoppedClock(), CountedIds()))  # type: ignore[arg-type]  # no ports are needed


@pytest.mark.feature("R7")
async def test_cancelling_a_run_that_ends_at_that_moment_returns_it_as_it_is() -> None:
    desk = await desk_on(_Ending())
    assert await desk.cancel(RunId("r"), "stop") == "ended"


@pytest.mark.feature("R14")
async def test_input_that_was_recorded_is_acknowledged_again_after_the_run_ended() -> None:
    runs = _Ending()
    desk = await desk_on(runs)
    steer = Steer(convert.entry([chat_pb2.Part(text="and")], "m-1"), interrupt=False)
    assert await desk.steer(RunId("r"), steer, "mine", "d") == 7
    runs.ended = True
    assert await desk.steer(RunId("r"), steer, "mine", "d") == 7
    with pytest.raises(RunEnded):
        await desk.steer(RunId("r"), steer, "another", "d")


@pytest.mark.feature("R14")
async def test_input_without_a_request_id_is_sent_to_the_store_with_one_so_that_a_retry_below_adds_it_once() -> None:
    runs = _Ending()
    desk = await desk_on(runs)
    await desk.steer(RunId("r"), Steer(convert.entry([chat_pb2.Part(text="and")], "m-1"), interrupt=False), "", "d")
    assert runs.asked == ["m-1"]
