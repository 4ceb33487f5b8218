"""Every example runs and says what it promises."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run_example(name: str, folder: Path) -> str:
    env = {key: value for key, value in os.environ.items() if not key.endswith("_API_KEY") and not key.startswith("BEHEST")}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "services"), str(ROOT / "gen")])
    command = [sys.executable, str(ROOT / "examples" / name)]
    ended = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


@pytest.mark.feature("X5")
def test_chat_keeps_two_turns_in_one_session(tmp_path: Path) -> None:
    said = run_example("chat.py", tmp_path)
    assert "> What is my name?" in said and "The session holds 4 messages." in said


@pytest.mark.feature("X5")
@pytest.mark.feature("T2")
def test_tools_runs_the_functions_of_its_own_file(tmp_path: Path) -> None:
    said = run_example("tools.py", tmp_path)
    assert "calls convert" in said and said.endswith("100 EUR are 125 USD.\n")
