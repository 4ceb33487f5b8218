"""Builds the provider gateway. The only file that knows every class."""

from __future__ import annotations

import functools
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase

from behest.provider.v1 import provider_service_pb2_grpc
from chassis.faults import ModelNotFound, ProviderCredentialsMissing, SettingsInvalid
from chassis.kafka.settings import NO_KAFKA, KafkaSettings
from chassis.rpc import App, Methods, default_pipeline
from chassis.settings import Secret
from chassis.world import Clock, World
from provider_gateway.adapters.anthropic import AnthropicProvider, AnthropicWire
from provider_gateway.adapters.call_records import CallPublications, publishing
from provider_gateway.adapters.gemini import GeminiWire
from provider_gateway.adapters.http.aiohttp_client import AiohttpClient, HttpOptions
from provider_gateway.adapters.http.provider import Endpoint, HttpProvider
from provider_gateway.adapters.http.transport import Http
from provider_gateway.adapters.memory_bank import MemoryBank
from provider_gateway.adapters.ollama import OllamaWire
from provider_gateway.adapters.openai import OpenAiWire, Server, server_of
from provider_gateway.adapters.openai_responses import Dialect as ResponsesDialect
from provider_gateway.adapters.openai_responses import OpenAiResponsesWire
from provider_gateway.adapters.price_list import known_price
from provider_gateway.adapters.scripted import ScriptedProvider, script_of
from provider_gateway.adapters.wire import Wire
from provider_gateway.alias_settings import alias_of
from provider_gateway.api.provider_service import ProviderServicer
from provider_gateway.domain.catalogue import Catalogue
from provider_gateway.domain.naming import Names
from provider_gateway.domain.schemas import ANY_SERVER, OPENAI_STRICT
from provider_gateway.operations.attempts import Attempts
from provider_gateway.operations.bank import Bank
from provider_gateway.operations.budget_list import BudgetList
from provider_gateway.operations.budgets import Budgets, keeping
from provider_gateway.operations.chats import Chats
from provider_gateway.operations.counts import TokenCounts
from provider_gateway.operations.course import Manners
from provider_gateway.operations.embeddings import Embeddings
from provider_gateway.operations.health import Health
from provider_gateway.operations.ports import Provider
from provider_gateway.operations.recording import SILENCE, CallRecorder, Recorder
from provider_gateway.operations.response_cache import Answering, CachedChats, ResponseCache
from provider_gateway.operations.retries import RetryBudget
from provider_gateway.operations.routes import Access, Routes
from provider_gateway.operations.signals import OwnSignals, Signals
from provider_gateway.operations.spending import Spending, Unbounded
from provider_gateway.settings import (
    AnthropicSettings,
    AnyHttpProvider,
    AnyProvider,
    GeminiSettings,
    OllamaSettings,
    OpenAiResponsesSettings,
    OpenAiSettings,
    ProviderGatewaySettings,
    ScriptedSettings,
)

NAME = "provider-gateway"
OPENAI, ANTHROPIC = OpenAiSettings().base_url, AnthropicSettings(adapter="anthropic").base_url
GEMINI = GeminiSettings(adapter="gemini").base_url
VERTEX = "aiplatform.googleapis.com"


@asynccontextmanager
async def open_app(settings: ProviderGatewaySettings, world: World, kafka: KafkaSettings = NO_KAFKA) -> AsyncIterator[App]:
    """The gateway, ready to be served. Wrong settings raise SettingsInvalid here; missing keys do not: see ListProviders."""
    async with AsyncExitStack() as stack:
        http = AiohttpClient(HttpOptions(**settings.http.model_dump()))
        stack.push_async_callback(http.close)
        shared = await _open_shared(settings, world, stack)
        health = _health(settings, world.clock, shared.signals)
        routes = _routes(settings, http, world.clock, health)
        manners = Manners(settings.retries.policy(), random.random)
        recorder = await _open_recorder(kafka, world, stack) if kafka.on else SILENCE
        methods = Methods(NAME, default_pipeline())
        attempts, uncapped = Attempts(health, manners, world.clock, shared.spending), Attempts(health, manners, world.clock)
        chats, embeddings = Chats(routes, attempts, recorder), Embeddings(routes, attempts, recorder)
        servicer = ProviderServicer(
            _cached(chats, settings, routes, world.clock), embeddings, TokenCounts(routes, uncapped), routes, BudgetList(shared.budgets)
        )
        provider_service_pb2_grpc.add_ProviderServiceServicer_to_server(servicer, methods.server())
        yield App(NAME, methods, ready=_readiness(settings, routes, shared.check))


def _cached(chats: Chats, settings: ProviderGatewaySettings, routes: Routes, clock: Clock) -> Answering:
    bounds = settings.response_cache.bounds()
    return CachedChats(chats, ResponseCache(bounds, clock), routes.stands_for) if bounds.entries else chats


@dataclass(frozen=True, slots=True)
class _Shared:
    """What replicas share: `budgets` is None where there are no caps, `check` where calls do not depend on a database."""

    signals: Signals
    spending: Spending
    budgets: Budgets | None = None
    check: Callable[[], Awaitable[None]] | None = None


async def _open_shared(settings: ProviderGatewaySettings, world: World, stack: AsyncExitStack) -> _Shared:
    signals: Signals
    bank: Bank
    check: Callable[[], Awaitable[None]] | None
    signals, bank, check = OwnSignals(world.clock), MemoryBank(world.clock), None
    if settings.database.is_postgres:
        from provider_gateway.adapters.postgres import open_postgres_storage  # asyncpg is loaded where it is used

        storage = await stack.enter_async_context(open_postgres_storage(settings.database.url, world))
        signals, bank = storage.signals, storage.bank
        check = None if settings.budget_terms.on_storage_failure == "allow" else storage.check
    elif settings.database.sqlite_path is not None:
        raise SettingsInvalid("provider_gateway.database names SQLite, which replicas cannot share; name a PostgreSQL, or memory:")
    if not settings.budgets:
        return _Shared(signals, Unbounded())
    caps = [budget.cap() for budget in settings.budgets]
    budgets = await stack.enter_async_context(keeping(Budgets(caps, bank, world, settings.budget_terms.terms())))
    return _Shared(signals, budgets, budgets, check)


async def _open_recorder(kafka: KafkaSettings, world: World, stack: AsyncExitStack) -> Recorder:
    from chassis.kafka.publisher import open_publisher  # aiokafka is loaded where it is used

    publisher = await stack.enter_async_context(open_publisher(kafka, world.clock, NAME))
    publications = CallPublications(publisher, kafka.topics.provider_calls.name, world.clock)
    return CallRecorder(await stack.enter_async_context(publishing(publications)), world)


def _health(settings: ProviderGatewaySettings, clock: Clock, signals: Signals) -> Health:
    policies = {name: own.concurrency.policy() for name, own in settings.all_providers().items()}
    return Health(settings.circuit.policy(), policies.__getitem__, clock, signals)


def _routes(settings: ProviderGatewaySettings, http: Http, clock: Clock, health: Health) -> Routes:
    configured, build = settings.all_providers(), _Builder(http, clock, settings.stream_window_ms / 1000)
    policy = settings.retries.policy()
    caching = settings.prompt_caching.caching()
    accesses = {
        name: Access(build.provider(name, own), own.limits.times(), RetryBudget(policy), caching) for name, own in configured.items()
    }
    catalogue = Catalogue(
        {name: {model: traits.traits() for model, traits in own.models.items()} for name, own in configured.items()},
        own_service=frozenset(name for name, own in configured.items() if _is_own_service(name, own)),
    )
    listed = {name: catalogue.names(name, own.adapter) for name, own in configured.items()}
    aliases = {name: alias_of(given) for name, given in settings.aliases.items()}
    names = Names(configured.keys(), listed, aliases, settings.default_model)
    _check_names(settings, names)
    return Routes(accesses, catalogue, names, known_price, health, random.random)


@dataclass(frozen=True, slots=True)
class _Builder:
    """Builds providers; `window` is in seconds."""

    http: Http
    clock: Clock
    window: float

    def provider(self, name: str, own: AnyProvider) -> Provider:
        match own:
            case OpenAiSettings():
                server = _server(name, own)
                chat = OpenAiWire(name, server.dialect, extra=own.extra)
                return self._http_provider(name, chat, own, server.variable, server.base_url)
            case OpenAiResponsesSettings():
                at_home = own.base_url == OPENAI
                strict = OPENAI_STRICT if at_home else ANY_SERVER
                asked = ResponsesDialect(own.store, own.reasoning_summary or "", counts=at_home, strict=strict)
                return self._http_provider(name, OpenAiResponsesWire(name, asked), own, "OPENAI_API_KEY" if at_home else "")
            case OllamaSettings():
                return self._http_provider(name, OllamaWire(name, own.options, own.keep_alive), own, "")
            case AnthropicSettings():
                endpoint = self._endpoint(own, "ANTHROPIC_API_KEY" if own.base_url == ANTHROPIC else "")
                return AnthropicProvider(name, AnthropicWire(name), endpoint, self.http, self.clock)
            case GeminiSettings():
                wire = GeminiWire(name, vertex=VERTEX in own.base_url)
                return self._http_provider(name, wire, own, "GEMINI_API_KEY" if own.base_url == GEMINI else "")
            case ScriptedSettings():
                return ScriptedProvider(name, script_of(own.script, f"provider_gateway.providers.{name}.script"), self.clock)

    def _http_provider(self, name: str, wire: Wire, own: AnyHttpProvider, variable: str, base_url: str = "") -> HttpProvider:
        return HttpProvider(name, wire, self._endpoint(own, variable, base_url), self.http, self.clock)

    def _endpoint(self, own: AnyHttpProvider, variable: str, base_url: str = "") -> Endpoint:
        default = (Secret(f"env:{variable}"),) if variable else ()
        keys = [key.read for key in own.api_keys or ((own.api_key,) if own.api_key else default)]
        headers = {header: value.read for header, value in own.headers.items()}
        return Endpoint(base_url or own.base_url, keys[0] if keys else None, headers, own.limits.event_bytes, self.window, keys[1:])


def _server(name: str, own: OpenAiSettings) -> Server:
    base_url = own.base_url if "base_url" in own.model_fields_set else None
    return server_of(f"provider_gateway.providers.{name}", base_url, own.dialect, own.quirks())


def _is_own_service(name: str, own: AnyProvider) -> bool:
    match own:
        case OpenAiSettings():
            return _server(name, own).base_url == OPENAI
        case ScriptedSettings():
            return True
    return own.base_url in (OPENAI, ANTHROPIC, GEMINI)


def _check_names(settings: ProviderGatewaySettings, names: Names) -> None:
    """Raises SettingsInvalid for an alias or default that names no configured provider."""
    named = [(f"aliases.{name}", choice.model) for name, alias in names.aliases.items() for choice in alias.choices]
    for key, model in named:
        _check_name(key, functools.partial(names.model, model))
    if settings.default_model:
        _check_name("default_model", functools.partial(names.resolve, settings.default_model))
    for budget in settings.budgets:
        for model in budget.models:
            _check_capped(f"budgets {budget.name}: models", model, names)


def _check_capped(key: str, model: str, names: Names) -> None:
    """Raises SettingsInvalid for a pattern of models that no call can be of, such as an alias: a budget that caps nothing."""
    provider, slash, _ = model.partition("/")
    begins = provider if slash else model[: model.find("*") + 1]
    if any(fnmatchcase(known if slash else f"{known}/", begins) for known in names.providers):
        return
    _check_name(key, functools.partial(names.model, model))
    raise SettingsInvalid(f"provider_gateway.{key}: {model!r} holds for no call; write provider/model, with * and ? as wildcards")


def _check_name(key: str, resolve: Callable[[], object]) -> None:
    try:
        resolve()
    except ModelNotFound as fault:
        raise SettingsInvalid(f"provider_gateway.{key}: {fault.message}") from None


def _readiness(
    settings: ProviderGatewaySettings, routes: Routes, check: Callable[[], Awaitable[None]] | None
) -> Callable[[], Awaitable[None]]:
    """Ready when the default model's provider can be called, the others are looked at when they are asked for, and so can the database."""

    async def ready() -> None:
        if check is not None:
            await check()
        problem = routes.default_problem() if settings.default_model else ""
        if problem:
            raise ProviderCredentialsMissing(problem)

    return ready
