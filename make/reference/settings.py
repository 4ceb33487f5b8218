"""The page of settings, from the services' settings models."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from chassis.reference import settings_reference

SECTIONS = {
    "orchestrator": "orchestrator.settings.OrchestratorSettings",
    "provider_gateway": "provider_gateway.settings.ProviderGatewaySettings",
    "tool_executor": "tool_executor.settings.ToolExecutorSettings",
    "session_store": "session_store.settings.SessionStoreSettings",
    "kafka": "chassis.kafka.settings.KafkaSettings",
    "log": "chassis.telemetry.LogSettings",
    "telemetry": "chassis.telemetry.TelemetrySettings",
}


def lines() -> Iterator[str]:
    """The page, line by line."""
    yield "# Settings"
    yield ""
    yield "One YAML file serves all: each service reads its own section, and `kafka`, `log` and `telemetry`."
    yield "The environment wins over the file: `BEHEST__SESSION_STORE__LISTEN` sets `session_store.listen`."
    yield "A key that is not here is refused, with the nearest one that is."
    for section, place in SECTIONS.items():
        module, _, name = place.rpartition(".")
        model = getattr(importlib.import_module(module), name)
        yield from ("", f"## {section}", "", " ".join((model.__doc__ or "").split()), "")
        yield settings_reference(section, model).rstrip()
