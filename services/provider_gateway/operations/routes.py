"""Which providers' models may answer a request, in which order, and what is known of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from chassis.faults import CapabilityMissing, RequestInvalid, Violation
from provider_gateway.domain.admission import lacking, needs, require
from provider_gateway.domain.catalogue import Catalogue
from provider_gateway.domain.chat import ChatRequest, PromptCaching
from provider_gateway.domain.embeddings import EmbedRequest, require_embeddings
from provider_gateway.domain.models import Model, ModelTraits, Price, ProviderStatus
from provider_gateway.domain.naming import ModelName, Names
from provider_gateway.domain.prompt_cache import settled
from provider_gateway.domain.routing import Alias, Choice, Hedge, draw_of, order
from provider_gateway.operations.health import Health
from provider_gateway.operations.limits import TimeLimits
from provider_gateway.operations.ports import EXPLICIT, ModelCall, Provider
from provider_gateway.operations.retries import RetryBudget

MOST_KNOWN = 4096
PriceList = Callable[[str, str], Price | None]


@dataclass(frozen=True, slots=True)
class Access:
    """A provider and the terms on which it is called; `caching` holds for requests that do not say how their prompt is cached."""

    provider: Provider
    limits: TimeLimits
    budget: RetryBudget
    caching: PromptCaching = EXPLICIT


class Askable(Protocol):
    """A model of a provider that can be asked for something."""

    @property
    def name(self) -> str:
        """It, as provider/model."""

    @property
    def access(self) -> Access:
        """Its provider."""

    @property
    def model(self) -> str:
        """It, in the provider's words."""

    @property
    def window(self) -> int:
        """Tokens that fit into one call; 0 when unknown."""


@dataclass(frozen=True, slots=True)
class Target:
    """A model of a provider, and what it is asked. `name` is provider/model."""

    name: str
    access: Access
    call: ModelCall
    traits: ModelTraits

    @property
    def model(self) -> str:
        """The model in the provider's words."""
        return self.call.model

    @property
    def streams(self) -> bool:
        """Whether to ask for a stream: unless the model is known not to give one."""
        capabilities = self.traits.capabilities
        return capabilities is None or capabilities.streaming

    @property
    def window(self) -> int:
        """Tokens that fit into one call; 0 when unknown."""
        return self.traits.capabilities.context_tokens if self.traits.capabilities else 0


@dataclass(frozen=True, slots=True)
class Route:
    """Where one request may go, in order, and the alias that says so; at least one target."""

    targets: tuple[Target, ...]
    alias: Alias | None = None

    @property
    def first(self) -> Target:
        """The target to ask first, whose limit in time holds for the whole call."""
        return self.targets[0]

    @property
    def continues(self) -> bool:
        """Whether a target may go on with what another one delivered."""
        return self.alias is not None and self.alias.continues

    @property
    def hedge(self) -> Hedge | None:
        """When a second target is asked beside the first; never where there is one alone."""
        return self.alias.hedge if self.alias is not None and len(self.targets) > 1 else None


@dataclass(frozen=True, slots=True)
class EmbedTarget:
    """Where inputs to embed go, with the model in the provider's words."""

    name: str
    access: Access
    model: str
    traits: ModelTraits
    window: int = 0


class Routes:
    """The configured providers and what is known of their models. `chance` gives numbers from 0 to 1, 1 excluded."""

    def __init__(
        self,
        accesses: Mapping[str, Access],
        catalogue: Catalogue,
        names: Names,
        price_list: PriceList,
        health: Health,
        chance: Callable[[], float],
    ) -> None:
        self._accesses, self._catalogue, self._names, self._price_list = accesses, catalogue, names, price_list
        self._health, self._chance = health, chance
        self._known: dict[str, ModelTraits] = {}

    def route(self, request: ChatRequest) -> Route:
        """Where a request may go; raises ModelNotFound, or CapabilityMissing for what all its models are known to lack."""
        alias = self._names.alias(request.model)
        if alias is None or len(alias.choices) == 1:
            target = self._target(self._names.resolve(request.model), request)
            if target.traits.capabilities is not None:
                require(request, target.traits.capabilities, target.name)
            return Route((target,), alias)
        return Route(tuple(self._in_order(request, self._able(request, alias))), alias)

    def stands_for(self, model: str) -> tuple[str, ...]:
        """The targets that a name of a request stands for, as provider/model. Raises ModelNotFound."""
        alias = self._names.alias(model)
        resolved = [self._names.resolve(model)] if alias is None else [self._names.model(choice.model) for choice in alias.choices]
        return tuple(f"{name.provider}/{name.model}" for name in resolved)

    def embedding(self, request: EmbedRequest) -> EmbedTarget:
        """Where inputs go: to one target, of an alias the first, for vectors of different models have nothing in common.

        Raises ModelNotFound, or CapabilityMissing where the model is known not to embed.
        """
        name = self._names.resolve(request.model)
        access = self._accesses[name.provider]
        traits = self._traits(access.provider, name.model)
        require_embeddings(traits, f"{name.provider}/{name.model}")
        return EmbedTarget(f"{name.provider}/{name.model}", access, name.model, traits)

    def default_problem(self) -> str:
        """Why the default model cannot be called; empty when it can."""
        return self._accesses[self._names.resolve("").provider].provider.problem()

    def models(self, provider: str = "") -> list[Model]:
        """The models that can be called now, of one provider or of all, sorted by name."""
        if provider and provider not in self._accesses:
            text = f"no provider {provider!r}; configured are {', '.join(sorted(self._accesses))}"
            raise RequestInvalid(text, violations=(Violation("provider", "not configured"),))
        asked = [self._accesses[provider]] if provider else self._accesses.values()
        ready = [access.provider for access in asked if not access.provider.problem()]
        models = [Model(p.name, model, self._traits(p, model)) for p in ready for model in self._catalogue.names(p.name, p.adapter)]
        return sorted(models, key=lambda model: model.name)

    def providers(self) -> list[ProviderStatus]:
        """The configured providers, sorted by name."""
        providers = sorted((access.provider for access in self._accesses.values()), key=lambda provider: provider.name)
        return [ProviderStatus(p.name, p.adapter, p.base_url, p.problem(), self._health.statuses(p.name)) for p in providers]

    def _able(self, request: ChatRequest, alias: Alias) -> list[tuple[Choice, Target]]:
        """The targets that are not known to lack what the request needs."""
        needed, lacks, able = needs(request), dict[str, list[str]](), list[tuple[Choice, Target]]()
        for choice in alias.choices:
            target = self._target(self._names.model(choice.model), request)
            missing = lacking(needed, target.traits.capabilities) if target.traits.capabilities else []
            if missing:
                lacks[target.name] = missing
            else:
                able.append((choice, target))
        if not able:
            raise _nobody_able(request.model, lacks)
        return able

    def _in_order(self, request: ChatRequest, able: list[tuple[Choice, Target]]) -> list[Target]:
        choices, targets = [choice for choice, _ in able], [target for _, target in able]
        draw = draw_of(f"{request.model} {request.request_id}") if request.request_id else self._chance()
        return [targets[place] for place in order(choices, [self._health.standing(target.name) for target in targets], draw)]

    def _target(self, name: ModelName, request: ChatRequest) -> Target:
        access, full = self._accesses[name.provider], f"{name.provider}/{name.model}"
        traits = self._known.get(full) or self._learnt(full, access.provider, name.model)
        limit = traits.capabilities.max_output_tokens if traits.capabilities else 0
        caching = settled(request.prompt_caching, access.caching, traits.capabilities is None or traits.capabilities.prompt_caching)
        return Target(full, access, ModelCall(request, name.model, limit, caching), traits)

    def _learnt(self, name: str, provider: Provider, model: str) -> ModelTraits:
        """The traits, which are the same for ever and kept for the next call; bounded, for callers can name any model."""
        if len(self._known) >= MOST_KNOWN:
            self._known.clear()
        traits = self._known[name] = self._traits(provider, model)
        return traits

    def _traits(self, provider: Provider, model: str) -> ModelTraits:
        traits = self._catalogue.traits(provider.name, provider.adapter, model)
        return traits if traits.price is not None else ModelTraits(traits.capabilities, self._price_list(provider.base_url, model))


def _nobody_able(alias: str, lacks: Mapping[str, list[str]]) -> CapabilityMissing:
    each = "; ".join(f"{name} lacks {', '.join(missing)}" for name, missing in lacks.items())
    return CapabilityMissing(
        f"no target of {alias or 'the default model'} has what the request needs: {each}; add one that has, or correct its capabilities",
        metadata={"model": alias, "missing": ",".join(sorted({need for missing in lacks.values() for need in missing}))},
    )
