"""Who publishes which sessions: every shard has one publisher, positions only grow, and the work is shared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from session_store.domain.outbox import SHARDS, Held, Shard, Tending, is_held, mask_of, published_up_to, released, tended, whole

LEASE = 3.0


@dataclass
class Publisher:
    """A process as the table sees it."""

    name: str
    held: dict[int, Held] = field(default_factory=dict)
    busy: frozenset[int] = frozenset()

    def view(self, now: float, rows: Iterable[Shard] = ()) -> Tending:
        """Of one that has watched the others all along."""
        over = [row.lease for row in rows if row.expires_at <= now]
        return Tending(self.name, dict(self.held), self.busy, now, LEASE, over)


@dataclass
class Table:
    rows: dict[int, Shard] = field(default_factory=dict)

    def tend(self, publisher: Publisher, now: float, rule=tended) -> list[Shard]:
        changed = rule(list(self.rows.values()), publisher.view(now, self.rows.values()))
        self.rows.update({row.index: row for row in changed})
        publisher.held = {
            row.index: Held(row.epoch, max(row.number, publisher.held[row.index].number if row.index in publisher.held else 0))
            for row in self.rows.values()
            if row.owner == publisher.name
        }
        return changed

    def owners(self) -> Counter[str]:
        return Counter(row.owner for row in self.rows.values() if row.owner)


@pytest.mark.feature("E2")
def test_the_first_publisher_takes_all_shards_from_the_beginning() -> None:
    table, one = Table(), Publisher("one")
    table.tend(one, 0.0)
    assert one.held == {index: Held(1, 0) for index in range(SHARDS)}


@pytest.mark.feature("E2")
@pytest.mark.parametrize("count", [2, 3, 5, SHARDS, SHARDS + 3])
def test_publishers_that_come_later_get_their_share_and_then_nothing_moves(count: int) -> None:
    table, publishers = Table(), [Publisher(f"p{number}") for number in range(count)]
    now = 0.0
    for joined in range(1, count + 1):
        for _ in range(12):
            now += 0.5
            for publisher in publishers[:joined]:
                table.tend(publisher, now)
    owned = table.owners()
    assert sum(owned.values()) == SHARDS
    assert max(owned.values()) - min(owned[publisher.name] for publisher in publishers) <= 1
    before = {row.index: (row.owner, row.epoch) for row in table.rows.values()}
    for _ in range(10):
        now += 0.5
        for publisher in publishers:
            table.tend(publisher, now)
    assert {row.index: (row.owner, row.epoch) for row in table.rows.values()} == before


@pytest.mark.feature("E2")
def test_a_dead_publishers_shards_go_to_others_from_where_it_said_it_was() -> None:
    table, one, two = Table(), Publisher("one"), Publisher("two")
    table.tend(one, 0.0)
    one.held = {index: Held(held.epoch, 50) for index, held in one.held.items()}
    table.tend(one, 1.0)
    table.tend(two, 3.9)
    assert not two.held
    table.tend(two, 4.1)
    assert two.held == {index: Held(2, 50) for index in range(SHARDS)}


@pytest.mark.feature("E2")
def test_a_publisher_that_wakes_up_late_changes_nothing() -> None:
    table, one, two = Table(), Publisher("one"), Publisher("two")
    table.tend(one, 0.0)
    table.tend(two, 10.0)
    one.held = {index: Held(1, 999) for index in range(SHARDS)}
    before = dict(table.rows)
    table.tend(one, 10.1)
    assert all(row.number == 0 and row.owner == "two" for row in table.rows.values())
    assert {index: (row.owner, row.epoch) for index, row in before.items()} == {i: (r.owner, r.epoch) for i, r in table.rows.items()}
    assert not one.held


@pytest.mark.feature("E2")
def test_what_was_published_under_an_earlier_epoch_moves_nothing() -> None:
    row = Shard(0, number=5, owner="one", epoch=4, expires_at=9.0)
    assert row.number == 5 and not is_held(row, "one", {0: Held(3, 999)})
    assert all(changed.number == 5 for changed in tended([row], Publisher("one", {0: Held(3, 999)}).view(1.0)) if changed.index == 0)


@pytest.mark.feature("E2")
def test_a_publisher_that_was_late_goes_on_when_nobody_took_its_shards() -> None:
    table, one = Table(), Publisher("one")
    table.tend(one, 0.0)
    one.held = {index: Held(1, 7) for index in range(SHARDS)}
    table.tend(one, 100.0)
    assert {row.epoch for row in table.rows.values()} == {1}
    assert published_up_to(table.rows.values()) == 7


@pytest.mark.feature("E2")
def test_nothing_is_handed_over_while_it_is_on_its_way() -> None:
    table, one, two = Table(), Publisher("one"), Publisher("two")
    table.tend(one, 0.0)
    one.busy = frozenset(range(SHARDS))
    for now in (0.5, 1.0, 1.5, 2.0):
        table.tend(two, now)
        table.tend(one, now)
    assert table.owners() == {"one": SHARDS}
    one.busy = frozenset()
    for now in (2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 5.5, 6.0, 6.5):
        table.tend(one, now)
        table.tend(two, now)
    assert table.owners() == {"one": 4, "two": 4}


@pytest.mark.feature("E2")
@pytest.mark.parametrize("written", [-3600.0, 0.5, 3600.0])
def test_a_lease_is_over_when_it_was_seen_to_end_whatever_time_is_written_in_it(written: float) -> None:
    rows = [Shard(index, number=5, owner="one", epoch=1, expires_at=written) for index in range(SHARDS)]
    two = Tending("two", {}, frozenset(), 1.0, LEASE)
    assert all(row.owner == "one" for row in tended(rows, two))
    watched = replace(two, over=frozenset(row.lease for row in rows))
    assert {row.owner for row in tended(rows, watched)} == {"two"}
    renewed = [replace(row, expires_at=written + 0.1) for row in rows]
    assert all(row.owner == "one" for row in tended(renewed, watched)), "renewed since it was looked at"


def test_a_publisher_that_leaves_gives_all_to_others_at_once() -> None:
    table, one, two = Table(), Publisher("one"), Publisher("two")
    table.tend(one, 0.0)
    one.held = {index: Held(1, 5) for index in range(SHARDS)}
    table.tend(one, 0.1, released)
    table.tend(two, 0.2)
    assert two.held == {index: Held(2, 5) for index in range(SHARDS)}


def test_when_nothing_moved_nothing_is_written_until_the_lease_needs_it() -> None:
    table, one = Table(), Publisher("one")
    table.tend(one, 0.0)
    assert [bool(table.tend(one, now)) for now in (0.5, 0.9, 1.1, 1.5, 2.2)] == [False, False, True, False, True]


def test_shards_without_a_row_were_never_published() -> None:
    rows = [Shard(index, number=9) for index in range(SHARDS - 1)]
    assert published_up_to(rows) == 0
    assert published_up_to([*rows, Shard(SHARDS - 1, number=3)]) == 3
    assert len(whole([])) == SHARDS


def test_a_mask_has_a_bit_for_each_shard() -> None:
    assert [index for index in range(SHARDS) if mask_of({0, 3, 7}) >> index & 1] == [0, 3, 7]


STEPS = st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["tend", "advance", "leave", "sleep"]), st.floats(0, 5)), max_size=60)


@pytest.mark.feature("E2")
@settings(deadline=None)
@given(STEPS)
def test_whatever_publishers_do_positions_only_grow_and_an_epoch_has_one_owner(steps: list[tuple[int, str, float]]) -> None:
    table, publishers = Table(), [Publisher(f"p{number}") for number in range(4)]
    now, owners = 0.0, dict[tuple[int, int], str]()
    for who, what, amount in steps:
        publisher, before = publishers[who], dict(table.rows)
        now += amount if what == "sleep" else 0.01
        if what == "advance":
            publisher.held = {index: Held(held.epoch, held.number + round(amount)) for index, held in publisher.held.items()}
        elif what != "sleep":
            table.tend(publisher, now, released if what == "leave" else tended)
        for index, row in table.rows.items():
            assert index not in before or (row.number >= before[index].number and row.epoch >= before[index].epoch)
            if row.owner:
                assert owners.setdefault((index, row.epoch), row.owner) == row.owner
