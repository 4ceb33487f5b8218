"""How a figure is judged."""

from __future__ import annotations

import math

import pytest

from bench.figures import Budget, Figure

FLOOR_AND_AIM = Budget(floor=1 / 5, aim=1 / 15)


@pytest.mark.parametrize(("ratio", "verdict"), [(0.05, "aim"), (1 / 15, "aim"), (0.1, "floor"), (0.2, "floor"), (0.21, "missed")])
def test_a_cost_reaches_the_aim_or_the_floor_or_misses_both(ratio: float, verdict: str) -> None:
    assert FLOOR_AND_AIM.verdict(ratio) == verdict


def test_a_rate_is_better_when_it_is_higher() -> None:
    rate = Budget(floor=10, aim=20, better="higher")
    assert [rate.verdict(ratio) for ratio in (25, 12, 9)] == ["aim", "floor", "missed"]


def test_where_nothing_was_promised_nothing_is_missed() -> None:
    assert Figure("case", "name", ours=9.0, theirs=1.0, against="peer", unit="ms").verdict == ""


def test_a_peer_that_cost_nothing_gives_no_ratio() -> None:
    assert math.isnan(Figure("case", "name", ours=1.0, theirs=0.0, against="peer", unit="ms").ratio)
