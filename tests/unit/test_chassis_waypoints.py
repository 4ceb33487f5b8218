"""Waypoints: each has a name, a sentence and a place in the code; none does anything unless a harness says so twice."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from chassis import waypoints
from chassis.faults import SettingsInvalid
from chassis.waypoints import ARGUMENT, PERMIT, POINTS, arm, disarm, waypoint

SERVICES = Path(__file__).resolve().parents[2] / "services"
PERMITTED = {PERMIT: "1"}


@pytest.fixture(autouse=True)
def disarmed() -> Iterator[None]:
    yield
    disarm()


def passed() -> Counter[str]:
    """The names that the code passes."""
    return Counter(
        name
        for path in SERVICES.rglob("*.py")
        if path.name != "waypoints.py"
        for name in re.findall(r"\bwaypoint\(\s*\"([^\"]+)\"", path.read_text())
    )


@pytest.mark.feature("R12")
def test_every_waypoint_is_passed_somewhere_and_every_passed_one_is_registered() -> None:
    assert set(passed()) == set(POINTS)


def test_every_waypoint_says_what_is_true_there() -> None:
    assert all(re.fullmatch(r"[a-z]+(\.[a-z]+)+", name) for name in POINTS)
    assert all(len(sentence) > 20 and not sentence.endswith(".") for sentence in POINTS.values())


def test_a_name_that_is_not_written_out_would_escape_the_register() -> None:
    calls = sum(len(re.findall(r"\bwaypoint\(", path.read_text())) for path in SERVICES.rglob("*.py") if path.name != "waypoints.py")
    assert calls == sum(passed().values())


def test_an_armed_process_acts_at_the_nth_passing_of_its_point_and_only_there(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    monkeypatch.setattr("os.kill", lambda _, number: sent.append(number))
    arm("executor.claimed:2:stop", PERMITTED)
    waypoint("executor.claimed")
    waypoint("executor.executed")
    assert sent == []
    waypoint("executor.claimed")
    waypoint("executor.claimed")
    assert sent == [signal.SIGSTOP]


def test_nothing_is_armed_without_the_permit_of_a_harness() -> None:
    for env in ({}, {PERMIT: ""}, {PERMIT: "0"}):
        with pytest.raises(SettingsInvalid, match=PERMIT):
            arm("executor.claimed:1:kill", env)
    assert waypoints._armed is None


def test_the_permit_alone_arms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PERMIT, "1")
    waypoint("executor.claimed")


@pytest.mark.parametrize("order", ["executor.claimd:1:kill", "executor.claimed", "executor.claimed:0:kill", "executor.claimed:1:explode"])
def test_a_wrong_order_is_refused_with_what_to_write(order: str) -> None:
    with pytest.raises(SettingsInvalid, match=ARGUMENT):
        arm(order, PERMITTED)


def test_a_service_without_the_permit_refuses_to_be_armed_and_does_not_start() -> None:
    command = [sys.executable, "-m", "session_store", f"{ARGUMENT}=store.announced:1:kill"]
    root = SERVICES.parent
    done = subprocess.run(
        command, cwd=root, env={"PYTHONPATH": f"{root / 'services'}:{root / 'gen'}"}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert PERMIT in done.stderr
