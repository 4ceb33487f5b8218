"""Settings of the response cache: part of the section provider_gateway."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from provider_gateway.operations.response_cache import CacheBounds


class ResponseCacheSettings(BaseModel):
    """Answers kept in memory for requests that ask for it and come again exactly."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_entries: int = Field(1000, ge=0, description="Answers kept. 0: none.")
    max_bytes: int = Field(64 * 1024 * 1024, ge=0, description="Their texts and data together.")
    max_age_seconds: float = Field(3600, gt=0, description="How long each is kept.")

    def bounds(self) -> CacheBounds:
        """The same as the operations have it."""
        return CacheBounds(self.max_entries, self.max_bytes, self.max_age_seconds)
