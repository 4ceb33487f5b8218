"""Which provider answers a request, and what is known of its model. Routing over several targets will live behind `Routes.target`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from chassis.faults import RequestInvalid, Violation
from provider_gateway.domain.admission import require
from provider_gateway.domain.catalogue import Catalogue
from provider_gateway.domain.chat import ChatRequest
from provider_gateway.domain.embeddings import EmbedRequest, require_embeddings
from provider_gateway.domain.models import Model, ModelTraits, Price, ProviderStatus
from provider_gateway.domain.naming import Names
from provider_gateway.operations.limits import TimeLimits
from provider_gateway.operations.ports import ModelCall, Provider
from provider_gateway.operations.retries import RetryBudget

PriceList = Callable[[str, str], Price | None]


@dataclass(frozen=True, slots=True)
class Access:
    """A provider and the terms on which it is called."""

    provider: Provider
    limits: TimeLimits
    budget: RetryBudget


@dataclass(frozen=True, slots=True)
class Target:
    """Where one request goes."""

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


@dataclass(frozen=True, slots=True)
class EmbedTarget:
    """Where inputs to embed go, with the model in the provider's words."""

    access: Access
    model: str
    traits: ModelTraits


class Routes:
    """The configured providers and what is known of their models."""

    def __init__(self, accesses: Mapping[str, Access], catalogue: Catalogue, names: Names, price_list: PriceList) -> None:
        self._accesses, self._catalogue, self._names, self._price_list = accesses, catalogue, names, price_list

    def target(self, request: ChatRequest) -> Target:
        """Where a request goes; raises ModelNotFound, or CapabilityMissing for what its model is known to lack."""
        name = self._names.resolve(request.model)
        access = self._accesses[name.provider]
        traits = self._traits(access.provider, name.model)
        if traits.capabilities is not None:
            require(request, traits.capabilities, f"{name.provider}/{name.model}")
        limit = traits.capabilities.max_output_tokens if traits.capabilities else 0
        return Target(access, ModelCall(request, name.model, limit), traits)

    def embedding(self, request: EmbedRequest) -> EmbedTarget:
        """Where inputs go; raises ModelNotFound, or CapabilityMissing where the model is known not to embed."""
        name = self._names.resolve(request.model)
        access = self._accesses[name.provider]
        traits = self._traits(access.provider, name.model)
        require_embeddings(traits, f"{name.provider}/{name.model}")
        return EmbedTarget(access, name.model, traits)

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
        return [ProviderStatus(p.name, p.adapter, p.base_url, p.problem()) for p in providers]

    def _traits(self, provider: Provider, model: str) -> ModelTraits:
        traits = self._catalogue.traits(provider.name, provider.adapter, model)
        if traits.price is not None or provider.name not in self._catalogue.own_service:
            return traits
        return ModelTraits(traits.capabilities, self._price_list(provider.adapter, model))
