"""Settings of budgets: part of the section provider_gateway."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from provider_gateway.domain.budgets import Cap, Unit
from provider_gateway.operations.budgets import Terms


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


WINDOWS = {"1m": 60, "1h": 3600, "1d": 86_400, "30d": 30 * 86_400, "none": 0}
_UNITS = {"requests": Unit.REQUESTS, "tokens": Unit.TOKENS, "usd": Unit.NANO_USD}


class BudgetSettings(_Settings):
    """A cap on what calls consume, for each of what it is cut by."""

    name: str = Field(min_length=1, max_length=64, description="What refusals and lists call it. A cap that is renamed begins anew.")
    unit: Literal["requests", "tokens", "usd"] = Field(description="What is counted: calls, tokens read and written, or US dollars.")
    limit: float = Field(gt=0, le=9e9, description="The cap, in its unit.")
    window: Literal["1m", "1h", "1d", "30d", "none"] = Field(
        "1d", description="How long it is for, counted from 1970-01-01 00:00 UTC; with none it never refills."
    )
    per: tuple[Literal["tenant", "key", "model"], ...] = Field(
        ("tenant",), description="Who has one each: every tenant, every budget_key, every model; [] is one for everybody together."
    )
    tenants: tuple[str, ...] = Field((), description="Only calls of these tenants, with * and ? as wildcards. Default: all.")
    keys: tuple[str, ...] = Field((), description="Only calls with these budget keys. Default: all.")
    models: tuple[str, ...] = Field((), description="Only calls of these models, as provider/model. Default: all.")
    unknown_price: Literal["refuse", "allow"] = Field("refuse", description="What becomes of models without a known price, under usd.")

    def cap(self) -> Cap:
        """The same as the domain has it."""
        limit = round(self.limit * 1e9) if self.unit == "usd" else int(self.limit)
        unit, window, unpriced = _UNITS[self.unit], WINDOWS[self.window], self.unknown_price == "allow"
        return Cap(self.name, unit, limit, window, frozenset(self.per), self.tenants, self.keys, self.models, unpriced)

    @model_validator(mode="after")
    def _counts_whole(self) -> Self:
        if self.unit != "usd" and self.limit != int(self.limit):
            raise ValueError(f"limit: {self.limit} {self.unit} cannot be counted; write a whole number")
        return self


class BudgetTermsSettings(_Settings):
    """What holds for all budgets."""

    expected_output_tokens: int = Field(
        4096, ge=1, description="Set aside for an answer that neither the request nor what is known of the model bounds."
    )
    on_storage_failure: Literal["refuse", "allow"] = Field(
        "refuse", description="Calls under a budget while the database is away: refused, or let through and counted when it is back."
    )

    def terms(self) -> Terms:
        """The same as the operations have it."""
        return Terms(self.expected_output_tokens, self.on_storage_failure == "allow")
