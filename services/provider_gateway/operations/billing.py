"""What an attempt is set aside for and what it is billed: by its usage where that is known, else by estimate. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from chassis.faults import (
    CallerFault,
    ProviderBusy,
    ProviderContextOverflow,
    ProviderCredentialsMissing,
    ProviderCredentialsRefused,
    ProviderPermissionDenied,
    ProviderRateLimited,
    ProviderRequestRefused,
    ProviderUnavailable,
)
from provider_gateway.domain.answers import Usage
from provider_gateway.domain.budgets import Cap, heaviest, weight
from provider_gateway.domain.estimate import ASCII_PER_TOKEN
from provider_gateway.operations.spending import Expense

REFUSED = (
    CallerFault,
    ProviderBusy,
    ProviderContextOverflow,
    ProviderCredentialsMissing,
    ProviderCredentialsRefused,
    ProviderPermissionDenied,
    ProviderRateLimited,
    ProviderRequestRefused,
    ProviderUnavailable,
)
"""Ends of an attempt that cost nothing when there was no output: the provider was not reached, or said no.

Every other end may have been billed by the provider: a time-out, an answer that cannot be read, a caller that went away.
"""


def reserved(cap: Cap, expense: Expense, unbounded: int) -> int:
    """What an attempt weighs at worst; where nothing bounds its output, `unbounded` tokens are expected."""
    output = unbounded if expense.output_tokens is None else expense.output_tokens
    return heaviest(cap.unit, expense.input_tokens, output, expense.price)


@dataclass(slots=True)
class Bill:
    """What is known of one attempt's consumption; a Reservation."""

    expense: Expense
    usage: Usage | None = None
    characters: int = 0

    def used(self, usage: Usage) -> None:
        """The provider's word so far."""
        self.usage = usage

    def produced(self, characters: int) -> None:
        """More output."""
        self.characters += characters

    def final(self, error: BaseException | None) -> Usage | None:
        """What the attempt consumed, None when nothing. `error` is what it ended with.

        A report that came before the end is completed: of what was produced after it, an estimate.
        """
        estimated = -(-self.characters // ASCII_PER_TOKEN)
        if self.usage is None:
            if isinstance(error, REFUSED) and not self.characters:
                return None
            return Usage(input_tokens=self.expense.input_tokens, output_tokens=estimated)
        if error is None or self.usage.output_tokens >= estimated:
            return self.usage
        return replace(self.usage, output_tokens=estimated, cost_known=False)

    def weight(self, cap: Cap, error: BaseException | None) -> int:
        """What the attempt weighs under a cap now that it has ended."""
        usage = self.final(error)
        return 0 if usage is None else weight(cap.unit, usage, self.expense.price)
