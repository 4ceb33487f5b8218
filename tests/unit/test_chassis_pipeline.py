"""What the pipeline writes about a call, and what the health check makes of an app."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from grpc_health.v1 import health_pb2

from behest.session.v1.journal_service_pb2 import FollowRequest, FollowResponse, GetRunRequest, GetRunResponse
from chassis import telemetry
from chassis.faults import Internal, RunNotFound, ServiceUnavailable
from chassis.rpc import App, Call, LocalChannel, Methods, call_scope, default_pipeline
from chassis.rpc.health import FAILURES, Health
from chassis.telemetry import LogSettings, set_up_logging
from kit.rpc import GET_RUN, Probe, ProbeStub, probe_app


@pytest.fixture
def logging_restored() -> Iterator[None]:
    handlers, level = logging.root.handlers[:], logging.root.level
    yield
    structlog.reset_defaults()
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)
    telemetry._State.calls_logged = False


def lines(settings: LogSettings, monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    set_up_logging(settings)
    return stream


async def get_run(request: GetRunRequest) -> GetRunResponse:
    if request.run_id == "missing":
        raise RunNotFound("no run")
    if request.run_id == "defect":
        secret = "hunter2"
        raise ValueError(f"oops{len(secret)}")
    if request.run_id == "slow":
        await asyncio.Event().wait()
    return GetRunResponse()


def stub() -> ProbeStub:
    return ProbeStub(LocalChannel(probe_app(Probe(get_run)).methods))


class Gone(io.StringIO):
    """A pipe whose reader has ended."""

    def write(self, text: str) -> int:
        raise BrokenPipeError

    def flush(self) -> None:
        raise BrokenPipeError


async def test_a_log_that_nobody_reads_any_more_fails_no_call(monkeypatch: pytest.MonkeyPatch, logging_restored: None) -> None:
    monkeypatch.setattr("sys.stderr", Gone())
    set_up_logging(LogSettings(format="json"))
    assert await stub().GetRun(GetRunRequest(run_id="x")) == GetRunResponse()
    with pytest.raises(RunNotFound):
        await stub().GetRun(GetRunRequest(run_id="missing"))
    logging.getLogger("some.library").error("unheard")


@pytest.mark.feature("O5")
async def test_each_call_gets_one_line(monkeypatch: pytest.MonkeyPatch, logging_restored: None) -> None:
    stream = lines(LogSettings(format="json"), monkeypatch)
    probe = stub()
    with call_scope(Call(tenant="acme", traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")):
        await probe.GetRun(GetRunRequest(run_id="r"))
        with pytest.raises(RunNotFound):
            await probe.GetRun(GetRunRequest(run_id="missing"))
        waiting = asyncio.ensure_future(probe.GetRun(GetRunRequest(run_id="slow")))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [(line["event"], line["code"], line.get("reason")) for line in found] == [
        ("call", "OK", None),
        ("call", "NOT_FOUND", "RUN_NOT_FOUND"),
        ("call", "CANCELLED", None),
    ]
    first = found[0]
    assert first["duration_ms"] >= 0
    expected = {"service": "probe", "method": GET_RUN, "tenant": "acme", "level": "info", "trace_id": "0af7651916cd43dd8448eb211c80319c"}
    assert expected.items() <= first.items()


@pytest.mark.parametrize("settings", [LogSettings(level="warning", format="json"), LogSettings(calls=False, format="json")])
async def test_calls_leave_no_line_when_nobody_wants_one(
    settings: LogSettings, monkeypatch: pytest.MonkeyPatch, logging_restored: None
) -> None:
    stream = lines(settings, monkeypatch)
    await stub().GetRun(GetRunRequest())
    assert stream.getvalue() == ""


@pytest.mark.parametrize("format_", ["json", "pretty"])
async def test_a_defect_is_in_the_log_under_the_id_that_the_caller_got(
    format_: Any, monkeypatch: pytest.MonkeyPatch, logging_restored: None
) -> None:
    stream = lines(LogSettings(level="error", format=format_), monkeypatch)
    with pytest.raises(Internal) as caught:
        await stub().GetRun(GetRunRequest(run_id="defect"))
    text = stream.getvalue()
    assert caught.value.metadata["error_id"] in text
    assert "oops7" in text
    assert "hunter2'" not in text.replace('secret = "hunter2"', "")  # values of local variables stay out


async def test_what_libraries_log_looks_like_the_rest(monkeypatch: pytest.MonkeyPatch, logging_restored: None) -> None:
    stream = lines(LogSettings(format="json"), monkeypatch)
    logging.getLogger("some.library").warning("beware of %s", "dog")
    logging.getLogger("some.library").info("not this")
    (line,) = stream.getvalue().splitlines()
    assert (json.loads(line)["event"], json.loads(line)["level"]) == ("beware of dog", "warning")


async def test_without_set_up_a_library_user_sees_no_calls(capsys: pytest.CaptureFixture[str]) -> None:
    await stub().GetRun(GetRunRequest())
    assert capsys.readouterr() == ("", "")


async def test_the_iterator_of_a_stream_is_closed_when_its_reader_stops() -> None:
    closed = asyncio.Event()

    async def follow(request: FollowRequest) -> Any:
        try:
            while True:
                yield FollowResponse()
        finally:
            closed.set()

    async with LocalChannel(probe_app(Probe(follow=follow)).methods) as channel:
        async with ProbeStub(channel).Follow(FollowRequest()) as stream:
            await anext(aiter(stream))
        async with asyncio.timeout(5):
            await closed.wait()


# Health


class Readiness:
    """An app whose readiness a test turns."""

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.app = App("probe", Methods("probe", default_pipeline()), ready=self.ready)
        self.app.methods.names.append("behest.test.v1.ProbeService")
        self.health = Health(self.app)

    async def ready(self) -> None:
        if self.fault is not None:
            raise self.fault

    async def states(self) -> set[str]:
        names = ("", "behest.test.v1.ProbeService")
        answers = [await self.health.servicer.Check(health_pb2.HealthCheckRequest(service=name), None) for name in names]
        return {health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status) for answer in answers}


@contextlib.contextmanager
def quiet() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as logs:
        yield logs


@pytest.mark.feature("G3")
async def test_an_app_serves_from_its_first_good_answer() -> None:
    readiness = Readiness()
    readiness.fault = ServiceUnavailable("the store is away; start it")
    with quiet() as logs:
        await readiness.health.check()
        await readiness.health.check()
        assert not readiness.health.ready.is_set()
        readiness.fault = None
        await readiness.health.check()
    assert await readiness.states() == {"SERVING"}
    assert [(line["event"], line.get("reason")) for line in logs] == [("not ready", "the store is away; start it"), ("ready", None)]


@pytest.mark.feature("G3")
async def test_one_bad_answer_does_not_take_an_app_out_but_some_in_a_row_do() -> None:
    readiness = Readiness()
    with quiet():
        await readiness.health.check()
        readiness.fault = ValueError("anything")
        for _ in range(FAILURES - 1):
            await readiness.health.check()
        assert await readiness.states() == {"SERVING"}
        await readiness.health.check()
    assert await readiness.states() == {"NOT_SERVING"}


async def test_a_stopped_app_never_serves_again() -> None:
    readiness = Readiness()
    with quiet():
        await readiness.health.check()
        await readiness.health.stop()
        await readiness.health.check()
    assert await readiness.states() == {"NOT_SERVING"}
