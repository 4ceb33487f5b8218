"""What listens for a service that waits to start: alive, not ready, and every caller is told what is waited for.

The service then moves in: it answers on the same server, so callers keep their connections and never find nobody there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from chassis.faults import Fault
from chassis.rpc.health import LIVENESS
from chassis.rpc.listening import bind
from chassis.rpc.server import abort


class WaitingRoom:
    """Listens from the first `tell` on, so that a service which need not wait never has one. `options` are gRPC's."""

    def __init__(self, name: str, listen: str, options: Sequence[tuple[str, Any]]) -> None:
        self.health = health.aio.HealthServicer()  # type: ignore[attr-defined] # missing in the stubs
        self.desk = Desk()
        self._name = name
        self._listen = listen
        self._options = options
        self._server: grpc.aio.Server | None = None
        self._port = 0

    @property
    def listens(self) -> bool:
        """Whether it has the address."""
        return self._server is not None

    async def tell(self, fault: Fault) -> None:
        """Answers calls with this fault from now on. Raises SettingsInvalid when the address cannot be had."""
        fault.service = fault.service or self._name
        self.desk.fault = fault
        if self._server is None:
            self._server = await self._open()

    def leave(self) -> tuple[grpc.aio.Server, int]:
        """The server and its port, which are the caller's from now on; what was added to the desk answers its calls."""
        assert self._server is not None
        server, self._server, self.desk.fault = self._server, None, None
        return server, self._port

    async def close(self) -> None:
        """Listens no more, unless somebody moved in."""
        if self._server is not None:
            await self.leave()[0].stop(None)

    async def _open(self) -> grpc.aio.Server:
        server = grpc.aio.server(options=self._options)
        await self.health.set(LIVENESS, health_pb2.HealthCheckResponse.SERVING)
        await self.health.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self.desk)
        server.add_generic_rpc_handlers((self.desk,))
        self._port = await bind(server, self._name, self._listen)
        await server.start()
        return server


class Desk(grpc.GenericRpcHandler):  # type: ignore[type-arg] # generic in the stubs alone
    """Takes handlers as a server does, also while it is called; calls that nobody takes end with `fault`, when there is one."""

    def __init__(self) -> None:
        self.fault: Fault | None = None
        self._handlers: list[Any] = []
        self._refusing = grpc.stream_stream_rpc_method_handler(self._refuse)

    def add_registered_method_handlers(self, service: str, handlers: Any) -> None:
        """Nothing: the same handlers are given as generic ones."""

    def add_generic_rpc_handlers(self, handlers: Sequence[Any]) -> None:
        """Asks these too from now on."""
        self._handlers.extend(handlers)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """The handler of a call; None for a method that does not exist."""
        for handlers in self._handlers:
            if (found := handlers.service(handler_call_details)) is not None:
                return found
        return self._refusing if self.fault is not None else None

    async def _refuse(self, _: Any, context: Any) -> None:
        assert self.fault is not None
        await abort(context, self.fault)
