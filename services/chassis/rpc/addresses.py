"""Which addresses stand behind a target, and which of them a key belongs to. Knows nothing of connections."""

from __future__ import annotations

import asyncio
import socket
import zlib
from dataclasses import dataclass, field

_STATIC = ("ipv4", "ipv6")
_ODD = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio: multiplying by it mixes the low bits into the high ones
_MASK = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Target:
    """A gRPC target, read. `host` is empty when there is nothing to look up."""

    text: str
    fixed: tuple[str, ...] = ()
    host: str = ""
    port: str = ""

    async def addresses(self) -> tuple[str, ...]:
        """Each address as a target of its own, in a stable order. Raises OSError when the name cannot be looked up."""
        if not self.host:
            return self.fixed
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self.host, int(self.port), type=socket.SOCK_STREAM)
        return tuple(sorted({_address(family, *address[:2]) for family, _, _, _, address in found}))


def read_target(text: str) -> Target:
    """A target such as 127.0.0.1:50054, dns:///session-store:50054 or ipv4:10.0.0.1:50054,10.0.0.2:50054.

    One of any other scheme (unix, xds, dns with a server of its own) is left to gRPC, as one address.
    """
    scheme, colon, rest = text.partition(":")
    if scheme in _STATIC:
        return Target(text, tuple(f"{scheme}:{each.strip()}" for each in rest.split(",")))
    if scheme == "dns" and colon:
        if rest.startswith("//") and not rest.startswith("///"):
            return Target(text, (text,))
        rest = rest.lstrip("/")
    elif "/" in text or text.startswith("unix"):
        return Target(text, (text,))
    else:
        rest = text
    host, _, port = rest.rpartition(":")
    if not host or not port.isdecimal():
        return Target(text, (text,))
    return Target(text, host=host.strip("[]"), port=port)


def _address(family: socket.AddressFamily, host: str | int, port: str | int) -> str:
    return f"ipv6:[{host}]:{port}" if family is socket.AF_INET6 else f"ipv4:{host}:{port}"


@dataclass(frozen=True, slots=True)
class Seat:
    """An address as a bidder for keys: of those at hand, the one that bids most has the key.

    Whoever knows the same addresses comes to the same one, and one that goes away, or comes, moves no other's keys.
    """

    address: str
    _seed: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_seed", zlib.crc32(self.address.encode()) << 32)

    def bid(self, key: int) -> int:
        """Its bid for a key's digest."""
        mixed = ((key ^ self._seed) * _ODD) & _MASK
        return ((mixed ^ (mixed >> 29)) * _ODD) & _MASK


def digest(key: str) -> int:
    """A key's digest, the same in every process."""
    return zlib.crc32(key.encode())
