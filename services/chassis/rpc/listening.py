"""Trying an address before a server takes it, since gRPC does not say why it could not."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import grpc.aio

from chassis.faults import SettingsInvalid


async def bind(server: grpc.aio.Server, service: str, listen: str, *, share_port: bool = False) -> int:
    """Has the server listen there; returns the port. Raises SettingsInvalid that says why it cannot.

    `share_port` says that others may listen there already, as the server's own option says that others may come.
    """
    await check_address(service, listen, share_port=share_port)
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise cannot_listen(service, listen, str(error)) from None
    if port == 0:
        raise cannot_listen(service, listen, "it was taken in this moment")
    return port


async def check_address(service: str, listen: str, *, share_port: bool = False) -> None:
    """Returns when the service can listen there; raises SettingsInvalid that says why it cannot."""
    if listen.startswith("unix:"):
        return
    host, _, port = listen.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise cannot_listen(service, listen, "it is not host:port")
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        for family, kind, protocol, _, address in found:
            _try(family, kind, protocol, address, share_port=share_port)
    except OSError as error:
        raise cannot_listen(service, listen, error.strerror or str(error)) from None


def _try(family: int, kind: int, protocol: int, address: tuple[object, ...], *, share_port: bool) -> None:
    with contextlib.closing(socket.socket(family, kind, protocol)) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share_port:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        trial.bind(address)


def cannot_listen(service: str, listen: str, why: str) -> SettingsInvalid:
    """The fault for an address that a service cannot have."""
    text = f"{service} cannot listen on {listen}: {why}; stop what listens there or set another `listen`"
    return SettingsInvalid(text, metadata={"listen": listen}, service=service)
