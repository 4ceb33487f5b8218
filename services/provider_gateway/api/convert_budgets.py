"""Budgets as messages of the contract. Pure."""

from __future__ import annotations

from behest.provider.v1 import provider_pb2
from provider_gateway.operations.budget_list import BudgetStatus


def budget_to(status: BudgetStatus) -> provider_pb2.BudgetStatus:
    """A cap and how much of it is used."""
    message = provider_pb2.BudgetStatus(
        name=status.cap.name,
        scope=status.bucket.scope,
        unit=status.cap.unit.value,  # type: ignore[arg-type] # the domain's numbers are the contract's
        window_seconds=status.cap.window,
        limit=status.cap.limit,
        used=status.totals.spent,
        reserved=status.totals.held,
    )
    if status.bucket.ends_at is not None:
        message.resets_at.FromSeconds(status.bucket.ends_at)
    return message
