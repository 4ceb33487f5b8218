"""Caps on what calls may consume, as the calls see them: reserve before each attempt, settle after it."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from provider_gateway.domain.answers import Usage
from provider_gateway.domain.models import Price


@dataclass(frozen=True, slots=True)
class Expense:
    """What an attempt may cost at most, and whose it is. Output tokens are None where nothing bounds them."""

    provider: str
    model: str
    budget_key: str
    input_tokens: int
    output_tokens: int | None
    price: Price | None


class Reservation(Protocol):
    """What is set aside for one attempt."""

    def used(self, usage: Usage) -> None:
        """What the provider says that the attempt consumed so far; replaces the report before."""

    def produced(self, characters: int) -> None:
        """More output came: what the bill of an attempt is estimated from when it is cut off before its usage is known."""


class Spending(Protocol):
    """Holds calls to their caps."""

    def reserve(self, expense: Expense) -> AbstractAsyncContextManager[Reservation]:
        """Sets aside what the body may consume. Raises BudgetExhausted when a cap does not have it.

        However the body ends, what it consumed is settled and the rest given back: nothing, where the upstream was never reached.
        """


class Unbounded:
    """No caps, and a reservation of nothing."""

    def reserve(self, expense: Expense) -> AbstractAsyncContextManager[Reservation]:
        """Itself."""
        return self

    async def __aenter__(self) -> Reservation:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def used(self, usage: Usage) -> None:
        """Does nothing."""

    def produced(self, characters: int) -> None:
        """Does nothing."""
