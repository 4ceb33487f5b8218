"""A lease is over when it stayed as it is for its length by the watcher's own clock, whatever wall clocks say."""

from __future__ import annotations

import pytest

from session_store.domain.session import DriverId
from session_store.operations.ports import Lease
from session_store.operations.silence import Silence

D1, D2 = DriverId("d1"), DriverId("d2")
WALL = 1_700_000_000.0


def lease(driver: DriverId = D1, expires_at: float = WALL + 3) -> Lease:
    return Lease(driver, "stream", expires_at)


def watched(*moments: float, now: float = WALL, **values: float) -> list[bool]:
    """Whether one lease that nobody renews is over at each moment."""
    silence = Silence[Lease](3.0)
    return [bool(silence.look({D1: lease(**values)}, now, moment)) for moment in moments]


@pytest.mark.feature("S6")
def test_a_lease_that_nobody_renews_is_over_after_its_length() -> None:
    assert watched(0, 1, 2, 2.9, 3) == [False, False, False, False, True]


@pytest.mark.feature("S6")
def test_a_renewed_lease_goes_on_while_another_ends() -> None:
    silence = Silence[Lease](3.0)
    for moment in range(3):
        assert silence.look({D1: lease(D1, WALL + 3 + moment), D2: lease(D2)}, WALL, moment) == []
    assert silence.look({D1: lease(D1, WALL + 6), D2: lease(D2)}, WALL, 3) == [lease(D2)]


@pytest.mark.feature("R12")
@pytest.mark.parametrize(("left", "over_at"), [(0.5, 0.5), (-10.0, 0.0), (3600.0, 3.0)])
def test_a_watch_that_begins_believes_the_written_end_if_it_is_near(left: float, over_at: float) -> None:
    moments = [quarter / 4 for quarter in range(14)]
    assert moments[watched(*moments, expires_at=WALL + left).index(True)] == over_at


@pytest.mark.feature("S6")
@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_wall_clock_that_jumps_ends_no_lease_and_makes_none_last(jump: float) -> None:
    silence = Silence[Lease](3.0)
    assert silence.look({D1: lease()}, WALL, 0) == []
    over = [bool(silence.look({D1: lease()}, WALL + jump, moment)) for moment in (1, 2, 2.9, 3)]
    assert over == [False, False, False, True]
    renewed = lease(expires_at=WALL + jump + 3)
    assert [bool(silence.look({D1: renewed}, WALL + jump, moment)) for moment in (3.1, 4.5, 6, 6.2)] == [False, False, False, True]


@pytest.mark.feature("R12")
def test_a_watch_that_was_interrupted_gives_every_driver_its_full_time_again() -> None:
    """Nobody could renew while the storage was away."""
    assert watched(0, 1, 60, 61, 62, 62.9, 63) == [False, False, False, False, False, False, True]
