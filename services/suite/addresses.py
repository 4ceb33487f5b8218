"""Which services there are and where each listens: one port apiece, side by side from a base port."""

from __future__ import annotations

import asyncio
import enum
import os
from collections.abc import Mapping

from chassis.faults import SettingsInvalid

HOST = "127.0.0.1"
DEFAULT_PORT_BASE = 50051
PROBE_SECONDS = 2.0
TARGET_VARIABLE = "BEHEST_TARGET"


class Service(enum.Enum):
    """One of the four services; the value is its name, as its App and its README call it."""

    ORCHESTRATOR = "orchestrator"
    PROVIDER_GATEWAY = "provider-gateway"
    TOOL_EXECUTOR = "tool-executor"
    SESSION_STORE = "session-store"

    @property
    def section(self) -> str:
        """Its section of the configuration file, which is also its Python package."""
        return self.value.replace("-", "_")

    @property
    def offset(self) -> int:
        """The distance of its port from the orchestrator's."""
        return list(Service).index(self)


def listen_address(service: Service, port_base: int = DEFAULT_PORT_BASE) -> str:
    """Where service listens in a suite that begins at port_base."""
    return f"{HOST}:{port_base + service.offset}"


def beside(target: str, service: Service) -> str:
    """Where service is, given where the orchestrator is; raises SettingsInvalid when target is no host:port, or several after `ipv4:`."""
    scheme, colon, several = target.partition(":")
    if colon and scheme in ("ipv4", "ipv6"):
        return f"{scheme}:{','.join(beside(each.strip(), service) for each in several.split(','))}"
    host, _, port = target.rpartition(":")
    if not host or not port.isdigit():
        raise SettingsInvalid(
            f"target {target!r} is not host:port; write for example {HOST}:{DEFAULT_PORT_BASE}", metadata={"target": target}
        )
    return f"{host}:{int(port) + service.offset}"


def configured_target(env: Mapping[str, str] = os.environ) -> str | None:
    """The orchestrator's address that the environment names, None when it names none."""
    return env.get(TARGET_VARIABLE) or None


async def listens(target: str) -> bool:
    """Whether something accepts connections at target, or at one of several; raises SettingsInvalid when it is no host:port."""
    places = beside(target, Service.ORCHESTRATOR).removeprefix("ipv4:").removeprefix("ipv6:").removeprefix("dns:").lstrip("/")
    return any([await _accepts(place) for place in places.split(",")])


async def _accepts(place: str) -> bool:
    host, _, port = place.rpartition(":")
    try:
        async with asyncio.timeout(PROBE_SECONDS):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except (OSError, TimeoutError):
        return False
    writer.close()
    return True
