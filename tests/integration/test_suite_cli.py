"""The `behest` command as its users meet it: real processes, real ports, a scripted model."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from kit.ports import neighbouring_ports

ROOT = Path(__file__).parents[2]
SLOW = "Take your time."
SETTINGS = f"""
log: {{level: error}}
provider_gateway:
  default_model: scripted/test
  budgets: [{{name: daily spend, unit: usd, limit: 5}}, {{name: calls, unit: requests, limit: 1000000, window: none, per: []}}]
  providers:
    scripted:
      adapter: scripted
      script:
        delay_ms: 20
        rules:
          - when: {{role: tool}}
            turns: [{{text: "It is 42."}}]
          - when: {{contains: "6 * 7"}}
            turns: [{{calls: [{{name: calculator, arguments: {{expression: "6 * 7"}}}}]}}]
          - when: {{equals: "{SLOW}"}}
            turns: [{{text: {json.dumps(["tick "] * 2000)}}}]
          - when: {{equals: "Fail."}}
            turns: [{{fault: credentials_refused}}]
"""


def environment(**more: str) -> dict[str, str]:
    env = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY") and not key.startswith("BEHEST")}
    return {**env, "PYTHONPATH": os.pathsep.join([str(ROOT / "services"), str(ROOT / "gen")]), **more}


def behest(*arguments: str, cwd: Path, given: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "suite", *arguments]
    source = {"input": given} if given is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run(command, cwd=cwd, env=environment(**env), capture_output=True, text=True, timeout=60, check=False, **source)


def objects(ended: subprocess.CompletedProcess[str]) -> list[dict]:
    assert ended.returncode == 0, ended.stderr
    return [json.loads(line) for line in ended.stdout.splitlines()]


@dataclass
class Up:
    """A suite that `behest up` runs."""

    process: subprocess.Popen[str]
    base: int
    folder: Path
    lines: list[str] = field(default_factory=list)

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.base}"

    def call(self, *arguments: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
        return behest(*arguments, "--target", self.target, cwd=self.folder, given=given)

    def wait_until_ready(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if line.startswith("ready:"):
                threading.Thread(target=lambda: self.lines.extend(self.process.stderr), daemon=True).start()
                return
        raise AssertionError(f"not ready: {self.lines}")


def start(folder: Path, *arguments: str) -> Up:
    base = neighbouring_ports()
    command = [sys.executable, "-m", "suite", "up", "--port-base", str(base), *arguments]
    process = subprocess.Popen(command, cwd=folder, env=environment(), stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True)
    suite = Up(process, base, folder)
    try:
        suite.wait_until_ready()
    except BaseException:
        process.kill()
        raise
    return suite


def stop(suite: Up) -> int:
    suite.process.send_signal(signal.SIGTERM)
    return suite.process.wait(timeout=30)


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    folder = tmp_path_factory.mktemp("up")
    (folder / "behest.yaml").write_text(SETTINGS)
    up = start(folder)
    try:
        yield up
        assert stop(up) == 0
    finally:
        up.process.kill()


@pytest.mark.feature("O2")
@pytest.mark.feature("X2")
def test_a_run_in_a_pipe_is_one_event_a_line_to_the_terminal_event(suite: Up) -> None:
    events = objects(suite.call("run", "What is 6 * 7?", "--tool", "calculator"))
    assert [event["sequence"] for event in events] == list(range(1, len(events) + 1))
    assert events[0]["kind"] == "run_created" and events[-1]["kind"] == "run_completed"
    assert events[0]["data"]["tool_choice"] == {"mode": "named", "name": "calculator"}
    finished = next(event for event in events if event["kind"] == "tool_execution_finished")
    assert finished["data"]["result"]["status"] == "succeeded"


@pytest.mark.feature("X2")
def test_what_ran_can_be_listed_watched_and_read_again(suite: Up) -> None:
    told = objects(suite.call("run", "Say it again."))
    run_id, session_id = told[0]["run_id"], told[0]["session_id"]
    assert run_id in [run["id"] for run in objects(suite.call("runs"))]
    assert [run["state"] for run in objects(suite.call("runs", "--session", session_id))] == ["completed"]
    watched = objects(suite.call("watch", run_id, "--from", "2"))
    assert [event["sequence"] for event in watched] == [event["sequence"] for event in told[2:]]
    assert session_id in [session["id"] for session in objects(suite.call("sessions"))]
    [session] = objects(suite.call("sessions", session_id))
    assert [message["message"]["role"] for message in session["messages"]] == ["user", "assistant"]


def test_no_json_is_the_answer_alone_on_standard_output(suite: Up) -> None:
    ended = suite.call("run", "What is 6 * 7?", "--no-json")
    assert (ended.stdout, ended.returncode) == ("It is 42.\n", 0)
    assert "calculator succeeded" in ended.stderr and " → " in ended.stderr


def test_an_order_may_come_through_a_pipe(suite: Up) -> None:
    assert suite.call("run", "--no-json", given="Say this.\n").stdout == "Say this.\n"
    assert suite.call("chat", "--no-json", given="And that.\n").stdout == "And that.\n"
    empty = suite.call("run", given=" \n")
    assert empty.returncode == 2 and "there is no order" in empty.stderr


def test_tools_models_and_agents_are_listed(suite: Up) -> None:
    assert {"calculator", "time"} <= {tool["definition"]["name"] for tool in objects(suite.call("tools"))}
    assert any(model["provider"] == "scripted" for model in objects(suite.call("models")))
    assert [agent["name"] for agent in objects(suite.call("agents"))] == ["assistant"]


@pytest.mark.feature("P15")
def test_budgets_are_listed_for_programs_and_for_people(suite: Up) -> None:
    suite.call("run", "Good morning.")
    calls, spend = objects(suite.call("budgets"))
    assert (calls["name"], calls["limit"]) == ("calls", 1000000) and calls["used"] >= 1
    assert spend["scope"] == {"tenant": "default"} and spend["resets_at"]
    shown = suite.call("budgets", "--no-json").stdout
    assert "everybody" in shown and "1000000 requests" in shown and "never" in shown
    assert "$5.0000" in shown


@pytest.mark.feature("X3")
def test_the_sixty_seconds_of_the_readme_run_as_they_are(suite: Up) -> None:
    program = (ROOT / "services/suite/README.md").read_text().split("```python\n")[1].split("```")[0]
    env = environment(BEHEST_TARGET=suite.target)
    ended = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.stdout == "What is 6 times 7?\n1 What is 6 times 7?\n2 What is 6 times 7?\n", ended.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run", "Fail."], 1, ""),
        (["run", "x", "--model", "nowhere/m", "--no-json"], 1, "nowhere/m"),
        (["run", "x", "--agent", "nobody"], 4, "nobody"),
        (["run", "x", "--session", "no such session!"], 2, "session"),
        (["watch", "no-run"], 4, "no-run"),
        (["cancel", "no-run"], 4, "no-run"),
        (["sessions", "no-session"], 4, "no-session"),
        (["runs", "--limit", "many"], 2, "--limit"),
        (["dance"], 2, "dance"),
    ],
)
@pytest.mark.feature("X2")
def test_every_failure_is_one_message_and_its_exit_code(suite: Up, arguments: list[str], code: int, says: str) -> None:
    ended = suite.call(*arguments) if arguments != ["dance"] else behest("dance", cwd=suite.folder)
    assert ended.returncode == code, ended.stderr
    assert says in ended.stderr and "Traceback" not in ended.stderr


def test_a_named_target_where_nothing_listens_is_exit_code_3_with_what_to_do(tmp_path: Path) -> None:
    for ended in (
        behest("run", "x", "--target", "127.0.0.1:1", cwd=tmp_path),
        behest("runs", cwd=tmp_path, BEHEST_TARGET="127.0.0.1:1"),
    ):
        assert ended.returncode == 3 and "`behest up`" in ended.stderr and not list(tmp_path.iterdir())


@pytest.mark.feature("R7")
def test_a_run_can_be_cancelled_from_elsewhere_and_by_ctrl_c(suite: Up) -> None:
    command = [sys.executable, "-m", "suite", "run", SLOW, "--target", suite.target]
    for interrupt in (False, True):
        process = subprocess.Popen(
            command,
            cwd=suite.folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it, and so would this
        )
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        while json.loads(process.stdout.readline())["kind"] != "text_delta":
            pass
        if interrupt:
            process.send_signal(signal.SIGINT)
        else:
            assert suite.call("cancel", first["run_id"], "--reason", "enough").returncode == 0
        last = json.loads(process.stdout.read().splitlines()[-1])
        assert last["kind"] == "run_cancelled"
        assert last["data"]["reason"] == ("interrupted" if interrupt else "enough")
        assert process.wait(30) == (130 if interrupt else 1)


@pytest.mark.feature("O2")
def test_without_a_suite_one_runs_inside_the_command_and_its_data_stays(tmp_path: Path) -> None:
    (tmp_path / "behest.yaml").write_text(SETTINGS)
    spare = {"BEHEST_TARGET": ""}
    ended = behest("run", "Remember me.", "--no-json", cwd=tmp_path, **spare)
    if "no suite at" not in ended.stderr:
        pytest.skip("a suite listens at the default port of this machine")
    assert (ended.returncode, ended.stdout) == (0, "Remember me.\n")
    assert [run["title"] for run in objects(behest("runs", cwd=tmp_path, **spare))] == ["Remember me."]


def test_wrong_settings_are_all_named_at_once_with_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "behest.yaml").write_text("orchestrator: {agentz: {}}\nsession_store: {databaze: x}\n")
    ended = behest("up", "--port-base", "39000", cwd=tmp_path)
    assert ended.returncode == 2
    assert "did you mean agents" in ended.stderr and "did you mean database" in ended.stderr


def test_ports_in_use_are_said_with_the_way_out(suite: Up, tmp_path: Path) -> None:
    ended = behest("up", "--port-base", str(suite.base), "--no-local-model", cwd=tmp_path)
    assert ended.returncode == 2 and "--port-base" in ended.stderr


@pytest.mark.feature("X2")
def test_the_doctor_says_what_is_fine_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "behest.yaml").write_text(SETTINGS)
    found = {finding["check"]: finding for finding in objects(behest("doctor", cwd=tmp_path))}
    assert found["settings"]["ok"] is True and found["storage"]["ok"] is True
    assert "scripted/test answers" in found["model"]["text"]
    (tmp_path / "behest.yaml").write_text("session_store: {databaze: x}\n")
    ended = behest("doctor", cwd=tmp_path)
    assert ended.returncode == 1 and "did you mean database" in ended.stdout


@pytest.mark.feature("X2")
def test_chat_in_a_terminal_goes_on_in_one_session_until_quit(suite: Up) -> None:
    terminal = Terminal([sys.executable, "-m", "suite", "chat", "--target", suite.target], suite.folder)
    terminal.until("> ")
    for words in ("First words.", "Second words."):
        terminal.say(f"{words}\n")
        terminal.until("session ")
        terminal.until("> ")
    terminal.say("/quit\n")
    assert terminal.end() == 0
    sessions = {part.split()[0] for part in terminal.seen.split("session ")[1:]}
    assert len(sessions) == 1 and "Traceback" not in terminal.seen


class Terminal:
    """A command in a pseudo-terminal. `until` reads on to a text, not past it."""

    def __init__(self, command: list[str], folder: Path) -> None:
        self.seen, self._read_to = "", 0
        self._main, terminal = pty.openpty()
        env = environment(TERM="dumb")
        self._process = subprocess.Popen(command, cwd=folder, env=env, stdin=terminal, stdout=terminal, stderr=terminal, close_fds=True)
        os.close(terminal)

    def say(self, text: str) -> None:
        os.write(self._main, text.encode())

    def until(self, wanted: str) -> None:
        while wanted not in self.seen[self._read_to :]:
            ready, _, _ = select.select([self._main], [], [], 30)
            assert ready, f"{wanted!r} did not come; seen: {self.seen!r}"
            self.seen += os.read(self._main, 4096).decode()
        self._read_to = self.seen.index(wanted, self._read_to) + len(wanted)

    def end(self) -> int:
        try:
            return self._process.wait(30)
        finally:
            self._process.kill()
            os.close(self._main)


@pytest.mark.feature("O6")
@pytest.mark.feature("R12")
def test_four_processes_serve_survive_a_kill_and_stop_in_order(tmp_path: Path) -> None:
    (tmp_path / "behest.yaml").write_text(SETTINGS)
    up = start(tmp_path, "--processes")
    try:
        assert up.call("run", "Before.", "--no-json").stdout == "Before.\n"
        line = next(line for line in up.lines if line.startswith("provider-gateway"))
        os.kill(int(line.split("pid ")[1]), signal.SIGKILL)
        assert up.call("run", "After.", "--no-json").stdout == "After.\n"
        assert stop(up) == 0
    finally:
        up.process.kill()


@pytest.mark.feature("O2")
def test_help_is_quick_and_documents_the_exit_codes(tmp_path: Path) -> None:
    ended = behest("--help", cwd=tmp_path)
    assert ended.returncode == 0 and "Exit codes: 0 done" in " ".join(ended.stdout.split())
    heavy = "import sys, suite.cli.app; sys.exit(any(name in sys.modules for name in ('grpc', 'rich.console', 'pydantic', 'uvloop')))"
    assert subprocess.run([sys.executable, "-c", heavy], env=environment(), check=False).returncode == 0
