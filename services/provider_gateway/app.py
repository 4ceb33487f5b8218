"""Builds the provider gateway. The only file that knows every class."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from behest.provider.v1 import provider_service_pb2_grpc
from chassis.faults import ModelNotFound, ProviderCredentialsMissing, SettingsInvalid
from chassis.rpc import App, Methods, default_pipeline
from chassis.settings import Secret
from chassis.world import Clock, World
from provider_gateway.adapters.anthropic import AnthropicWire
from provider_gateway.adapters.http.aiohttp_client import AiohttpClient, HttpOptions
from provider_gateway.adapters.http.provider import Endpoint, HttpProvider
from provider_gateway.adapters.http.transport import Http
from provider_gateway.adapters.openai import Dialect, OpenAiWire
from provider_gateway.adapters.price_list import known_price
from provider_gateway.adapters.scripted import ScriptedProvider, script_of
from provider_gateway.api.provider_service import ProviderServicer
from provider_gateway.domain.catalogue import Catalogue
from provider_gateway.domain.naming import Names
from provider_gateway.operations.chats import Chats, Manners
from provider_gateway.operations.ports import Provider
from provider_gateway.operations.retries import RetryBudget, RetryPolicy
from provider_gateway.operations.routes import Access, Routes
from provider_gateway.settings import AnthropicSettings, OpenAiSettings, ProviderGatewaySettings, ScriptedSettings

NAME = "provider-gateway"
OPENAI, ANTHROPIC = OpenAiSettings().base_url, AnthropicSettings(adapter="anthropic").base_url


@asynccontextmanager
async def open_app(settings: ProviderGatewaySettings, world: World) -> AsyncIterator[App]:
    """The gateway, ready to be served. Wrong settings raise SettingsInvalid here; missing keys do not: see ListProviders."""
    http = AiohttpClient(HttpOptions(**settings.http.model_dump()))
    try:
        routes = _routes(settings, http, world.clock)
        manners = Manners(settings.retries.policy(), settings.stream_window_ms / 1000, random.random)
        methods = Methods(NAME, default_pipeline())
        servicer = ProviderServicer(Chats(routes, manners, world.clock), routes)
        provider_service_pb2_grpc.add_ProviderServiceServicer_to_server(servicer, methods.server())
        yield App(NAME, methods, ready=_readiness(settings, routes))
    finally:
        await http.close()


def _routes(settings: ProviderGatewaySettings, http: Http, clock: Clock) -> Routes:
    configured = settings.all_providers()
    policy = settings.retries.policy()
    accesses = {name: _access(name, own, http, clock, policy) for name, own in configured.items()}
    catalogue = Catalogue(
        {name: {model: traits.traits() for model, traits in own.models.items()} for name, own in configured.items()},
        own_service=frozenset(name for name, own in configured.items() if _is_own_service(own)),
    )
    listed = {name: catalogue.names(name, own.adapter) for name, own in configured.items()}
    names = Names(configured.keys(), listed, settings.aliases, settings.default_model)
    _check_names(settings, names)
    return Routes(accesses, catalogue, names, known_price)


def _access(name: str, own: OpenAiSettings | AnthropicSettings | ScriptedSettings, http: Http, clock: Clock, policy: RetryPolicy) -> Access:
    return Access(_provider(name, own, http, clock), own.limits.times(), RetryBudget(policy))


def _provider(name: str, own: OpenAiSettings | AnthropicSettings | ScriptedSettings, http: Http, clock: Clock) -> Provider:
    match own:
        case OpenAiSettings():
            at_home = own.base_url == OPENAI
            dialect = Dialect(own.max_tokens_field or ("max_completion_tokens" if at_home else "max_tokens"), own.stream_usage)
            endpoint = _endpoint(own, "OPENAI_API_KEY" if at_home else "")
            return HttpProvider(name, OpenAiWire(name, dialect), endpoint, http, clock)
        case AnthropicSettings():
            endpoint = _endpoint(own, "ANTHROPIC_API_KEY" if own.base_url == ANTHROPIC else "")
            return HttpProvider(name, AnthropicWire(name), endpoint, http, clock)
        case ScriptedSettings():
            return ScriptedProvider(name, script_of(own.script, f"provider_gateway.providers.{name}.script"), clock)


def _endpoint(own: OpenAiSettings | AnthropicSettings, variable: str) -> Endpoint:
    secret = own.api_key or (Secret(f"env:{variable}") if variable else None)
    key: Callable[[], str] | None = secret.read if secret else None
    return Endpoint(own.base_url, key, own.headers, own.limits.event_bytes)


def _is_own_service(own: OpenAiSettings | AnthropicSettings | ScriptedSettings) -> bool:
    return isinstance(own, ScriptedSettings) or own.base_url in (OPENAI, ANTHROPIC)


def _check_names(settings: ProviderGatewaySettings, names: Names) -> None:
    """Raises SettingsInvalid for an alias or default that names no configured provider."""
    named = {f"aliases.{alias}": alias for alias in settings.aliases}
    if settings.default_model:
        named["default_model"] = settings.default_model
    for key, name in named.items():
        try:
            names.resolve(name)
        except ModelNotFound as fault:
            raise SettingsInvalid(f"provider_gateway.{key}: {fault.message}") from None


def _readiness(settings: ProviderGatewaySettings, routes: Routes) -> Callable[[], Awaitable[None]]:
    """Ready when the default model's provider can be called; the others are looked at when they are asked for."""

    async def ready() -> None:
        problem = routes.default_problem() if settings.default_model else ""
        if problem:
            raise ProviderCredentialsMissing(problem)

    return ready
