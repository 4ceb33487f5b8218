"""Reading a caller's request stream on its behalf."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from google.protobuf.message import Message

Send = Callable[[Message], Awaitable[None]]
End = Callable[[], Awaitable[None]]

_running: set[asyncio.Task[None]] = set()  # the loop itself holds tasks weakly


class Feed:
    """Sends a caller's requests on in a task of its own, then ends. When that fails, keeps the error and calls `failed`."""

    def __init__(self, requests: AsyncIterator[Message], send: Send, end: End, failed: Callable[[], object]) -> None:
        self.error: Exception | None = None
        self._task = asyncio.get_running_loop().create_task(self._run(requests, send, end, failed))
        _running.add(self._task)
        self._task.add_done_callback(_running.discard)

    async def _run(self, requests: AsyncIterator[Message], send: Send, end: End, failed: Callable[[], object]) -> None:
        try:
            async for request in requests:
                await send(request)
            await end()
        except Exception as error:  # noqa: BLE001 — raised to whoever waits for the responses
            self.error = error
            failed()
        finally:
            close = getattr(requests, "aclose", None)
            if close is not None:
                await close()

    def stop(self) -> None:
        """Reads no further."""
        self._task.cancel()
