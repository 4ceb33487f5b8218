"""The settings of the session store: section session_store of the configuration."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from chassis.database import Database
from chassis.tenants import TenantName
from session_store.domain.retention import Retention
from session_store.domain.schedule import RunLimits, TenantLimits
from session_store.domain.session import Tenant

DAY_SECONDS = 86_400.0


class TenantLimitSettings(BaseModel):
    """The limits of one tenant, where they are not those of all."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    running_runs: int | None = Field(None, ge=1, description="Runs that run at once. Unset: running_runs_per_tenant.")
    waiting_runs: int | None = Field(None, ge=1, description="Runs that wait. Unset: waiting_runs_per_tenant.")


class RunLimitSettings(BaseModel):
    """How many runs may run and wait, over all replicas: give each the same limits."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    running_runs: int = Field(10_000, ge=1, description="Runs that run at once, of all tenants. Further ones wait.")
    running_runs_per_tenant: int = Field(1000, ge=1, description="Runs of one tenant that run at once. Further ones wait.")
    waiting_runs_per_tenant: int = Field(
        10_000, ge=1, description="Runs of one tenant that wait for their session or a driver. Further ones are refused: RUNS_EXHAUSTED."
    )
    tenants: dict[TenantName, TenantLimitSettings] = Field(default_factory=dict, description="Tenants with limits of their own.")


class RetentionSettings(BaseModel):
    """How long sessions are kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    days: float | None = Field(None, gt=0, description="Days without activity after which a session is deleted. Unset: never.")
    tenants: dict[TenantName, float | None] = Field(
        default_factory=dict, description="Days for tenants that differ; null keeps a tenant's sessions for ever."
    )

    @field_validator("tenants")
    @classmethod
    def _positive(cls, value: dict[str, float | None]) -> dict[str, float | None]:
        for tenant, days in value.items():
            if days is not None and days <= 0:
                raise ValueError(f"{tenant} has {days:g} days; give more than 0, or null to keep them for ever")
        return value


class SessionStoreSettings(BaseModel):
    """Where the session store listens and what it keeps its data in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    listen: str = Field("127.0.0.1:50054", description="Host and port to listen on.")
    database: Database = Field(
        Database("sqlite:behest.db"),
        description="sqlite:PATH, postgresql://user:password@host:5432/name for replicas, or memory: to lose everything at the end.",
    )
    durability: Literal["full", "normal"] = Field(
        "full",
        description="full: an acknowledged write survives a power cut. normal: only a killed process; a power cut may take the newest.",
    )
    lease_ms: int = Field(3000, ge=100, le=600_000, description="Milliseconds of silence after which a driver's runs go to others.")
    limits: RunLimitSettings = Field(default_factory=RunLimitSettings, description="How many runs may run and wait.")

    retention: RetentionSettings = Field(default_factory=RetentionSettings, description="How long sessions are kept.")

    @property
    def kept(self) -> Retention:
        """The retention, in seconds."""
        given = self.retention
        own = {Tenant(name): None if days is None else days * DAY_SECONDS for name, days in given.tenants.items()}
        return Retention(None if given.days is None else given.days * DAY_SECONDS, own)

    @property
    def run_limits(self) -> RunLimits:
        """The limits, with those of all where a tenant has none of its own."""
        given = self.limits
        each = TenantLimits(given.running_runs_per_tenant, given.waiting_runs_per_tenant)
        own = {
            Tenant(name): TenantLimits(tenant.running_runs or each.running, tenant.waiting_runs or each.waiting)
            for name, tenant in given.tenants.items()
        }
        return RunLimits(given.running_runs, each, own)
