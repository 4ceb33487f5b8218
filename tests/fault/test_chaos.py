"""The crash harness, one minute of it: whatever is killed, frozen, restarted and cut off meanwhile, every promise is kept."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chaos.servers import lacking

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60
"""Of faults; with the start, the way to rest and the judgement it is some twenty more."""


@pytest.mark.feature("R12")
@pytest.mark.feature("R4")
@pytest.mark.feature("R6")
@pytest.mark.feature("R11")
@pytest.mark.feature("T7")
@pytest.mark.feature("S3")
@pytest.mark.feature("S4")
@pytest.mark.feature("S6")
@pytest.mark.feature("E2")
@pytest.mark.feature("E5")
@pytest.mark.timeout(480)
def test_a_minute_of_everything_that_can_break_breaks_no_promise(tmp_path: Path) -> None:
    if lack := lacking("postgres", kafka=True):
        pytest.skip(lack)
    command = [sys.executable, "-m", "tests.chaos", "--duration", str(SECONDS), "--seed", "7", "--folder", str(tmp_path / "chaos")]
    done = subprocess.run([*command, "--backend", "postgres", "--kafka"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr[-4000:]
