"""Sums, exports, imports, deletes and backups as a user of the command and of the client meets them, over real gRPC."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from behest.tool.v1 import tool_service_pb2 as tools
from behest.tool.v1.tool_service_pb2_grpc import ToolServiceStub
from chassis import faults
from suite.addresses import Service
from suite.composition import SuiteOptions
from suite.embedded import open_suite

ROOT = Path(__file__).parents[2]
ASK = "What is 6 * 7?"
SETTINGS = """
log: {level: error}
provider_gateway:
  default_model: scripted/test
  providers:
    scripted:
      adapter: scripted
      script:
        rules:
          - when: {role: tool}
            turns: [{text: "It is 42."}]
          - when: {contains: "6 * 7"}
            turns: [{calls: [{name: calculator, arguments: {expression: "6 * 7"}}]}]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "behest.yaml").write_text(SETTINGS)
    return tmp_path


def behest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY") and not key.startswith("BEHEST")}
    env |= {"PYTHONPATH": os.pathsep.join([str(ROOT / "services"), str(ROOT / "gen")]), "BEHEST_TARGET": ""}
    command = [sys.executable, "-m", "suite", *arguments]
    return subprocess.run(command, cwd=folder, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)


def objects(ended: subprocess.CompletedProcess[str]) -> list[dict]:  # type: ignore[type-arg]
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@pytest.mark.feature("S13")
@pytest.mark.feature("S8")
@pytest.mark.feature("X2")
def test_a_session_is_counted_exported_deleted_and_imported_by_the_command(folder: Path) -> None:
    events = objects(behest(folder, "run", ASK, "--json"))
    session, run = events[0]["session_id"], events[0]["run_id"]
    (sums,) = objects(behest(folder, "stats", "--session", session, "--json"))
    assert (sums["runs"], sums["runs_completed"], sums["tool_executions"], sums["turns"]) == (1, 1, 1, 2)
    (day,) = objects(behest(folder, "stats", "--by-day", "--json"))
    assert day["statistics"] == sums
    told = behest(folder, "stats", "--run", run, "--no-json").stdout
    assert "1 completed" in told and "scripted/test: 2 calls" in told
    (written,) = objects(behest(folder, "export", session, "--output", "kept.behest", "--json"))
    assert written["bytes"] == (folder / "kept.behest").stat().st_size
    before = objects(behest(folder, "watch", run, "--json"))
    objects(behest(folder, "delete", session, "--json"))
    assert behest(folder, "sessions", session, "--json").returncode == 4
    (answer,) = objects(behest(folder, "import", "kept.behest", "--json"))
    assert answer["counts"] == {"messages": 4, "runs": 1, "events": len(before)}
    assert objects(behest(folder, "watch", run, "--json")) == before
    (copy,) = objects(behest(folder, "import", "kept.behest", "--session", "copy", "--json"))
    assert copy["session"]["id"] == "copy"
    again = behest(folder, "import", "kept.behest")
    assert again.returncode == 1 and "import it under a new" in again.stderr
    (after,) = objects(behest(folder, "stats", "--json"))
    assert after == sums
    assert not list(folder.glob(".kept*"))


@pytest.mark.feature("S13")
def test_files_that_cannot_be_read_or_written_are_named(folder: Path) -> None:
    missing = behest(folder, "import", "nowhere.behest")
    assert missing.returncode == 2 and "nowhere.behest cannot be read" in missing.stderr
    (folder / "cake.behest").write_text("cake")
    cake = behest(folder, "import", "cake.behest")
    assert cake.returncode == 2 and "no whole export" in cake.stderr
    nobody = behest(folder, "export", "nobody")
    assert nobody.returncode == 4 and not list(folder.glob("*nobody*")) and not list(folder.glob(".nobody*"))


@pytest.mark.feature("S13")
def test_a_backup_is_a_copy_in_a_folder_and_is_never_overwritten(folder: Path) -> None:
    objects(behest(folder, "run", ASK, "--json"))
    (made,) = objects(behest(folder, "backup", "copies/one", "--json"))
    assert Path(made["backup"]) == Path("copies/one/behest.db") and made["bytes"] == (folder / made["backup"]).stat().st_size
    again = behest(folder, "backup", "copies/one")
    assert again.returncode == 1 and "never overwritten" in again.stderr
    (sums,) = objects(behest(folder, "stats", "--data", "copies/one", "--json"))
    assert sums["runs"] == 1
    nothing = behest(folder, "backup", "copies/two", "--data", "nowhere")
    assert nothing.returncode == 1 and "no database" in nothing.stderr


@pytest.mark.feature("S7")
@pytest.mark.feature("X3")
async def test_the_client_deletes_what_tools_did_with_the_session(folder: Path) -> None:
    async with open_suite(SuiteOptions(folder, folder / "behest.yaml", local_model=False)) as suite, suite.client("default") as client:
        handle = await client.run(ASK)
        events = [event async for event in handle.events()]
        call = next(e.tool_call_completed.call.id for e in events if e.WhichOneof("kind") == "tool_call_completed")
        executor = ToolServiceStub(await client._channel(Service.TOOL_EXECUTOR))
        request = tools.GetExecutionRequest(key=f"{handle.id}/1/{call}")
        assert (await executor.GetExecution(request)).execution.run_id == handle.id
        await client.delete_session(handle.session_id)
        with pytest.raises(faults.ExecutionNotFound):
            await executor.GetExecution(request)
        with pytest.raises(faults.SessionNotFound):
            await client.get_session(handle.session_id)


@pytest.mark.feature("S13")
@pytest.mark.feature("X3")
async def test_the_client_moves_a_session_between_suites(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    options = [
        SuiteOptions(place, folder / "behest.yaml", port, local_model=False)
        for place, port in ((folder, 41050), (tmp_path / "other", 41060))
    ]
    async with open_suite(options[0]) as one, open_suite(options[1]) as two, one.client("a") as source, two.client("b") as target:
        handle = await source.run(ASK)
        events = [event async for event in handle.events()]
        answer = await target.import_session(source.export_session(handle.session_id))
        assert answer.counts.events == len(events)
        there = await target.replay(handle.id)
        assert [event.sequence for event in there] == [event.sequence for event in events]
        assert {event.tenant for event in there} == {"b"}
        assert (await target.statistics(handle.session_id)).total.runs == 1
        assert (await target.statistics()).total.runs == 0

        async def broken() -> AsyncIterator[bytes]:
            async for piece in source.export_session(handle.session_id):
                yield piece[:-1]

        with pytest.raises(faults.ExportDamaged):
            await target.import_session(broken(), "copy")
