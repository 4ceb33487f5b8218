"""Each Dockerfile, followed without a container engine: what it copies and installs, and nothing else, starts, serves and stops."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from kit.ports import free_port
from kit.postgres import fresh_database

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).parent / "uv"
SERVICES = ("orchestrator", "provider_gateway", "session_store", "tool_executor")
PATIENCE = 30.0


@pytest.mark.feature("K1")
@pytest.mark.feature("O1")
@pytest.mark.parametrize("service", SERVICES)
def test_an_image_has_what_it_takes_to_run_its_service_alone(service: str, tmp_path: Path) -> None:
    with _running(service, tmp_path) as (process, address):
        assert _is_alive(process, address)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=PATIENCE) == 0


@pytest.mark.feature("K5")
@pytest.mark.parametrize("service", ["session_store", "tool_executor", "provider_gateway"])
async def test_an_image_of_a_service_with_a_database_has_what_it_takes_to_migrate_it(service: str, tmp_path: Path) -> None:
    async with fresh_database() as url:
        app, python, command = _build(service, tmp_path)
        environment = {f"BEHEST__{service.upper()}__DATABASE": url}
        for arguments, status in ((["--check"], 1), ([], 0), (["--check"], 0)):
            ended = subprocess.run([python, "-s", *command, "migrate", *arguments], cwd=app, env=environment, check=False, timeout=PATIENCE)
            assert ended.returncode == status


@contextmanager
def _running(service: str, scratch: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    app, python, command = _build(service, scratch)
    address = f"127.0.0.1:{free_port()}"
    database = {f"BEHEST__{service.upper()}__DATABASE": "memory:"} if service in ("session_store", "tool_executor") else {}
    environment = {f"BEHEST__{service.upper()}__LISTEN": address, **database}
    process = subprocess.Popen([python, "-s", *command], cwd=app, env=environment)
    try:
        yield process, address
    finally:
        process.kill()
        process.wait()


def _build(service: str, scratch: Path) -> tuple[Path, Path, list[str]]:
    """The working folder, the interpreter and the command of an image, built by its Dockerfile's own lines."""
    text = (ROOT / "services" / service / "Dockerfile").read_text()
    app, environment = scratch / "app", scratch / "python"
    app.mkdir()
    for source, target in re.findall(r"^COPY (\S+) (\S+)$", text, re.MULTILINE):
        (shutil.copytree if (ROOT / source).is_dir() else shutil.copy)(ROOT / source, app / target)
    install = re.findall(r"^RUN pip install --no-cache-dir (.+)$", text, re.MULTILINE)[0].split()
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, environment], check=True)
    given = {key: value for key, value in os.environ.items() if value}  # uv refuses empty settings
    subprocess.run([UV, "pip", "install", "--quiet", "--python", environment / "bin" / "python", *install], cwd=app, env=given, check=True)
    entry = json.loads(re.findall(r"^ENTRYPOINT (.+)$", text, re.MULTILINE)[0])
    assert entry[0] == "python"
    return app, environment / "bin" / "python", entry[1:]


def _is_alive(process: subprocess.Popen[bytes], address: str) -> bool:
    """Whether the service answers a liveness probe before patience ends; ready it need not be, its neighbours are away."""
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        with grpc.insecure_channel(address) as channel:
            try:
                request = health_pb2.HealthCheckRequest(service="liveness")
                answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=PATIENCE, wait_for_ready=True)
            except grpc.RpcError:
                continue
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
    return False
