"""What the README and the documents show is run here as it stands there."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from kit.suites import ROOT, SuiteUnderTest, open_suite_under_test
from suite.embedded import load_suite_settings
from tool_executor.adapters.functions.load import Timeouts, load_functions

README = (ROOT / "README.md").read_text()
CONFIGURATION = (ROOT / "docs/configuration.md").read_text()


def block(text: str, language: str, place: int = 0) -> str:
    return re.findall(rf"```{language}\n(.*?)```", text, re.S)[place]


def shown(command: str) -> str:
    return next(line.removeprefix("$ ") for line in README.splitlines() if line.startswith(f"$ {command}"))


@pytest.fixture
async def suite(tmp_path: Path) -> AsyncIterator[SuiteUnderTest]:
    agents = {"assistant": {"instructions": "Help.", "tools": ["calculator"]}}
    async with open_suite_under_test(tmp_path, {}, one_process=True, agents=agents) as suite:
        yield suite


async def run(*command: str, cwd: Path | None = None, **env: str) -> str:
    path = os.pathsep.join(str(ROOT / name) for name in ("services", "gen"))
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path} | env,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, errors.decode()
    return output.decode()


@pytest.mark.feature("X3")
async def test_sixty_seconds_of_python(suite: SuiteUnderTest) -> None:
    output = await run(sys.executable, "-c", block(README, "python"), BEHEST_TARGET=f"127.0.0.1:{suite.base}")
    assert "What is 17 * 23?" in output


@pytest.mark.feature("G3")
@pytest.mark.feature("G7")
async def test_sixty_seconds_of_grpcurl_and_buf(suite: SuiteUnderTest) -> None:
    """Buf stands in for grpcurl: the same reflection, the same JSON."""
    buf = Path(sys.executable).parent / "buf"
    list_runs = shlex.split(shown(".venv/bin/buf curl").replace(":50051", f":{suite.base}"))
    curl = [str(buf), *list_runs[1:-3]]
    data = re.search(r"-d '(.*?)'", shown("grpcurl -plaintext -d '{\"create"))
    assert data
    output = await run(*curl, "-d", data[1], f"http://localhost:{suite.base}/behest.run.v1.RunService/StreamRun")
    assert "runCompleted" in output
    run_id = json.loads(output[: output.index("\n}\n") + 2] if "\n}\n" in output else output.splitlines()[0])["run"]["id"]
    watch = json.dumps({"run_id": run_id, "after_sequence": 5})
    output = await run(*curl, "-d", watch, f"http://localhost:{suite.base}/behest.run.v1.RunService/WatchRun")
    assert '"sequence":"6"' in output.replace(" ", "")
    assert run_id in await run(str(buf), *list_runs[1:])


@pytest.mark.feature("O1")
def test_the_configuration_that_is_shown_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "behest.yaml"
    path.write_text(block(CONFIGURATION, "yaml"))
    settings = load_suite_settings(path, {})
    assert settings.orchestrator.agents["analyst"].limits.max_iterations == 20
    assert yaml.safe_load(path.read_text())


@pytest.mark.feature("E2")
def test_the_settings_of_kafka_that_are_shown_are_valid(tmp_path: Path) -> None:
    path = tmp_path / "behest.yaml"
    path.write_text(next(text for text in re.findall(r"```yaml\n(.*?)```", CONFIGURATION, re.S) if text.startswith("kafka:")))
    settings = load_suite_settings(path, {})
    assert (settings.kafka.topics.runs.partitions, settings.kafka.topics.deltas.name) == (24, "behest.deltas")


@pytest.mark.feature("T2")
def test_the_tool_that_is_shown_is_one(tmp_path: Path) -> None:
    path = tmp_path / "orders.py"
    path.write_text(block(CONFIGURATION, "python"))
    (function,) = load_functions([f"{path}:order_status"], Timeouts(30, 60))
    assert function.tool.name == "order_status"
    assert json.loads(function.tool.parameters)["properties"]["number"]["description"] == "The order's number, such as A-1017."


@pytest.mark.feature("T2")
async def test_the_tool_that_is_shown_is_called_by_the_order_that_is_shown(tmp_path: Path) -> None:
    (tmp_path / "tools.py").write_text(block(CONFIGURATION, "python"))
    shown = [text for text in re.findall(r"```yaml\n(.*?)```", CONFIGURATION, re.S) if "tools.py:order_status" in text]
    (tmp_path / "behest.yaml").write_text(shown[0])
    (order,) = re.findall(r"^\$ behest (run .*)$", CONFIGURATION, re.M)
    command = [sys.executable, "-m", "suite", *shlex.split(order), "--no-json", "--config", "behest.yaml"]
    assert "A-1017 is on its way." in await run(*command, cwd=tmp_path)
