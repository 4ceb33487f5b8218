"""The provider gateway's settings: section provider_gateway of the configuration."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from chassis.settings import Secret
from provider_gateway.domain.catalogue import dollars
from provider_gateway.domain.models import Capabilities, ModelTraits, Price
from provider_gateway.operations.limits import TimeLimits
from provider_gateway.operations.retries import RetryPolicy

Positive = Annotated[float, Field(gt=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PriceSettings(_Settings):
    """What a model costs, in US dollars per million tokens."""

    input: float = Field(ge=0, description="Tokens read.")
    output: float = Field(ge=0, description="Tokens written.")
    cache_read: float | None = Field(None, ge=0, description="Tokens read from the prompt cache. Default: as input.")
    cache_write: float | None = Field(None, ge=0, description="Tokens written to the prompt cache. Default: as input.")

    def price(self) -> Price:
        """The price in the domain's unit."""
        return dollars(self.input, self.output, self.cache_read, self.cache_write)


class CapabilitySettings(_Settings):
    """What a model can do. Given at all, it is the whole truth: what is not said to be there is refused."""

    streaming: bool = Field(True, description="Answers as a stream.")
    tools: bool = Field(False, description="Calls tools.")
    parallel_tools: bool = Field(False, description="Calls several tools in one turn.")
    json_schema: bool = Field(False, description="Holds its answer to a JSON schema.")
    vision: bool = Field(False, description="Reads pictures.")
    reasoning: bool = Field(False, description="Reasons before it answers.")
    embeddings: bool = Field(False, description="Produces embeddings.")
    prompt_caching: bool = Field(False, description="Caches prompt prefixes.")
    context_tokens: int = Field(0, ge=0, description="Tokens that fit into one call. 0: unknown.")
    max_output_tokens: int = Field(0, ge=0, description="Tokens that one answer may have. 0: unknown.")

    def capabilities(self) -> Capabilities:
        """The same as the domain has it."""
        return Capabilities(**self.model_dump())


class ModelSettings(_Settings):
    """What is known of a model beyond the built-in catalogue."""

    capabilities: CapabilitySettings | None = Field(
        None, description="What it can do. Unset: what the catalogue says, else anything is tried."
    )
    price: PriceSettings | None = Field(None, description="What it costs. Unset: what the price list or the catalogue says.")

    def traits(self) -> ModelTraits:
        """The same as the domain has it."""
        capabilities = None if self.capabilities is None else self.capabilities.capabilities()
        return ModelTraits(capabilities, None if self.price is None else self.price.price())


class LimitSettings(_Settings):
    """How long a provider may take and how much it may send."""

    first_output_seconds: Positive = Field(120, description="Until the first output of a stream.")
    idle_seconds: Positive = Field(60, description="Between two signs of life of a stream.")
    call_seconds: Positive = Field(600, description="A whole call with its retries, when the caller sets no earlier deadline.")
    event_bytes: int = Field(8 * 1024 * 1024, ge=1024, description="One event of a stream.")

    def times(self) -> TimeLimits:
        """The limits in time."""
        return TimeLimits(self.first_output_seconds, self.idle_seconds, self.call_seconds)


class _Provider(_Settings):
    models: dict[str, ModelSettings] = Field(
        default_factory=dict, description="Models to list, and what is known of them. Others can be called too."
    )
    limits: LimitSettings = Field(default_factory=LimitSettings, description="Limits in time and size.")


def _has_host(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False


class _HttpProvider(_Provider):
    headers: dict[str, Secret] = Field(default_factory=dict, description="Further headers to send: env:NAME, file:/path or the value.")

    @field_validator("base_url", check_fields=False)
    @classmethod
    def _is_http(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")):
            raise ValueError("it does not begin with https:// or http://")
        if not _has_host(url):
            raise ValueError("it names no host; write it as https://host/v1")
        return url.rstrip("/")


class OpenAiSettings(_HttpProvider):
    """OpenAI, or any server that speaks its Chat Completions: vLLM, Ollama, llama.cpp, proxies."""

    adapter: Literal["openai"] = "openai"
    base_url: str = Field("https://api.openai.com/v1", description="Where it is, up to and with /v1.")
    api_key: Secret | None = Field(
        None, description="env:NAME, file:/path or the key. Default: env:OPENAI_API_KEY at OpenAI itself, else none."
    )
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] | None = Field(
        None, description="What the server calls the output limit. Default: max_completion_tokens at OpenAI itself, else max_tokens."
    )
    stream_usage: bool = Field(True, description="Ask for usage in streams. A server that refuses is not asked again.")


class AnthropicSettings(_HttpProvider):
    """Anthropic, or a server that speaks its Messages."""

    adapter: Literal["anthropic"]
    base_url: str = Field("https://api.anthropic.com", description="Where it is, up to and without /v1.")
    api_key: Secret | None = Field(
        None, description="env:NAME, file:/path or the key. Default: env:ANTHROPIC_API_KEY at Anthropic itself, else none."
    )


class ScriptedSettings(_Provider):
    """A provider that plays a script, for tests and demonstrations."""

    adapter: Literal["scripted"]
    script: str | dict[str, Any] = Field(default_factory=dict, description="A YAML or JSON file, or the script itself. Default: echo.")


AnyProvider = OpenAiSettings | AnthropicSettings | ScriptedSettings
ProviderSettings = Annotated[AnyProvider, Field(discriminator="adapter")]


class RetrySettings(_Settings):
    """When a failed call is repeated: retryable failures only, and never after output was delivered."""

    attempts: int = Field(3, ge=1, description="Attempts in all.")
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
    aliases: dict[str, str] = Field(default_factory=dict, description="Further names of models, as alias: provider/model.")
    providers: dict[str, ProviderSettings] = Field(
        default_factory=dict, description="The providers by name. openai, anthropic and scripted are there unless redefined."
    )
    retries: RetrySettings = Field(default_factory=RetrySettings, description="When a failed call is repeated.")
    http: HttpSettings = Field(default_factory=HttpSettings, description="How providers are reached.")
    stream_window_ms: float = Field(
        40,
        ge=0,
        description="After its first output a stream is read once in so many milliseconds, all streams at the same tick. 0: as it comes.",
    )

    def all_providers(self) -> dict[str, AnyProvider]:
        """The configured providers and those that are there anyway."""
        given: dict[str, AnyProvider] = {
            "openai": OpenAiSettings(),
            "anthropic": AnthropicSettings(adapter="anthropic"),
            "scripted": ScriptedSettings(adapter="scripted"),
        }
        return given | self.providers
