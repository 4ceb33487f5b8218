"""What a tenant may be called, wherever a name comes in: with a call, with a command, in settings."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator

ALLOWED = "1 to 128 of A-Z a-z 0-9 _ . : -"

EVERYBODY = "*"
"""Says all tenants at once to the databases: row-level security shows all rows to it, and sums over all stand under it. Nobody's name."""

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")


def is_tenant(text: str) -> bool:
    """Whether somebody may be called so; not the empty text, and nothing that a database takes for all."""
    return _NAME.fullmatch(text) is not None


def _named(text: str) -> str:
    if not is_tenant(text):
        raise ValueError(f"{text[:40]!r} is no tenant, so nothing would come of it; a tenant is {ALLOWED}")
    return text


TenantName = Annotated[str, AfterValidator(_named)]
"""A tenant in settings: a name that nobody can have would be a setting without effect."""
