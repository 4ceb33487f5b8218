"""What is known of a model beyond the built-in catalogue, as it is configured."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from provider_gateway.domain.catalogue import dollars
from provider_gateway.domain.models import Capabilities, ModelTraits, Price


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
    continuing: bool = Field(False, description="Goes on with an answer that was begun, an assistant message that comes last.")
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
