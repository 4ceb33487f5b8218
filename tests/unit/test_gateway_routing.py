"""Where calls go: the order of targets, circuits and places, by their rules alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chassis.faults import (
    BudgetExhausted,
    Fault,
    FieldNotExpressible,
    Internal,
    ModelNotFound,
    ProviderContextOverflow,
    ProviderCredentialsRefused,
    ProviderRateLimited,
    ProviderRequestRefused,
    ProviderTimeout,
    ProviderUnavailable,
    RequestInvalid,
    StreamIncomplete,
)
from provider_gateway.domain.breaker import Admission, Breaker, Circuit, CircuitPolicy
from provider_gateway.domain.concurrency import Concurrency, ConcurrencyPolicy
from provider_gateway.domain.failover import Remedy, remedy
from provider_gateway.domain.pace import Pace
from provider_gateway.domain.routing import Choice, Standing, draw_of, order

choices = st.lists(st.builds(Choice, st.just("p/m"), st.floats(0.1, 100), st.integers(1, 3)), min_size=1, max_size=6)
draws = st.floats(0, 1, exclude_max=True)


@st.composite
def lots(draw: st.DrawFn) -> tuple[list[Choice], list[Standing], float]:
    drawn = draw(choices)
    return drawn, draw(st.lists(st.sampled_from(Standing), min_size=len(drawn), max_size=len(drawn))), draw(draws)


@pytest.mark.feature("P10")
@given(lots())
def test_every_target_is_asked_once_the_well_before_the_unwell_and_lower_tiers_first(
    lot: tuple[list[Choice], list[Standing], float],
) -> None:
    drawn, standings, draw = lot
    places = order(drawn, standings, draw)
    assert sorted(places) == list(range(len(drawn)))
    ranks = [(standings[place], drawn[place].tier) for place in places]
    assert ranks == sorted(ranks)
    assert places == order(drawn, standings, draw)


@pytest.mark.feature("P10")
def test_weights_are_shares_of_the_first_places_and_of_the_second_ones() -> None:
    drawn = [Choice("a", 3), Choice("b", 1), Choice("c", 4)]
    many = 8000
    orders = [order(drawn, [Standing.READY] * 3, number / many) for number in range(many)]
    firsts = [[places[0] for places in orders].count(place) / many for place in range(3)]
    assert firsts == pytest.approx([3 / 8, 1 / 8, 4 / 8], abs=0.001)
    after_c = [places[1] for places in orders if places[0] == 2]
    assert after_c.count(0) / len(after_c) == pytest.approx(3 / 4, abs=0.001)


@pytest.mark.feature("P10")
def test_a_request_id_draws_the_same_number_each_time_and_ids_spread_evenly() -> None:
    draws_ = [draw_of(f"run-{number}/1/1") for number in range(2000)]
    assert draws_ == [draw_of(f"run-{number}/1/1") for number in range(2000)]
    assert all(0 <= draw < 1 for draw in draws_)
    assert sum(draws_) / len(draws_) == pytest.approx(0.5, abs=0.03)


@pytest.mark.feature("P12")
@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (ProviderUnavailable("x"), Remedy.TIME),
        (ProviderTimeout("x"), Remedy.TIME),
        (StreamIncomplete("x"), Remedy.TIME),
        (ProviderRateLimited("x"), Remedy.TIME),
        (ProviderRateLimited("x", metadata={"code": "insufficient_quota"}), Remedy.ANOTHER),
        (ProviderCredentialsRefused("x"), Remedy.ANOTHER),
        (ModelNotFound("x"), Remedy.ANOTHER),
        (ProviderContextOverflow("x"), Remedy.ANOTHER),
        (FieldNotExpressible("x"), Remedy.ANOTHER),
        (BudgetExhausted("x"), Remedy.ANOTHER),
        (ProviderRequestRefused("x"), Remedy.NONE),
        (RequestInvalid("x"), Remedy.NONE),
        (Internal("x"), Remedy.NONE),
    ],
)
def test_what_may_mend_a_failure(fault: Fault, expected: Remedy) -> None:
    assert remedy(fault) is expected


POLICY = CircuitPolicy(error_rate=0.5, least_calls=4, window=10, first_pause=5, longest_pause=20)


def broken(now: float = 0.0) -> Breaker:
    breaker = Breaker(POLICY)
    for _ in range(4):
        breaker.failed(now)
    return breaker


@pytest.mark.feature("P14")
def test_a_circuit_opens_when_too_many_of_the_calls_of_late_failed() -> None:
    breaker = Breaker(POLICY)
    for _ in range(3):
        breaker.failed(0.0)
    assert breaker.circuit is Circuit.CLOSED
    for _ in range(4):
        breaker.answered(1.0)
    breaker.failed(1.0)
    assert breaker.circuit is Circuit.OPEN
    assert breaker.admit(5.9) is Admission.STAY
    assert breaker.admit(6.0) is Admission.PROBE


@pytest.mark.feature("P14")
def test_what_happened_before_the_window_is_forgotten() -> None:
    breaker = Breaker(POLICY)
    for _ in range(3):
        breaker.failed(0.0)
    breaker.failed(12.0)
    assert breaker.circuit is Circuit.CLOSED


@pytest.mark.feature("P14")
def test_the_probe_decides_and_each_failed_one_doubles_the_pause() -> None:
    breaker, now = broken(), 0.0
    for pause in (5, 10, 20, 20):
        assert breaker.admit(now + pause - 0.1) is Admission.STAY
        now += pause
        assert breaker.admit(now) is Admission.PROBE
        breaker.failed(now, probe=True)
    assert breaker.admit(now + 20) is Admission.PROBE
    breaker.answered(now + 20, probe=True)
    assert breaker.admit(now + 20) is Admission.GO


@pytest.mark.feature("P14")
def test_a_probe_that_tells_nothing_is_made_again_by_the_next_call() -> None:
    breaker = broken()
    assert breaker.admit(5.0) is Admission.PROBE
    assert breaker.admit(5.0) is Admission.STAY
    breaker.abandoned(6.0)
    assert breaker.admit(6.0) is Admission.PROBE


@pytest.mark.feature("P14")
@given(st.lists(st.tuples(st.sampled_from(["call", "good", "bad", "leave"]), st.floats(0, 3)), max_size=200))
def test_never_is_more_than_one_probe_under_way(happenings: list[tuple[str, float]]) -> None:
    breaker, now, under_way = Breaker(POLICY), 0.0, list[bool]()
    for kind, passed in happenings:
        now += passed
        if kind == "call":
            admission = breaker.admit(now)
            if admission is not Admission.STAY:
                under_way.append(admission is Admission.PROBE)
        elif under_way:
            probe = under_way.pop(0)
            if kind == "good":
                breaker.answered(now, probe)
            elif kind == "bad":
                breaker.failed(now, probe)
            elif probe:
                breaker.abandoned(now)
        assert sum(under_way) <= 1
        assert (breaker.circuit is Circuit.HALF_OPEN) is (sum(under_way) == 1)


@pytest.mark.feature("P14")
def test_a_target_has_no_limit_until_it_turns_a_call_away_and_none_again_once_it_bears_twice_as_many() -> None:
    places = Concurrency(ConcurrencyPolicy())
    for _ in range(10):
        assert places.has_room
        places.in_flight += 1
    places.overloaded(1.0, began=0.0)
    assert places.limit == 7
    places.in_flight = 7
    places.overloaded(1.5, began=0.5)
    assert places.limit == 7, "what began before the cut does not cut again"
    places.overloaded(2.0, began=1.2)
    assert places.limit == 4
    limits = []
    while places.limit:
        limits.append(places.limit)
        places.in_flight = places.limit
        places.answered()
    assert limits == sorted(limits)
    assert max(limits) == 13


@pytest.mark.feature("P14")
def test_answers_that_begin_much_later_than_usual_are_a_sign_of_overload() -> None:
    places = Concurrency(ConcurrencyPolicy(slow_factor=4))
    places.in_flight = 20
    for number in range(100):
        places.began_output(number + 0.4, number)
    assert not places.limit
    for number in range(100, 120):
        places.began_output(number + 4.0, number)
    assert 0 < places.limit <= 14


@pytest.mark.feature("P14")
@given(
    st.builds(ConcurrencyPolicy, st.integers(0, 8).map(lambda most: most), st.integers(1, 3)).filter(
        lambda p: not p.most or p.most >= p.least
    ),
    st.lists(st.sampled_from(["enter", "good", "refused", "slow"]), max_size=300),
)
def test_no_call_begins_beyond_the_limit_and_the_limit_keeps_its_bounds(policy: ConcurrencyPolicy, happenings: list[str]) -> None:
    places = Concurrency(policy)
    for now, kind in enumerate(happenings):
        if kind == "enter":
            if places.has_room:
                places.in_flight += 1
                assert not places.limit or places.in_flight <= places.limit
        elif places.in_flight:
            if kind == "good":
                places.answered()
            elif kind == "refused":
                places.overloaded(float(now), now - 0.5)
            else:
                places.began_output(float(now), now - 20.0)
            places.in_flight -= 1
        assert places.limit >= policy.least or not places.limit
        assert not policy.most or 0 < places.limit <= policy.most


def paced(gaps: list[float], characters: int, rate: float = 1.0, window: float = 30.0) -> bool:
    """Whether a stream with these pauses before its pieces is too slow somewhere."""
    pace, now = Pace(rate, window), 100.0
    pace.begin(now)
    for gap in gaps:
        now += gap
        if pace.too_slow(now, characters):
            return True
    return False


@pytest.mark.feature("P13")
@pytest.mark.parametrize("gap", [2.0, 9.0, 35.0])
def test_a_stream_that_drips_is_too_slow_however_it_spaces_its_drops(gap: float) -> None:
    assert paced([gap] * 50, 1)


@pytest.mark.feature("P13")
def test_a_pause_is_no_dripping_and_neither_is_a_steady_stream() -> None:
    assert not paced([0.5] * 1000, 1)
    assert not paced([0.1] * 100 + [300.0] + [0.1] * 1000, 1)
    assert not paced([9.0] * 100, 1, rate=0.0)


@pytest.mark.feature("P13")
def test_time_in_which_it_was_not_the_providers_turn_does_not_count() -> None:
    pace = Pace(1.0, 30.0)
    pace.begin(0.0)
    now = 0.0
    for _ in range(100):
        now += 0.5
        assert not pace.too_slow(now, 1)
        pace.shift(20.0)
        now += 20.0


@pytest.mark.feature("P13")
@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 50)), max_size=60), st.floats(0.1, 5), st.floats(1, 60))
def test_a_stream_that_never_falls_below_the_rate_is_never_too_slow(pieces: list[tuple[float, int]], rate: float, window: float) -> None:
    pace, now = Pace(rate, window), 0.0
    pace.begin(now)
    for gap, characters in pieces:
        gap = min(gap, characters / rate)
        now += gap
        assert not pace.too_slow(now, characters + 1)
