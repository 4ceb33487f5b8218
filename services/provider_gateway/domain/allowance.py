"""How a cap is shared between replicas: each is granted an allowance, and holds calls to that without asking anybody.

Everything that keeps the cap lives in this file:

- a replica never holds or spends more than it was granted, but for a call that turns out dearer than its worst case;
- what is granted to all replicas together never passes the cap, but for the same;
- a replica says how it stands in absolute numbers, so that a report which comes twice, or whose answer is lost, changes nothing;
- an allowance is taken back by its replica alone. One whose replica is gone counts as spent.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from provider_gateway.domain.budgets import Bucket, Totals

FAR = 16
"""An allowance is taken in advance only while so many times as much is left: near the cap every call asks for itself."""


@dataclass(frozen=True, slots=True)
class Claim:
    """How a replica's allowance stands and what it should become: `wish` is what it wants to be granted in all.

    `known` says that it was granted something before, so that the other side must know it; `last` that it is given up.
    """

    id: str
    bucket: Bucket
    limit: int
    wish: int
    spent: int
    held: int
    known: bool = False
    last: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """What is kept of one allowance."""

    granted: int = 0
    spent: int = 0
    held: int = 0


@dataclass(frozen=True, slots=True)
class Grant:
    """What came of a claim: the allowance, None when it was counted as spent meanwhile, and how the bucket stands."""

    granted: int | None
    totals: Totals


def grant(claim: Claim, row: Row | None, totals: Totals) -> tuple[Row | None, Totals]:
    """What is kept of an allowance after a claim, None for nothing, and how its bucket stands then."""
    if row is None and (claim.known or claim.last):
        return None, totals  # it was given up, or counted as spent: the claim is an echo
    had = row or Row()
    left = claim.limit - (totals.granted - had.granted)
    granted = max(claim.spent + claim.held, min(claim.wish, max(had.granted, left)))
    now = Row(granted, claim.spent, claim.held)
    after = Totals(totals.granted + now.granted - had.granted, totals.spent + now.spent - had.spent, totals.held + now.held - had.held)
    return (None if claim.last else now), after


def bury(row: Row, totals: Totals) -> Totals:
    """How a bucket stands when the replica of an allowance is gone: all that it was granted counts as spent."""
    return Totals(totals.granted, totals.spent + row.granted - row.spent, totals.held - row.held)


@dataclass(slots=True, eq=False)
class Allowance:
    """A replica's own view of its allowance. `granted` is never more than what is kept of it elsewhere."""

    id: str
    bucket: Bucket
    limit: int
    granted: int = 0
    spent: int = 0
    held: int = 0
    known: bool = False
    totals: Totals = field(default_factory=Totals)
    idle: int = 0  # looks in a row that found it unused
    doubtful: bool = False  # a claim was made, and what came of it is not known yet
    _used: int = 0
    _used_before: int = 0
    _told: tuple[int, int, int] = (0, 0, 0)

    @property
    def free(self) -> int:
        """What can be held at once."""
        return self.granted - self.spent - self.held

    @property
    def near(self) -> bool:
        """Whether so little of the cap is left that nothing is taken in advance."""
        return self._advance(0) == 0

    def hold(self, amount: int) -> None:
        """Sets aside. Whoever holds more than is free has been told to do without the bank."""
        self.held += amount
        self._used += amount

    def settle(self, amount: int, real: int) -> None:
        """Ends a hold: so much of it was spent, or more."""
        self.held -= amount
        self.spent += real

    def look(self) -> None:
        """Another second has passed: what is taken in advance follows what was used in it."""
        self.idle = 0 if self._used or self.held else self.idle + 1
        self._used_before, self._used = self._used, 0

    def claim(self, waiting: int, *, whole: bool = False) -> Claim:
        """What to ask for when calls wait for so much. What it does not wish to keep it does not hold from now on.

        `whole` is for a replica that shares the cap with nobody: it takes all there is.
        """
        need = self.spent + self.held + waiting
        wish = max(need, self.limit) if whole else need + self._advance(waiting)
        self.granted, self.doubtful = min(self.granted, wish), True
        return Claim(self.id, self.bucket, self.limit, wish, self.spent, self.held, self.known)

    def last_claim(self) -> Claim:
        """Gives it up, when nothing is held."""
        self.granted = self.spent
        return Claim(self.id, self.bucket, self.limit, self.spent, self.spent, 0, self.known, last=True)

    def granting(self, claim: Claim, grant: Grant) -> bool:
        """Takes note of what came of a claim; False when the allowance was counted as spent and is none any more."""
        self.totals, self.doubtful = grant.totals, False
        if grant.granted is None:
            self.granted = 0
            return False
        self.granted, self.known = grant.granted, True
        self._told = (grant.granted, claim.spent, claim.held)
        return True

    def has_news(self, *, whole: bool = False) -> bool:
        """Whether the other side does not know how it stands, or it has more than it needs."""
        told = self._told == (self.granted, self.spent, self.held) and not self.doubtful
        return not told or (not whole and self.free > 0 and self.free > self._advance(0))

    def _advance(self, waiting: int) -> int:
        used = max(self._used + waiting, self._used_before)
        left = self.limit - self.totals.granted
        return used if self.known and left >= FAR * used else 0
