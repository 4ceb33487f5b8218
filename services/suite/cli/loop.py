"""An event loop beside the terminal: the main thread reads keys and Ctrl-C, a thread of its own does the work."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

T = TypeVar("T")


class Loop:
    """Runs coroutines for a thread that may block, as reading a terminal does."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def run(self, work: Coroutine[Any, Any, T], on_interrupt: Callable[[], Coroutine[Any, Any, object]] | None = None) -> T:
        """The coroutine's result. Ctrl-C runs on_interrupt beside it and waits on; a second one, or one without it, cancels."""
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            try:
                return future.result()
            except KeyboardInterrupt:
                if on_interrupt is None:
                    raise
                asyncio.run_coroutine_threadsafe(on_interrupt(), self._loop)
                return future.result()
        except KeyboardInterrupt:
            future.cancel()
            raise

    @contextlib.contextmanager
    def holding(self, context: AbstractAsyncContextManager[T]) -> Iterator[T]:
        """What the asynchronous context gives, open while the body runs; one task of the loop enters and leaves it."""
        opened: Future[T] = Future()
        closing = asyncio.Event()
        held = asyncio.run_coroutine_threadsafe(_hold(context, opened, closing), self._loop)
        try:
            yield opened.result()
        finally:
            self._loop.call_soon_threadsafe(closing.set)
            held.result()


async def _hold(context: AbstractAsyncContextManager[T], opened: Future[T], closing: asyncio.Event) -> None:
    try:
        async with context as value:
            opened.set_result(value)
            await closing.wait()
    except BaseException as error:
        if opened.done():
            raise
        opened.set_exception(error)


@contextlib.contextmanager
def open_loop() -> Iterator[Loop]:
    """A loop that runs in its own thread until the end."""
    import uvloop

    loop = uvloop.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="behest", daemon=True)
    thread.start()
    try:
        yield Loop(loop)
    finally:
        asyncio.run_coroutine_threadsafe(_settle(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _settle() -> None:
    """Cancels what is left and waits for it."""
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
    await asyncio.get_running_loop().shutdown_asyncgens()
