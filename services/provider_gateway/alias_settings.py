"""What model names of the user's own stand for: key aliases of section provider_gateway."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from provider_gateway.domain.routing import Alias, Choice, Hedge

Positive = Annotated[float, Field(gt=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TargetSettings(_Settings):
    """One target of an alias."""

    model: str = Field(min_length=1, description="The model, as provider/model.")
    weight: float = Field(1, gt=0, description="Its share of the calls, among targets of the same tier.")
    tier: int = Field(1, ge=1, description="Targets of a higher tier are asked when those of the lower ones fail.")

    def choice(self) -> Choice:
        """The same as the domain has it."""
        return Choice(self.model, self.weight, self.tier)


def _form(given: object) -> str:
    return "text" if isinstance(given, str) else "list" if isinstance(given, list) else "section"


Target = Annotated[Annotated[str, Tag("text")] | Annotated[TargetSettings, Tag("section")], Discriminator(_form)]
Targets = Annotated[list[Target], Field(min_length=1)]


class AliasSettings(_Settings):
    """What a name stands for, and how its calls are made."""

    targets: Targets = Field(description="The models that may answer, each as provider/model or with a weight and a tier.")
    continue_after_output: bool = Field(
        False,
        description="Let another target go on, or the same one, where a stream of plain text breaks off, if its model can (continuing).",
    )
    hedge_after_ms: Positive | None = Field(
        None, description="Ask a second target too when the first has given no output for so long; the first output wins. Unset: never."
    )
    hedge_percentile: float | None = Field(
        None,
        gt=0,
        lt=100,
        description="With hedge_after_ms: rather after the time in which so many in a hundred of the target's last streams began,"
        " once 20 are known.",
    )

    @model_validator(mode="after")
    def _hedges_after_something(self) -> AliasSettings:
        if self.hedge_percentile is not None and self.hedge_after_ms is None:
            raise ValueError("hedge_percentile needs hedge_after_ms, which holds until enough is known")
        if self.hedge_after_ms is not None and len(self.targets) < 2:
            raise ValueError("hedge_after_ms needs a second target")
        return self

    def hedge(self) -> Hedge | None:
        """When a second target is asked."""
        return None if self.hedge_after_ms is None else Hedge(self.hedge_after_ms / 1000, self.hedge_percentile)


AnyAlias = Annotated[
    Annotated[str, Tag("text")] | Annotated[Targets, Tag("list")] | Annotated[AliasSettings, Tag("section")], Discriminator(_form)
]


def alias_of(given: AnyAlias) -> Alias:
    """The alias that a text, a list or a section describes."""
    if isinstance(given, str):
        return Alias.of(given)
    own = given if isinstance(given, AliasSettings) else AliasSettings(targets=given)
    choices = tuple(Choice(target) if isinstance(target, str) else target.choice() for target in own.targets)
    return Alias(choices, own.continue_after_output, own.hedge())
