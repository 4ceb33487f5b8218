"""The law of shared caps: whatever comes when, however often, and whoever dies, a cap is passed by what calls cost too much alone."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from provider_gateway.domain.allowance import FAR, Allowance, Claim, Grant, Row, bury, grant
from provider_gateway.domain.budgets import Bucket, Totals

pytestmark = pytest.mark.feature("P15")
BUCKET = Bucket("cap", "tenant", "", "", 1, 0, 0)
LIMIT = 4  # small, so that orders of few steps come near it
REPLICAS = 2


@dataclass
class World:
    """A bank, replicas, and questions and answers on their way between them."""

    totals: Totals = field(default_factory=Totals)
    rows: dict[str, Row] = field(default_factory=dict)
    replicas: list[Allowance] = field(default_factory=lambda: [fresh(n) for n in range(REPLICAS)])
    asked: dict[int, Claim] = field(default_factory=dict)
    holds: list[tuple[Allowance, int]] = field(default_factory=list)
    really_spent: int = 0
    overshoot: int = 0
    born: int = REPLICAS

    def reserve(self, which: int, amount: int) -> None:
        allowance = self.replicas[which]
        if allowance.free >= amount:
            allowance.hold(amount)
            self.holds.append((allowance, amount))

    def settle(self, which: int, real: int) -> None:
        if self.holds:
            allowance, amount = self.holds.pop(which % len(self.holds))
            allowance.settle(amount, real)
            self.really_spent += real
            self.overshoot += max(0, real - amount)

    def ask(self, which: int, waiting: int) -> None:
        self.asked.setdefault(which, self.replicas[which].claim(waiting))

    def arrive(self, which: int, answered: bool, twice: bool) -> None:
        claim = self.asked.pop(which, None)
        if claim is None:
            return
        for _ in range(1 + twice):
            row, self.totals = grant(claim, self.rows.get(claim.id), self.totals)
            if row is None:
                self.rows.pop(claim.id, None)
            else:
                self.rows[claim.id] = row
        if answered:
            allowance = self.replicas[which]
            granted = None if row is None else row.granted
            if not allowance.granting(claim, Grant(granted, self.totals)):
                self.replace(which)

    def call(self, which: int, amount: int) -> None:
        """What most calls do."""
        self.ask(which, amount)
        self.arrive(which, answered=True, twice=False)
        self.reserve(which, amount)

    def lose(self, which: int) -> None:
        """What is not used is given back, and the answer never comes."""
        self.ask(which, 0)
        self.arrive(which, answered=False, twice=False)

    def give_up(self, which: int) -> None:
        allowance = self.replicas[which]
        if not allowance.held and allowance.known and which not in self.asked:
            claim = allowance.last_claim()
            _, self.totals = grant(claim, self.rows.pop(claim.id, None), self.totals)
            self.replace(which)

    def look(self, which: int) -> None:
        self.replicas[which].look()

    def bury(self, which: int) -> None:
        """A replica is taken for dead; it may be alive, and hears of it later."""
        if self.rows:
            row = self.rows.pop(sorted(self.rows)[which % len(self.rows)])
            self.totals = bury(row, self.totals)

    def die(self, which: int) -> None:
        """The calls under way were made, and nobody tells what they cost; not more than was set aside."""
        dead = self.replicas[which]
        self.really_spent += dead.held
        self.holds = [(allowance, amount) for allowance, amount in self.holds if allowance is not dead]
        self.asked.pop(which, None)
        self.replace(which)

    def replace(self, which: int) -> None:
        self.born += 1
        self.replicas[which] = fresh(self.born)


def fresh(number: int) -> Allowance:
    return Allowance(f"allowance-{number}", BUCKET, LIMIT)


which = st.integers(0, REPLICAS - 1)
amounts = st.sampled_from([2, 4])
steps = st.one_of(
    st.tuples(st.just("reserve"), which, amounts),
    st.tuples(st.just("settle"), st.integers(0, 2), st.sampled_from([0, 2, 5])),
    st.tuples(st.just("ask"), which, st.sampled_from([0, 2])),
    st.tuples(st.just("arrive"), which, st.just(True), st.just(False)),
    st.tuples(st.just("call"), which, amounts),
    st.tuples(st.just("lose"), which),
    st.tuples(st.just("call"), which, amounts),
    st.tuples(st.just("arrive"), which, st.booleans(), st.booleans()),
    st.tuples(st.just("give_up"), which),
    st.tuples(st.just("look"), which),
    st.tuples(st.just("bury"), which),
    st.tuples(st.just("die"), which),
)


@settings(max_examples=2000, deadline=None)
@given(st.lists(steps, min_size=10, max_size=60))
def test_no_order_of_reserving_settling_losing_and_dying_passes_the_cap(history: list[tuple[object, ...]]) -> None:
    world = World()
    for name, *arguments in history:
        getattr(world, str(name))(*arguments)
        assert world.really_spent <= LIMIT + world.overshoot
        held = sum(amount for _, amount in world.holds)
        assert world.really_spent + held <= LIMIT + world.overshoot, "what is under way fits too"
        assert world.totals.spent >= 0 and world.totals.held >= 0
        kept = world.rows.values()
        assert world.totals.held == sum(row.held for row in kept)
        assert world.totals.granted - world.totals.spent == sum(row.granted - row.spent for row in kept), "the rest is nobody's"


@settings(deadline=None)
@given(st.lists(st.tuples(which, st.integers(1, 50)), max_size=60))
def test_where_nobody_is_lost_the_bank_knows_what_was_spent_to_the_last_token(calls: list[tuple[int, int]]) -> None:
    world = World()
    for replica, amount in calls:
        world.ask(replica, amount)
        world.arrive(replica, answered=True, twice=False)
        world.reserve(replica, amount)
        world.settle(0, amount // 2)
    for replica in range(REPLICAS):
        world.ask(replica, 0)
        world.arrive(replica, answered=True, twice=False)
    assert world.totals.spent == world.really_spent and world.totals.held == 0


def test_far_from_the_cap_an_allowance_for_the_next_second_is_taken_and_near_it_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.LIMIT", 1000)
    world = World()
    for _ in range(3):
        world.ask(0, 10)
        world.arrive(0, answered=True, twice=False)
        world.reserve(0, 10)
        world.look(0)
    assert world.replicas[0].free >= 10, "the next call need not ask"
    world.ask(1, LIMIT - world.totals.granted - 10)
    world.arrive(1, answered=True, twice=False)
    assert LIMIT - world.totals.granted < FAR * 10
    for _ in range(2):  # the first answer tells how little is left
        world.ask(0, 0)
        world.arrive(0, answered=True, twice=False)
    assert world.replicas[0].free == 0
