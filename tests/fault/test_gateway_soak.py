"""Streams that are left in the middle, many at once: `make soak` does the same for longer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.feature("P16")
@pytest.mark.feature("O9")
def test_streams_that_are_left_leave_no_task_no_socket_and_no_reservation() -> None:
    command = [sys.executable, "-m", "tests.soak", "--calls", "2000", "--cancelled", "1000"]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
