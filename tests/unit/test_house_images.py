"""What an image holds is enough to run its service: requirements/<service>.txt has every package that it imports, also by the chassis."""

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
    """The names of the foreign distributions that a service imports anywhere in its code, or in what it reaches of the chassis."""
    names = _reached(ROOT / "services" / service)
    foreign = {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names | OURS | {service}}
    return {_distribution(name) for name in foreign}


def _reached(folder: Path) -> set[str]:
    """Every module that the code in a folder imports, and that those of the chassis import in turn."""
    names: set[str] = set()
    paths = set(folder.rglob("*.py"))
    while paths:
        found = {name for path in paths for name in imports(path)} - names
        names |= found
        paths = {path for name in found if name.startswith("chassis.") for path in _files(name)}
    return names


def _files(module: str) -> list[Path]:
    """The files of a module, or of the module that has the name which was imported; and of the packages around it."""
    place = ROOT / "services" / Path(*module.split("."))
    inside = [place.with_suffix(".py"), place.parent.with_suffix(".py"), *(above / "__init__.py" for above in (place, *place.parents))]
    return [path for path in inside if path.is_file() and ROOT / "services" in path.parents]


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
