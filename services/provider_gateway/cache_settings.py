"""Settings of the two caches, the providers' of prompts and our own of answers: part of the section provider_gateway."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from provider_gateway.domain.chat import CacheLifetime, CachingMode, PromptCaching
from provider_gateway.operations.response_cache import CacheBounds


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PromptCachingSettings(_Settings):
    """How prompts are kept in the providers' caches, for requests that do not say so themselves."""

    mode: Literal["auto", "explicit", "off"] = Field(
        "auto",
        description="auto: the gateway marks what is worth keeping, beside the marks of callers. explicit: callers alone. off: nobody.",
    )
    lifetime: Literal["5m", "1h"] = Field("5m", description="How long the gateway's own marks last. An hour costs more to write.")

    def caching(self) -> PromptCaching:
        """The same as the domain has it."""
        return PromptCaching(
            CachingMode[self.mode.upper()], CacheLifetime.ONE_HOUR if self.lifetime == "1h" else CacheLifetime.FIVE_MINUTES
        )


class ResponseCacheSettings(_Settings):
    """Answers kept in memory for requests that ask for it and come again exactly."""

    max_entries: int = Field(1000, ge=0, description="Answers kept. 0: none.")
    max_bytes: int = Field(64 * 1024 * 1024, ge=0, description="Their texts and data together.")
    max_age_seconds: float = Field(3600, gt=0, description="How long each is kept.")

    def bounds(self) -> CacheBounds:
        """The same as the operations have it."""
        return CacheBounds(self.max_entries, self.max_bytes, self.max_age_seconds)
