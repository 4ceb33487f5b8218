"""The `behest` command where its surroundings are broken: one message that says what to do, the right exit code, never a traceback."""

from __future__ import annotations

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kit.ports import neighbouring_ports

ROOT = Path(__file__).parents[2]
COMMAND = f'"{sys.executable}" -m suite'
ECHO = "provider_gateway: {default_model: scripted/echo, providers: {scripted: {adapter: scripted}}}\n"


def environment(**more: str) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY") and not key.startswith("BEHEST")}
    return {**env, "PYTHONPATH": os.pathsep.join([str(ROOT / "services"), str(ROOT / "gen")]), **more}


def shell(line: str, folder: Path, given: bytes = b"", **env: str) -> subprocess.CompletedProcess[str]:
    """What a user types, with `behest` for the command."""
    line = line.replace("behest ", f"{COMMAND} ", 1)
    ended = subprocess.run(
        ["bash", "-c", line], cwd=folder, env=environment(**env), input=given, capture_output=True, timeout=60, check=False
    )
    output, errors = ended.stdout.decode(), ended.stderr.decode()
    assert "Traceback" not in errors and "behest itself failed" not in errors, errors
    return subprocess.CompletedProcess(line, ended.returncode, output, errors)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with a model that echoes."""
    with socket.socket() as probe:
        if probe.connect_ex(("127.0.0.1", 50051)) == 0:
            pytest.skip("a suite listens at the default port of this machine")
    (tmp_path / "behest.yaml").write_text(ECHO)
    return tmp_path


def test_an_order_that_is_not_utf8_is_refused_with_the_place(folder: Path) -> None:
    ended = shell("behest run", folder, b"abc\xff\xfe")
    assert ended.returncode == 2 and "byte 4 is 0xff" in ended.stderr


def test_an_argument_that_is_not_utf8_is_refused(folder: Path) -> None:
    ended = shell("behest run $'a\\xffb'", folder)
    assert ended.returncode == 2 and "is not UTF-8 text" in ended.stderr


@pytest.mark.parametrize(
    ("redirected", "code", "answer"),
    [(">&-", 0, ""), ("2>&-", 0, "hello\n"), ("2>/dev/full", 0, "hello\n"), ("<&- >&- 2>&-", 0, ""), (">/dev/full", 1, "")],
)
def test_closed_and_full_outputs_neither_crash_the_command_nor_lose_the_answer(
    redirected: str, code: int, answer: str, folder: Path
) -> None:
    ended = shell(f"behest run hello --no-json {redirected}", folder)
    assert (ended.returncode, ended.stdout) == (code, answer)
    assert code == 0 or "the output cannot be written: No space left on device" in ended.stderr


def test_a_reader_that_goes_away_early_is_no_error_message(folder: Path) -> None:
    ended = shell("behest run hello | head -1", folder)
    assert ended.stdout.count("\n") == 1 and "error" not in ended.stderr


def a_file(data: Path) -> None:
    data.write_text("")


def garbage(data: Path) -> None:
    data.mkdir()
    (data / "behest.db").write_bytes(os.urandom(8192))


def tables_of_another_program(data: Path) -> None:
    data.mkdir()
    connection = sqlite3.connect(data / "behest.db")
    connection.execute("CREATE TABLE sessions (x)")
    connection.close()


def a_folder_for_the_file(data: Path) -> None:
    (data / "behest.db").mkdir(parents=True)


@pytest.mark.parametrize(
    ("made", "says"),
    [
        (a_file, "it is a file; name another with --data"),
        (garbage, "is not a SQLite database; choose another path"),
        (tables_of_another_program, "holds tables of another program"),
        (a_folder_for_the_file, "it cannot be opened"),
    ],
)
@pytest.mark.feature("O1")
def test_data_that_cannot_be_used_is_said_with_what_to_do(made: Callable[[Path], None], says: str, folder: Path) -> None:
    made(folder / "data")
    ended = shell("behest run hello --data data", folder)
    assert ended.returncode == 1 and says in ended.stderr
    assert "try again in" not in ended.stderr  # it would not help


@pytest.mark.feature("O1")
def test_each_mistake_in_the_settings_is_said_once_and_only_what_the_user_wrote(folder: Path) -> None:
    (folder / "behest.yaml").write_text("orchestrator: 5\n")
    ended = shell("behest run hello", folder)
    assert ended.returncode == 2
    assert ended.stderr.count("orchestrator:") == 1 and "must be a mapping" in ended.stderr and "BEHEST__" not in ended.stderr


def test_a_number_beyond_what_a_log_can_have_is_a_wrong_usage(folder: Path) -> None:
    assert shell("behest watch some-run --from 99999999999999999999", folder).returncode == 2


@pytest.mark.feature("O6")
def test_a_killed_supervisor_takes_its_four_processes_along(folder: Path) -> None:
    command = [sys.executable, "-m", "suite", "up", "--processes", "--no-local-model", "--port-base", str(neighbouring_ports())]
    with subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.PIPE, text=True) as supervisor:
        try:
            assert supervisor.stderr is not None
            pids = []
            for line in supervisor.stderr:
                pids += [int(line.split("pid ")[1])] if "pid " in line else []
                if line.startswith("ready:"):
                    break
            assert len(pids) == 4
        finally:
            supervisor.send_signal(signal.SIGKILL)
    until = time.monotonic() + 20
    while any(lives(pid) for pid in pids):
        assert time.monotonic() < until, "the services outlive their supervisor"
        time.sleep(0.05)


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
