"""A server as its surroundings see it: health, reflection, signals, ports, exit codes, spans."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from behest.session.v1.journal_service_pb2 import GetRunRequest, GetRunResponse
from chassis.faults import ServiceUnavailable, SettingsInvalid
from chassis.rpc import Call, call_scope, current_call, open_channel, open_server, serve
from chassis.rpc.trace import trace_id
from kit.ports import free_address
from kit.rpc import CARRIERS, QUICK_END, Probe, ProbeStub, open_probe, probe_app

TESTS = Path(__file__).parents[1]
SERVICE = TESTS / "kit" / "rpc_service.py"
JOURNAL = "behest.session.v1.JournalService"


async def get_run(request: GetRunRequest) -> GetRunResponse:
    return GetRunResponse()


@pytest.mark.feature("G3")
@pytest.mark.parametrize("service", ["", JOURNAL])
async def test_health_follows_readiness_overall_and_by_service(service: str) -> None:
    missing: list[str] = ["the store"]

    async def ready() -> None:
        if missing:
            raise ServiceUnavailable(f"{missing[0]} is away")

    app = probe_app(Probe(get_run), ready=ready)
    async with open_server(app, "127.0.0.1:0", QUICK_END) as server, grpc.aio.insecure_channel(server.address) as channel:
        watch = aiter(health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=service)))
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING
        missing.clear()
        await server.health.check()
        assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.feature("G3")
@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_lists_services_and_knows_their_files(version: str) -> None:
    async with (
        open_server(probe_app(Probe(get_run)), "127.0.0.1:0", QUICK_END) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        info = channel.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            reflection_pb2.ServerReflectionRequest.SerializeToString,
            reflection_pb2.ServerReflectionResponse.FromString,
        )
        asked = [
            reflection_pb2.ServerReflectionRequest(list_services=""),
            reflection_pb2.ServerReflectionRequest(file_containing_symbol=JOURNAL),
        ]
        listed, files = [response async for response in info(iter(asked))]
    names = {service.name for service in listed.list_services_response.service}
    assert {JOURNAL, "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"} <= names
    assert len(files.file_descriptor_response.file_descriptor_proto) >= 1


async def test_a_port_in_use_is_said_with_its_number_and_a_remedy() -> None:
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(SettingsInvalid, match=rf"cannot listen on {address}.*another `listen`"):
            async with open_server(probe_app(Probe(get_run)), address):
                pass


@pytest.mark.parametrize("listen", ["nonsense", "127.0.0.1:99999", ":1", "192.0.2.1:1"])
async def test_an_address_that_is_none_is_said(listen: str) -> None:
    with pytest.raises(SettingsInvalid, match="cannot listen on"):
        async with open_server(probe_app(Probe(get_run)), listen):
            pass


@pytest.mark.feature("O2")
async def test_several_apps_serve_from_one_process_and_end_in_reverse() -> None:
    ended: list[str] = []

    def app(name: str) -> Any:
        async def drain() -> None:
            ended.append(name)

        return probe_app(Probe(get_run), name=name, drain=drain)

    stop, first, second = asyncio.Event(), free_address(), free_address()
    serving = asyncio.create_task(serve((app("a"), first), (app("b"), second), stop=stop, options=QUICK_END))
    for address in (first, second):
        async with open_channel(address, "grpc", frozenset({"/behest.session.v1.JournalService/GetRun"})) as channel:
            await ProbeStub(channel).GetRun(GetRunRequest(), timeout=20)
    stop.set()
    await serving
    assert ended == ["b", "a"]


class Service:
    """A service as a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            return (await self.process.stdout.readline()).decode().strip()

    async def log(self, event: str) -> dict[str, Any]:
        """The next log line of that event."""
        assert self.process.stderr is not None
        async with asyncio.timeout(20):
            async for line in self.process.stderr:
                if line.startswith(b"{") and json.loads(line)["event"] == event:
                    return dict(json.loads(line))
        raise AssertionError(f"no {event} in the log")

    async def end(self) -> tuple[int, str, str]:
        async with asyncio.timeout(20):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def service(*argv: str, **env: str) -> AsyncIterator[Service]:
    root = TESTS.parent
    path = os.pathsep.join(str(root / name) for name in ("services", "gen", "tests"))
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVICE), *argv, env={**os.environ, "PYTHONPATH": path, **env}, stdout=-1, stderr=-1
    )
    try:
        yield Service(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.feature("O6")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("carrier", ["grpc", "mux"])
async def test_a_signal_ends_a_service_in_order(number: signal.Signals, carrier: str) -> None:
    """Not serving, drain, the calls under way, close, exit code 0."""
    async with service() as running:
        address = (await running.log("listening"))["address"]
        await running.log("ready")
        async with open_channel(address, carrier) as channel, grpc.aio.insecure_channel(address) as plain:
            watch = aiter(health_pb2_grpc.HealthStub(plain).Watch(health_pb2.HealthCheckRequest()))
            assert (await anext(watch)).status == health_pb2.HealthCheckResponse.SERVING
            under_way = asyncio.ensure_future(ProbeStub(channel).GetRun(GetRunRequest(run_id="slow")))
            assert await running.line() == "entered"
            running.process.send_signal(number)
            assert (await anext(watch)).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert await running.line() == "draining"
            assert await under_way == GetRunResponse()
        assert await running.line() == "closed"
        code, _, _ = await running.end()
    assert code == 0


async def test_a_second_signal_ends_a_stuck_service_at_once() -> None:
    async with service(BEHEST__SESSION_STORE__TROUBLE="stuck") as running:
        await running.log("ready")
        running.process.terminate()
        assert await running.line() == "draining"
        running.process.terminate()
        code, _, _ = await running.end()
    assert code == -signal.SIGTERM


@pytest.mark.feature("O1")
async def test_wrong_settings_are_one_message_and_exit_code_two(tmp_path: Path) -> None:
    file = tmp_path / "behest.yaml"
    file.write_text("session_store:\n  lisen: here\nlog:\n  level: loud\n")
    async with service("--config", str(file)) as running:
        code, out, err = await running.end()
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "2 settings are wrong:",
        "  session_store.lisen: unknown key; did you mean listen? (behest.yaml line 2)",
        "  log.level: 'loud' is wrong: input should be 'debug', 'info', 'warning' or 'error' (behest.yaml line 4)",
    ]


async def test_a_port_in_use_is_exit_code_two() -> None:
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with service(BEHEST__SESSION_STORE__LISTEN=address) as running:
            code, _, err = await running.end()
    assert code == 2
    (message,) = err.splitlines()
    assert message.startswith(f"probe cannot listen on {address}: Address already in use;")


async def test_a_fault_at_the_start_is_one_message_and_exit_code_one() -> None:
    async with service(BEHEST__SESSION_STORE__TROUBLE="fault") as running:
        code, _, err = await running.end()
    assert (code, err.splitlines()) == (1, ["the disk is full; make room"])


async def test_a_defect_at_the_start_ends_with_an_id_that_is_in_the_log() -> None:
    async with service(BEHEST__SESSION_STORE__TROUBLE="defect") as running:
        code, _, err = await running.end()
    logged, message = err.splitlines()
    assert code == 1
    assert json.loads(logged)["error_id"] in message
    assert "hunter2" not in message


@pytest.mark.feature("O3")
@pytest.mark.parametrize("carrier", CARRIERS)
async def test_spans_of_a_call_through_two_services_are_one_trace(carrier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk", reason="optional: the extra telemetry is not installed")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr("chassis.telemetry._State.tracer", provider.get_tracer("test"))

    async with open_probe(carrier, Probe(_answering_trace)) as neighbour:

        async def outer(request: GetRunRequest) -> GetRunResponse:
            return await neighbour.GetRun(request)

        async with open_probe(carrier, Probe(outer)) as stub:
            with call_scope(Call(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")):
                response = await stub.GetRun(GetRunRequest())
    inner_span, outer_span = exporter.get_finished_spans()
    assert format(outer_span.parent.span_id, "016x") == "b7ad6b7169203331"
    assert inner_span.parent.span_id == outer_span.context.span_id
    assert {format(span.context.trace_id, "032x") for span in (inner_span, outer_span)} == {"0af7651916cd43dd8448eb211c80319c"}
    assert trace_id(response.run.id) == "0af7651916cd43dd8448eb211c80319c"
    assert outer_span.name == "behest.session.v1.JournalService/GetRun"


async def _answering_trace(request: GetRunRequest) -> GetRunResponse:
    response = GetRunResponse()
    response.run.id = current_call().traceparent
    return response


@pytest.mark.feature("G2")
@pytest.mark.parametrize(("sent", "said"), [(b"\xff\xff\xff", "cannot be read"), (b"\x0a\x02\xff\xfe", "UTF-8")])
async def test_bytes_that_are_no_request_are_refused_typed(sent: bytes, said: str) -> None:
    app = probe_app(Probe(get_run))
    async with open_server(app, "127.0.0.1:0", QUICK_END) as server, grpc.aio.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match=said) as refused:
            await channel.unary_unary(f"/{JOURNAL}/GetRun")(sent)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert any(key == "grpc-status-details-bin" for key, _ in refused.value.trailing_metadata() or ())
