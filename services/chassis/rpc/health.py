"""grpc.health.v1, following what an app says of itself."""

from __future__ import annotations

import asyncio
from typing import Any

import structlog
from grpc_health.v1 import health, health_pb2

from chassis.rpc.app import App
from chassis.rpc.pipeline import only_fault
from chassis.rpc.repeating import Repeating

INTERVAL = 1.0
PATIENCE = 5.0
# After having been ready, so many failures in a row are needed to be not ready: one slow answer must not empty a load balancer.
FAILURES = 3
# Asked for by liveness probes: serving as long as the event loop answers, ready or not.
LIVENESS = "liveness"

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class Health:
    """The health of one app: overall and of each of its proto services. A `servicer` that answers already goes on."""

    def __init__(self, app: App, servicer: Any = None) -> None:
        self.servicer = servicer or health.aio.HealthServicer()  # type: ignore[attr-defined] # missing in the stubs
        self.ready = asyncio.Event()
        self._app = app
        self._failures = 0
        self._said = Repeating()
        self._stopped = False

    async def follow(self, interval: float = INTERVAL) -> None:
        """Asks the app each interval, for ever."""
        await self.servicer.set(LIVENESS, _SERVING)
        await self._set(_NOT_SERVING)
        while not self._stopped:
            await self.check()
            await asyncio.sleep(interval)

    async def check(self) -> None:
        """Asks the app once and tells whoever watches."""
        try:
            async with asyncio.timeout(PATIENCE):
                await self._app.ready()
        except TimeoutError:
            await self._failed(f"its readiness check took more than {PATIENCE:g} s")
        except Exception as error:  # noqa: BLE001 — any failure means not ready
            await self._failed(only_fault(error, self._app.name, "ready").message)
        else:
            await self._succeeded()

    async def _succeeded(self) -> None:
        self._failures = 0
        self._said.forget()
        if not self.ready.is_set() and not self._stopped:
            self.ready.set()
            await self._set(_SERVING)
            structlog.get_logger().info("ready", service=self._app.name)

    async def _failed(self, reason: str) -> None:
        self._failures += 1
        if self._said.is_due(reason):
            structlog.get_logger().warning("not ready", service=self._app.name, reason=reason)
        if self.ready.is_set() and self._failures >= FAILURES:
            self.ready.clear()
            await self._set(_NOT_SERVING)

    async def stop(self) -> None:
        """Says NOT_SERVING from now on."""
        self._stopped = True
        self.ready.clear()
        await self.servicer.enter_graceful_shutdown()

    async def _set(self, status: health_pb2.HealthCheckResponse.ServingStatus.ValueType) -> None:
        for name in ("", *self._app.methods.names):
            await self.servicer.set(name, status)
