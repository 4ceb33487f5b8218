"""Ports for processes that tests start: below those that the system gives to outgoing connections, which could take them meanwhile."""

from __future__ import annotations

import contextlib
import random
import socket

HOST = "127.0.0.1"
LOWEST, HIGHEST = 15_000, 32_000  # Linux gives those from 32 768 to outgoing connections
ATTEMPTS = 1000
_CHANCE = random.SystemRandom()  # whatever a test seeds: two processes must not try the same ports in the same order


def free_port() -> int:
    """A port that nobody uses."""
    return neighbouring_ports(1)


def free_address() -> str:
    """Where nobody listens."""
    return f"{HOST}:{free_port()}"


def free_ports(count: int) -> list[int]:
    """Ports that nobody uses."""
    found: set[int] = set()
    while len(found) < count:
        found.add(free_port())
    return sorted(found)


def neighbouring_ports(count: int = 4) -> int:
    """The first of so many ports in a row that nobody uses."""
    for _ in range(ATTEMPTS):
        first = _CHANCE.randrange(LOWEST, HIGHEST, count)
        with contextlib.suppress(OSError), contextlib.ExitStack() as held:
            for port in range(first, first + count):
                held.enter_context(socket.socket()).bind((HOST, port))
            return first
    raise RuntimeError(f"no {count} free ports in a row")
