"""Where calls go: what an alias stands for, and in which order its targets are asked.

The order is a pure function of weights, tiers, how the targets fare and one number, so that whoever repeats a call with the same number
goes the same way.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

_SCALE = 2.0**-53


@dataclass(frozen=True, slots=True)
class Choice:
    """One target of an alias: `model` as provider/model. Within a tier targets are drawn by weight; tiers are asked in their order."""

    model: str
    weight: float = 1.0
    tier: int = 1


@dataclass(frozen=True, slots=True)
class Hedge:
    """When a second target is asked although the first has not failed: after `after` seconds without output.

    With a `percentile` it is after the time within which so many in a hundred of the first target's answers of late had begun; `after`
    is what holds until enough of them are known.
    """

    after: float
    percentile: float | None = None


@dataclass(frozen=True, slots=True)
class Alias:
    """What an alias stands for, and how its calls are made."""

    choices: tuple[Choice, ...]
    continues: bool = False
    hedge: Hedge | None = None

    @classmethod
    def of(cls, model: str) -> Alias:
        """An alias of one model."""
        return cls((Choice(model),))


class Standing(enum.IntEnum):
    """How a target fares, the better the smaller."""

    READY = 0
    FULL = 1
    COOLING = 2
    OPEN = 3


def draw_of(text: str) -> float:
    """A number from 0 to 1, 1 excluded, that is always the same for the same text and evenly spread over texts."""
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return (int.from_bytes(digest) >> 11) * _SCALE


def order(choices: Sequence[Choice], standings: Sequence[Standing], draw: float) -> list[int]:
    """The places of the choices in the order in which they are asked. `draw` is from 0 to 1, 1 excluded.

    Those that fare well come before those that do not; among equals lower tiers come first; within a tier chance decides by weight.
    """
    drawn: list[int] = []
    for tier in sorted({choice.tier for choice in choices}):
        members = [place for place, choice in enumerate(choices) if choice.tier == tier]
        while members:
            place, draw = _drawn(members, choices, draw)
            drawn.append(place)
            members.remove(place)
    return sorted(drawn, key=standings.__getitem__)


def _drawn(members: Sequence[int], choices: Sequence[Choice], draw: float) -> tuple[int, float]:
    """The member that the number falls on, and the number anew: where in the member's share it fell is as even as it was."""
    if len(members) == 1:
        return members[0], draw
    point = draw * sum(choices[place].weight for place in members)
    for place in members[:-1]:
        weight = choices[place].weight
        if point < weight:
            return place, point / weight
        point -= weight
    last = members[-1]
    return last, min(point / choices[last].weight, 1 - _SCALE)
