"""The provider gateway's settings: section provider_gateway of the configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from chassis.database import Database
from chassis.settings import Secret
from provider_gateway.alias_settings import AnyAlias
from provider_gateway.budget_settings import BudgetSettings, BudgetTermsSettings
from provider_gateway.cache_settings import PromptCachingSettings, ResponseCacheSettings
from provider_gateway.domain.breaker import CircuitPolicy
from provider_gateway.domain.concurrency import ConcurrencyPolicy
from provider_gateway.model_settings import ModelSettings
from provider_gateway.operations.limits import TimeLimits
from provider_gateway.operations.retries import RetryPolicy

Positive = Annotated[float, Field(gt=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LimitSettings(_Settings):
    """How long a provider may take and how much it may send."""

    first_output_seconds: Positive = Field(120, description="Until the first output of a stream.")
    idle_seconds: Positive = Field(60, description="Between two signs of life of a stream.")
    minimum_rate: float = Field(
        1,
        ge=0,
        description="Characters a second that a stream must give once its output has begun; its longest pause is not counted. 0: any.",
    )
    rate_window_seconds: Positive = Field(30, description="Over how long that is measured.")
    call_seconds: Positive = Field(600, description="A whole call with its retries, when the caller sets no earlier deadline.")
    event_bytes: int = Field(8 * 1024 * 1024, ge=1024, description="One event of a stream.")

    def times(self) -> TimeLimits:
        """The limits in time."""
        return TimeLimits(self.first_output_seconds, self.idle_seconds, self.call_seconds, self.minimum_rate, self.rate_window_seconds)


class ConcurrencySettings(_Settings):
    """How many calls a model of a provider is given at once. Without a limit until it first shows that it has one; then as it bears."""

    most: int = Field(0, ge=0, description="The most at once, however well it answers. 0: as many as it takes.")
    least: int = Field(1, ge=1, description="The fewest at once, however badly it answers.")
    slow_factor: float = Field(
        4, ge=0, description="A time to first output of so many times the usual one, and above a second, is a sign of overload. 0: never."
    )
    queue: int = Field(100, ge=0, description="Calls that may wait for room; further ones go to another target, or fail as PROVIDER_BUSY.")
    queue_seconds: Positive = Field(10, description="How long each of them waits.")

    @model_validator(mode="after")
    def _least_fits(self) -> Self:
        if self.most and self.least > self.most:
            raise ValueError(f"least is {self.least} and most is {self.most}; lower least, or raise most")
        return self

    def policy(self) -> ConcurrencyPolicy:
        """The same as the domain has it."""
        return ConcurrencyPolicy(**self.model_dump())


class _Provider(_Settings):
    models: dict[str, ModelSettings] = Field(
        default_factory=dict, description="Models to list, and what is known of them. Others can be called too."
    )
    limits: LimitSettings = Field(default_factory=LimitSettings, description="Limits in time and size.")
    concurrency: ConcurrencySettings = Field(
        default_factory=ConcurrencySettings, description="Calls at once, for each of its models by itself."
    )


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


class _HttpProvider(_Provider):
    headers: dict[str, Secret] = Field(default_factory=dict, description="Further headers to send: env:NAME, file:/path or the value.")
    api_keys: tuple[Secret, ...] = Field(
        (), description="Several keys instead of api_key: they take turns, and one that is refused or over its limit rests for a while."
    )

    @model_validator(mode="after")
    def _has_one_or_several_keys(self) -> Self:
        if self.api_keys and getattr(self, "api_key", None) is not None:
            raise ValueError("api_key and api_keys are both set; move the one key into the list")
        return self

    @field_validator("base_url", check_fields=False)
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("it does not begin with https:// or http://")
        if not _has_host(url):
            raise ValueError("it names no host; write it as https://host/v1")
        if "@" in urlsplit(url).netloc:
            raise ValueError("it holds a user or password, which callers could see; set api_key, or headers.authorization")
        if "?" in url or "#" in url:
            raise ValueError("it goes on after the path; end it there, and set a key as api_key or under headers")
        return url.rstrip("/")


OPENAI_URL = "https://api.openai.com/v1"
_Vendors = Literal["openai", "azure", "groq", "mistral", "deepseek", "openrouter", "moonshot", "xai", "perplexity", "together", "alibaba"]
_Servers = Literal["vllm", "ollama", "llama-cpp", "compatible"]
DialectName = Literal[_Vendors, _Servers]
_OWN_FIELDS = frozenset({"model", "messages", "tools", "tool_choice", "stream", "stream_options", "n"})


class OpenAiSettings(_HttpProvider):
    """OpenAI, or any server that speaks its Chat Completions: vLLM, Ollama, llama.cpp, Groq, Mistral, Azure, proxies."""

    adapter: Literal["openai"] = "openai"
    base_url: str = Field(
        OPENAI_URL, description="Where it is, up to and with /v1; at Azure the resource. Default: the dialect's own service."
    )
    dialect: DialectName | None = Field(
        None, description="Whose variant the server speaks. Default: what its address tells, else compatible."
    )
    api_key: Secret | None = Field(
        None, description="env:NAME, file:/path or the key. Default: at a vendor's own service env:OPENAI_API_KEY and the like, else none."
    )
    api_version: str | None = Field(None, description="Azure's api-version. Default: 2024-10-21, and none below /openai/v1.")
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = Field(
        None, description="What the server calls the output limit. Default: what its dialect has."
    )
    stream_usage: bool | None = Field(
        None, description="Ask for usage in streams. A server that refuses is not asked again. Default: what its dialect has."
    )
    done_suffices: bool | None = Field(
        None, description="Take [DONE] for the end of an answer that has no finish reason. Default: no, it would hide answers cut short."
    )
    continue_by: Literal["last_message", "prefix", "continue_final_message"] | None = Field(
        None,
        description="How models with the capability continuing are told to go on with an assistant message that comes last: by nothing but"
        " its place, or by the field prefix of the message, or by continue_final_message of the request. Default: what its dialect has.",
    )
    think_tags: bool | None = Field(
        None, description="Take text between <think> and </think> at an answer's beginning for reasoning. Default: what its dialect has."
    )
    embed_inputs: int | None = Field(
        None, ge=0, description="Inputs in one embedding call. Default: 2048 at OpenAI and Azure, 512 at most others."
    )
    extra: dict[str, Any] = Field(
        default_factory=dict,
        description="Further fields of every chat request, in the server's own words; a request's own fields win.",
    )

    @field_validator("extra")
    @classmethod
    def _is_beside(cls, extra: dict[str, Any]) -> dict[str, Any]:
        own = sorted(_OWN_FIELDS & extra.keys())
        if own:
            raise ValueError(f"{', '.join(own)} cannot be set here: the gateway sets it for each request")
        return extra

    def quirks(self) -> dict[str, Any]:
        """What is set of the dialect one by one."""
        names = ("api_version", "max_tokens_field", "stream_usage", "done_suffices", "continue_by", "think_tags", "embed_inputs")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


class OpenAiResponsesSettings(_HttpProvider):
    """OpenAI, or any server that speaks its Responses: Azure, xAI, LM Studio, vLLM."""

    adapter: Literal["openai-responses"]
    base_url: str = Field("https://api.openai.com/v1", description="Where it is, up to and with /v1.")
    api_key: Secret | None = Field(
        None, description="env:NAME, file:/path or the key. Default: env:OPENAI_API_KEY at OpenAI itself, else none."
    )
    store: bool = Field(
        False, description="Let the provider keep every answer. Without it reasoning comes encrypted and goes back with the conversation."
    )
    reasoning_summary: Literal["auto", "concise", "detailed"] | None = Field(
        None,
        description="How to sum up reasoning when a request sets an effort. Default: as the provider does unasked.",
    )


class AnthropicSettings(_HttpProvider):
    """Anthropic, or a server that speaks its Messages."""

    adapter: Literal["anthropic"]
    base_url: str = Field("https://api.anthropic.com", description="Where it is, up to and without /v1.")
    api_key: Secret | None = Field(
        None, description="env:NAME, file:/path or the key. Default: env:ANTHROPIC_API_KEY at Anthropic itself, else none."
    )


class GeminiSettings(_HttpProvider):
    """Gemini at the Generative Language API, or at Vertex AI, or a server that speaks its generateContent."""

    adapter: Literal["gemini"]
    base_url: str = Field(
        "https://generativelanguage.googleapis.com/v1beta",
        description="Where it is, up to and without /models. For Vertex AI: up to and with /publishers/google.",
    )
    api_key: Secret | None = Field(
        None, description="env:NAME, file:/path or the key. Default: env:GEMINI_API_KEY at the Gemini API itself, else none."
    )


class OllamaSettings(_HttpProvider):
    """Ollama by its own protocol: thinking, options, and prompts that are refused instead of cut."""

    adapter: Literal["ollama"]
    base_url: str = Field("http://127.0.0.1:11434", description="Where it is, up to and without /api.")
    api_key: Secret | None = Field(None, description="env:NAME, file:/path or the key, for Ollama's cloud. Default: none.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Options of every request, such as num_ctx, the tokens that fit into one; a request's own win."
    )
    keep_alive: str = Field("", description="How long a model stays loaded after a call, as 10m. Default: the server's.")


class ScriptedSettings(_Provider):
    """A provider that plays a script, for tests and demonstrations."""

    adapter: Literal["scripted"]
    script: str | dict[str, Any] = Field(default_factory=dict, description="A YAML or JSON file, or the script itself. Default: echo.")


AnyHttpProvider = OpenAiSettings | OpenAiResponsesSettings | AnthropicSettings | GeminiSettings | OllamaSettings
AnyProvider = AnyHttpProvider | ScriptedSettings
ProviderSettings = Annotated[AnyProvider, Field(discriminator="adapter")]


class RetrySettings(_Settings):
    """When a failed call is repeated: retryable failures only, and never after output was delivered."""

    attempts: int = Field(3, ge=1, description="Attempts in all; of an alias with several targets each is asked once on top.")
    first_pause_ms: Positive = Field(
        500, description="The first pause; each further one is twice as long. Up to half of it is taken off by chance."
    )
    longest_pause_ms: Positive = Field(8000, description="The longest pause.")
    longest_wish_ms: Positive = Field(60_000, description="The longest wait that a provider may ask for; for more the call fails at once.")
    budget_ratio: float = Field(0.2, ge=0, description="Retries that each call earns for its provider.")
    budget_burst: float = Field(10, ge=0, description="Retries that a provider can have saved up.")

    def policy(self) -> RetryPolicy:
        """The same as the operations have it."""
        return RetryPolicy(
            attempts=self.attempts,
            first_pause=self.first_pause_ms / 1000,
            longest_pause=self.longest_pause_ms / 1000,
            longest_wish=self.longest_wish_ms / 1000,
            budget_ratio=self.budget_ratio,
            budget_burst=self.budget_burst,
        )


class CircuitSettings(_Settings):
    """When a model of a provider is left alone for failing too often; then one call at a time tries whether it works again."""

    error_rate: float = Field(0.5, gt=0, le=1, description="The share of its calls that must fail.")
    least_calls: int = Field(20, ge=1, description="The calls that must have ended before the share means anything.")
    window_seconds: Positive = Field(30, description="How far back calls count.")
    first_pause_seconds: Positive = Field(5, description="How long it is left alone; twice as long each time that the trial fails.")
    longest_pause_seconds: Positive = Field(120, description="The longest pause.")

    def policy(self) -> CircuitPolicy:
        """The same as the domain has it."""
        return CircuitPolicy(
            error_rate=self.error_rate,
            least_calls=self.least_calls,
            window=self.window_seconds,
            first_pause=self.first_pause_seconds,
            longest_pause=self.longest_pause_seconds,
        )


class HttpSettings(_Settings):
    """How providers are reached."""

    connect_seconds: Positive = Field(10, description="To open a connection.")
    connections: int = Field(1000, ge=1, description="Connections at most, over all providers.")
    idle_seconds: Positive = Field(55, description="How long an unused connection is kept.")
    proxy: str = Field("", description="An HTTP proxy for all providers, as http://host:port. Proxies in the environment are not used.")
    ca_file: str = Field("", description="Root certificates to trust instead of the system's, PEM.")

    @field_validator("proxy")
    @classmethod
    def _is_proxy(cls, url: str) -> str:
        if url and not (url.startswith("http://") and _has_host(url)):
            raise ValueError("it is not http://host:port")
        return url


class ProviderGatewaySettings(_Settings):
    """Section provider_gateway."""

    listen: str = Field("127.0.0.1:50052", description="host:port to listen on.")
    default_model: str = Field("", description="The model of requests that name none.")
    aliases: dict[str, AnyAlias] = Field(
        default_factory=dict, description="Further names of models, as alias: provider/model, or with a list of targets."
    )
    providers: dict[str, ProviderSettings] = Field(
        default_factory=dict, description="The providers by name. openai, anthropic, gemini and scripted are there unless redefined."
    )
    retries: RetrySettings = Field(default_factory=RetrySettings, description="When a failed call is repeated.")
    circuit: CircuitSettings = Field(default_factory=CircuitSettings, description="When a model is left alone for a while.")
    database: Database = Field(
        Database("memory:"),
        description="Where replicas share budgets and rate limits: postgresql://user:password@host:5432/name, or memory: for one process.",
    )
    budgets: tuple[BudgetSettings, ...] = Field((), description="Caps on requests, tokens and money.")
    budget_terms: BudgetTermsSettings = Field(default_factory=BudgetTermsSettings, description="What holds for all budgets.")
    prompt_caching: PromptCachingSettings = Field(
        default_factory=PromptCachingSettings, description="How prompts are kept in the providers' caches."
    )
    response_cache: ResponseCacheSettings = Field(
        default_factory=ResponseCacheSettings, description="Answers kept for requests that set response_caching."
    )
    http: HttpSettings = Field(default_factory=HttpSettings, description="How providers are reached.")
    stream_window_ms: float = Field(
        40,
        ge=0,
        description="After its first output a stream is read once in so many milliseconds, all streams at the same tick. 0: as it comes.",
    )

    @field_validator("database", mode="before")
    @classmethod
    def _is_shared_or_memory(cls, value: Any) -> Any:
        if isinstance(value, str) and value.startswith("sqlite:"):
            raise ValueError(
                "replicas share nothing in SQLite; write postgresql://user:password@host:5432/name, or memory: for one process"
            )
        return value or "memory:"

    @field_validator("budgets")
    @classmethod
    def _are_told_apart(cls, budgets: tuple[BudgetSettings, ...]) -> tuple[BudgetSettings, ...]:
        names = [budget.name for budget in budgets]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"the name {min(twice)} is there twice; give each budget its own")
        return budgets

    @field_validator("providers")
    @classmethod
    def _have_names(cls, providers: dict[str, Any]) -> dict[str, Any]:
        for name in providers:
            if not name or "/" in name:
                raise ValueError(f"{name!r} cannot be the name of a provider: models are written as provider/model")
        return providers

    def all_providers(self) -> dict[str, AnyProvider]:
        """The configured providers and those that are there anyway."""
        given: dict[str, AnyProvider] = {
            "openai": OpenAiSettings(),
            "anthropic": AnthropicSettings(adapter="anthropic"),
            "gemini": GeminiSettings(adapter="gemini"),
            "scripted": ScriptedSettings(adapter="scripted"),
        }
        return given | self.providers
