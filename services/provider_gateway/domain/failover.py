"""Which failures another attempt may mend, and where: at the same target, at another one, or nowhere."""

from __future__ import annotations

import enum

from chassis.faults import (
    BudgetExhausted,
    CapabilityMissing,
    Fault,
    FieldNotExpressible,
    ModelNotFound,
    ProviderContextOverflow,
    ProviderCredentialsMissing,
    ProviderCredentialsRefused,
    ProviderPermissionDenied,
    UpstreamFault,
)

NEVER = frozenset({"insufficient_quota", "billing_hard_limit_reached"})  # rate limits by name that waiting does not lift


class Remedy(enum.Enum):
    """What may mend a failure."""

    TIME = "the same target later, and any other at once"
    ANOTHER = "another target alone"
    NONE = "nothing: every target would say the same"


_ANOTHER = (
    BudgetExhausted,  # of this model; a cap that holds for all of them says no to the others too
    CapabilityMissing,
    FieldNotExpressible,
    ModelNotFound,
    ProviderContextOverflow,
    ProviderCredentialsMissing,
    ProviderCredentialsRefused,
    ProviderPermissionDenied,
)


def remedy(fault: Fault) -> Remedy:
    """What may mend the failure.

    A request that a provider refused as such is given to no other: it is wrong, and asking around would only hide that.
    """
    if isinstance(fault, _ANOTHER):
        return Remedy.ANOTHER
    if not isinstance(fault, UpstreamFault) or not fault.retryable:
        return Remedy.NONE
    return Remedy.ANOTHER if fault.metadata.get("code") in NEVER else Remedy.TIME
