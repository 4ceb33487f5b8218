"""What an image holds is enough to run its service: requirements/<service>.txt has every package that it and the chassis import."""

from __future__ import annotations

import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from kit.source import imports

ROOT = Path(__file__).resolve().parents[2]
DISTRIBUTIONS = packages_distributions()
OURS = {"behest", "chassis"}
# Packages that several distributions share.
NAMESPACES = {
    "google.protobuf": "protobuf",
    "google.rpc": "googleapis-common-protos",
    "opentelemetry.exporter.otlp.proto.grpc": "opentelemetry-exporter-otlp-proto-grpc",
    "opentelemetry.sdk": "opentelemetry-sdk",
    "opentelemetry": "opentelemetry-api",
}


def _packages(service: str) -> set[str]:
    """The names of the foreign distributions that a service and the chassis import, anywhere in their code."""
    paths = (path for folder in (service, "chassis") for path in (ROOT / "services" / folder).rglob("*.py"))
    names = {name for path in paths for name in imports(path)}
    foreign = {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names | OURS | {service}}
    return {_distribution(name) for name in foreign}


def _distribution(module: str) -> str:
    for package, distribution in NAMESPACES.items():
        if module.startswith(package):
            return distribution
    owners = DISTRIBUTIONS.get(module.partition(".")[0], [])
    assert owners, f"{module} belongs to no installed distribution"
    return re.sub(r"[-_.]+", "-", owners[0]).lower()


@pytest.mark.feature("K1")
@pytest.mark.parametrize("service", ["orchestrator", "provider_gateway", "session_store", "tool_executor"])
def test_an_image_installs_what_its_service_imports(service: str) -> None:
    pinned = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements" / f"{service.replace('_', '-')}.txt").read_text(), re.MULTILINE))
    assert _packages(service) - pinned == set()
