"""The settings of the session store: section session_store of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class SessionStoreSettings(BaseModel):
    """Where the session store listens and what it keeps its data in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str = Field("127.0.0.1:50054", description="Host and port to listen on.")
    database: str = Field("sqlite:behest.db", description="sqlite:PATH, or memory: to lose everything at the end.")
    durability: Literal["full", "normal"] = Field(
        "full",
        description="full: an acknowledged write survives a power cut. normal: only a killed process; a power cut may take the newest.",
    )
    lease_ms: int = Field(3000, ge=100, le=600_000, description="Milliseconds of silence after which a driver's runs go to others.")

    @field_validator("database")
    @classmethod
    def _known_database(cls, value: str) -> str:
        scheme, colon, path = value.partition(":")
        if not colon or (scheme, bool(path)) not in (("sqlite", True), ("memory", False)):
            raise ValueError("must be sqlite:PATH or memory:")
        return value

    @property
    def sqlite_path(self) -> str | None:
        """The path of the SQLite file, None for memory."""
        scheme, _, path = self.database.partition(":")
        return path if scheme == "sqlite" else None
