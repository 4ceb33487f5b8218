"""The suite in front of llmock, a server that breaks as providers do, and that judges how its client bore it.

The judge sees the attempts alone: waits that were asked for, retries that were due or pointless, cut streams that were not asked for again.
Whether the caller was told the truth, these tests look at themselves.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from llmock.pytest_plugin import LLMock
from llmock.testing import LLMockServer

from behest.event.v1 import event_pb2
from kit.ports import neighbouring_ports
from suite.client import Behest
from suite.composition import SuiteOptions
from suite.embedded import open_suite

PROVIDERS = {
    "openai": {"adapter": "openai", "model": "gpt-4o-mini", "path": "openai"},
    "openai-responses": {"adapter": "openai-responses", "model": "gpt-4o-mini", "path": "openai"},
    "anthropic": {"adapter": "anthropic", "model": "claude-haiku-4-5", "path": "anthropic"},
    "gemini": {"adapter": "gemini", "model": "gemini-2.5-flash", "path": "gemini", "below": "/v1beta"},
}
KEY = "sk-only-for-llmock"
TEXT = "The answer that is said in a good many words, so that a stream of it can break in the middle."


@pytest.fixture(scope="module")
def server() -> Iterator[LLMockServer]:
    with LLMockServer() as server:
        yield server


@dataclass
class Broken:
    """A suite whose only model is llmock's."""

    mock: LLMock
    client: Behest

    async def run(self, order: str) -> list[event_pb2.Event]:
        """The log of a run."""
        run = await self.client.run(order, agent="worker")
        return [event async for event in self.client.watch(run.run.id)]

    def assert_resilient(self) -> None:
        """Neither an error nor a warning."""
        self.mock.assert_resilient(strict=True)


@pytest.fixture(params=sorted(PROVIDERS))
async def broken(request: pytest.FixtureRequest, server: LLMockServer, tmp_path: Path) -> AsyncIterator[Broken]:
    own = PROVIDERS[request.param]
    provider = {
        "adapter": own["adapter"],
        "base_url": server.base_url(own["path"]) + own.get("below", ""),
        "api_key": KEY,
        "limits": {"first_output_seconds": 2, "idle_seconds": 2},
    }
    settings = {
        "provider_gateway": {"default_model": f"mock/{own['model']}", "providers": {"mock": provider}, "retries": {"first_pause_ms": 300}},
        "orchestrator": {"agents": {"worker": {"instructions": "Work.", "tools": ["*"]}}},
        "log": {"level": "error"},
    }
    config = tmp_path / "behest.yaml"
    config.write_text(yaml.safe_dump(settings))
    mock = LLMock(server).reset().tool_mode("off").pace(10)
    options = SuiteOptions(tmp_path, config, port_base=neighbouring_ports(), local_model=False)
    async with open_suite(options) as suite, suite.client() as client:
        yield Broken(mock, client)


def said(events: list[event_pb2.Event]) -> str:
    """What the last attempt said."""
    pieces = list[str]()
    for event in events:
        if event.HasField("model_started"):
            pieces.clear()
        pieces.append(event.text_delta.text)
    return "".join(pieces)


def last(events: list[event_pb2.Event]) -> str:
    return events[-1].WhichOneof("kind") or ""


Fault = Callable[[LLMock], object]

PASSING: dict[str, Fault] = {
    "a rate limit that says how long": lambda mock: mock.rate_limit(times=2, retry_after=0.3),
    "a failing server": lambda mock: mock.fail(500, times=2),
    "an overloaded one": lambda mock: mock.fail(503, times=1),
    "a stream that is cut off": lambda mock: mock.disconnect(after_chunks=3),
    "a stream that ends early as if it were whole": lambda mock: mock.truncate(after_chunks=3),
    "a chunk that is garbage": lambda mock: mock.corrupt(after_chunks=3),
    "a stream that stands still": lambda mock: mock.stall(after_chunks=3, seconds=20),
    "a first token that does not come": lambda mock: mock.slow_first_token(20),
    "all of it, one after the other": lambda mock: mock.fail(500).disconnect(after_chunks=2).truncate(after_chunks=4),
}


@pytest.mark.feature("P7")
@pytest.mark.feature("P11")
@pytest.mark.feature("P13")
@pytest.mark.feature("R4")
@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
async def test_what_passes_is_borne_and_the_whole_answer_comes(broken: Broken, fault: Fault) -> None:
    broken.mock.reply(TEXT, times=None)
    fault(broken.mock)
    events = await broken.run("Say it.")
    assert last(events) == "run_completed" and said(events) == TEXT
    broken.assert_resilient()


REFUSALS: dict[str, tuple[Fault, str]] = {
    "a wrong key": (lambda mock: mock.fail(401, times=None), "PROVIDER_CREDENTIALS_REFUSED"),
    "a forbidden model": (lambda mock: mock.fail(403, times=None), "PROVIDER_PERMISSION_DENIED"),
    "a malformed request": (lambda mock: mock.fail(422, times=None), "PROVIDER_REQUEST_REFUSED"),
    "a prompt that is too long": (lambda mock: mock.context_overflow(times=None), "PROVIDER_CONTEXT_OVERFLOW"),
}


@pytest.mark.feature("P11")
@pytest.mark.feature("R4")
@pytest.mark.parametrize(("fault", "reason"), REFUSALS.values(), ids=REFUSALS)
async def test_what_stays_is_told_at_once_and_never_tried_again(broken: Broken, fault: Fault, reason: str) -> None:
    fault(broken.mock)
    events = await broken.run("Say it.")
    assert last(events) == "run_failed" and events[-1].run_failed.fault.reason == reason
    assert KEY not in str(events)
    assert len(broken.mock.requests) == 1
    broken.assert_resilient()


@pytest.mark.feature("P11")
@pytest.mark.feature("R4")
async def test_an_outage_ends_the_run_after_a_bounded_number_of_attempts(broken: Broken) -> None:
    broken.mock.outage()
    events = await broken.run("Say it.")
    assert last(events) == "run_failed" and events[-1].run_failed.fault.reason == "PROVIDER_UNAVAILABLE"
    broken.assert_resilient()


@pytest.mark.feature("P3")
@pytest.mark.feature("T4")
@pytest.mark.feature("R3")
@pytest.mark.parametrize("kind", ["malformed_arguments", "unknown_tool"])
async def test_a_broken_tool_call_is_answered_for_the_model_to_read(broken: Broken, kind: str) -> None:
    broken.mock.call_tool("calculator", {"expression": "6 * 7"}).break_tool_call(kind)
    broken.mock.reply(TEXT)
    events = await broken.run("Compute it.")
    results = [event.tool_execution_finished.result for event in events if event.HasField("tool_execution_finished")]
    assert last(events) == "run_completed" and [result.is_error for result in results] == [True]
    broken.assert_resilient()


@pytest.mark.feature("P3")
@pytest.mark.feature("P11")
async def test_a_tool_call_whose_stream_breaks_is_run_once(broken: Broken) -> None:
    broken.mock.call_tool("calculator", {"expression": "6 * 7"}, times=2).disconnect(after_chunks=1)
    broken.mock.reply(TEXT)
    events = await broken.run("Compute it.")
    results = [event.tool_execution_finished.result for event in events if event.HasField("tool_execution_finished")]
    whole = [event for event in events if event.HasField("tool_call_completed")]  # Gemini says a call and its end in one chunk
    assert last(events) == "run_completed" and len(results) == len(whole) and not any(result.is_error for result in results)
    broken.assert_resilient()
