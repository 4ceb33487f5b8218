"""The demo: what it shows is what happened."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from suite.embedded import local_model_installed

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not local_model_installed(), reason="the local model is not installed: make setup-demo")
@pytest.mark.feature("X1")
@pytest.mark.feature("R12")
def test_the_demo_answers_calls_a_tool_and_survives_a_kill(tmp_path: Path) -> None:
    env = {key: value for key, value in os.environ.items() if not key.startswith("BEHEST")}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "services"), str(ROOT / "gen")])
    command = [sys.executable, "-m", "suite", "demo", "--data", str(tmp_path / "data")]
    ended = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=110, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "calculator succeeded" in ended.stdout and "7006652, says the calculator" in ended.stdout
    assert "kill -9" in ended.stdout and "run resumed" in ended.stdout
    assert "3 runs, 1 session" in ended.stdout and "resumed 1 time, none lost" in ended.stdout


def test_without_the_local_model_it_says_what_to_install(tmp_path: Path) -> None:
    hidden = "import suite.local_model as m, sys; m.SERVER_PACKAGE = 'not-installed'; from suite.cli import main; sys.exit(main(['demo']))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "services"), str(ROOT / "gen")])}
    ended = subprocess.run([sys.executable, "-c", hidden], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2 and "pip install" in ended.stderr and "Traceback" not in ended.stderr
