"""Who gets the next place: the rules alone, and the settings that feed them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from session_store.domain.priority import PRIORITY_SECONDS, Priority, rank
from session_store.domain.run import Assignment
from session_store.domain.schedule import Candidate, Queue, RunLimits, TenantLimits, choose
from session_store.domain.session import RunId, Tenant
from session_store.settings import SessionStoreSettings


def queue(tenant: str, running: int, *ranks: float) -> Queue:
    made = [
        Candidate(place, value, Assignment(RunId(f"{tenant}{place}"), Tenant(tenant), 1, 1)) for place, value in enumerate(sorted(ranks))
    ]
    return Queue(Tenant(tenant), running, tuple(made))


def chosen(queues: list[Queue], places: int, limits: RunLimits | None = None) -> list[str]:
    return [candidate.assignment.run_id for candidate in choose(queues, limits or RunLimits(), places)]


@pytest.mark.feature("R22")
def test_the_tenant_that_runs_least_goes_first_and_the_oldest_when_they_run_equally_many() -> None:
    assert chosen([queue("a", 0, 1, 2, 3), queue("b", 1, 0, 0)], 4) == ["a0", "b0", "a1", "b1"]
    assert chosen([queue("a", 0, 5), queue("b", 0, 4), queue("c", 0, 6)], 2) == ["b0", "a0"]


@pytest.mark.feature("R22")
def test_a_step_of_priority_is_worth_so_much_waiting_and_no_more() -> None:
    assert rank(100.0, Priority.HIGH) < rank(100.0 - PRIORITY_SECONDS + 1, Priority.NORMAL)
    assert rank(100.0, Priority.HIGH) > rank(100.0 - PRIORITY_SECONDS - 1, Priority.NORMAL)
    assert rank(100.0, Priority.LOW) < rank(100.0 + 2 * PRIORITY_SECONDS + 1, Priority.HIGH)


queues = st.lists(
    st.tuples(st.integers(0, 5), st.lists(st.floats(0, 1e9), max_size=8)),
    max_size=5,
).map(lambda drawn: [queue(f"t{place}-", running, *ranks) for place, (running, ranks) in enumerate(drawn)])


@pytest.mark.feature("R22")
@given(queues, st.integers(0, 20), st.integers(1, 6))
def test_places_go_to_waiting_runs_in_order_within_limits_and_as_evenly_as_can_be(waiting: list[Queue], places: int, limit: int) -> None:
    limits = RunLimits(each=TenantLimits(limit, 1))
    got = list(choose(waiting, limits, places))
    taken = {each.tenant: [candidate for candidate in got if candidate in each.candidates] for each in waiting}
    running = {each.tenant: each.running + len(taken[each.tenant]) for each in waiting}
    assert len(got) <= places
    for each in waiting:
        assert taken[each.tenant] == list(each.candidates[: len(taken[each.tenant])]), "out of order"
        assert not taken[each.tenant] or running[each.tenant] <= limit
        left = len(taken[each.tenant]) < len(each.candidates) and running[each.tenant] < limit
        assert not left or len(got) == places, "a place was left although a run waits"
        others = [running[other.tenant] for other in waiting if taken[other.tenant]]
        assert not left or all(count <= running[each.tenant] + 1 for count in others), "another tenant got more"


@pytest.mark.feature("R22")
@pytest.mark.feature("O1")
def test_a_tenants_own_limits_win_and_the_rest_is_that_of_all() -> None:
    given = {"running_runs": 9, "running_runs_per_tenant": 4, "waiting_runs_per_tenant": 5, "tenants": {"a": {"running_runs": 1}}}
    limits = SessionStoreSettings(limits=given).run_limits  # type: ignore[arg-type]
    assert (limits.running, limits.of(Tenant("a")), limits.of(Tenant("b"))) == (9, TenantLimits(1, 5), TenantLimits(4, 5))
    assert SessionStoreSettings().run_limits == RunLimits()
    with pytest.raises(ValidationError):
        SessionStoreSettings(limits={"running_runs": 0})  # type: ignore[arg-type]
