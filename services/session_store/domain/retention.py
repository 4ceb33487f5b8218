"""How long sessions are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from session_store.domain.run import Run
from session_store.domain.session import Session, Tenant


@dataclass(frozen=True, slots=True)
class Retention:
    """Seconds that a session is kept after its last activity: those of a tenant, else those of all; None keeps it for ever."""

    seconds: float | None = None
    tenants: Mapping[Tenant, float | None] = field(default_factory=dict)

    @property
    def is_for_ever(self) -> bool:
        """Whether nothing is ever deleted."""
        return self.seconds is None and not any(self.tenants.values())

    def of(self, tenant: Tenant) -> float | None:
        """A tenant's seconds."""
        return self.tenants.get(tenant, self.seconds)


def last_activity(session: Session, newest: Run | None) -> float:
    """When a session was last changed, or its newest run was opened or ended."""
    if newest is None:
        return session.updated_at
    return max(session.updated_at, newest.created_at, newest.ended_at or 0.0)
