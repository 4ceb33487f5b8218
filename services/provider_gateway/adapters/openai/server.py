"""One configured server: where it is, how it is spoken to, and where its key is by custom."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from chassis.faults import SettingsInvalid
from provider_gateway.adapters.openai.dialect import DIALECTS, HOMES, Dialect, dialect_at, variable_at


@dataclass(frozen=True, slots=True)
class Server:
    """A server; `variable` is empty where no variable is known to hold its key."""

    base_url: str
    dialect: Dialect
    variable: str


def server_of(setting: str, base_url: str | None, dialect: str | None, quirks: Mapping[str, Any]) -> Server:
    """The server that settings mean: a dialect without address is its vendor's own service, an address without dialect is looked at.

    `quirks` are fields of the dialect that were set one by one. Raises SettingsInvalid where neither tells where the server is.
    """
    if base_url is None:
        if (dialect or "openai") not in HOMES:
            raise SettingsInvalid(f"{setting}.base_url is not set; the dialect {dialect} has no service of its own, so name the server")
        base_url = HOMES[dialect or "openai"].base_url
    spoken = DIALECTS[dialect or dialect_at(base_url)]
    if spoken.deployments:
        base_url, spoken = _azure(base_url, spoken)
    return Server(base_url, replace(spoken, **quirks), variable_at(base_url))


def _azure(base_url: str, dialect: Dialect) -> tuple[str, Dialect]:
    """Azure's older interface has the model in the path and a version after it; its newer one, below /openai/v1, has neither."""
    path = urlsplit(base_url).path
    if path.endswith("/v1"):
        return base_url, replace(dialect, deployments=False, api_version="")
    return (base_url if path.endswith("/openai") else f"{base_url}/openai"), dialect
