"""What both sides of a mux stream share: the outbox, credit, and how calls and outcomes look as frames."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol, cast

from behest.mux.v1.mux_service_pb2 import ExchangeResponse, Frame
from chassis.faults import Fault
from chassis.rpc.pipe import WINDOW
from chassis.rpc.status import fault_of, parse_status, status_of

# A batch is cut here, so that one call's megabytes do not delay the others' bytes for long.
BATCH_BYTES = 1 << 20
# How much larger than its largest message a batch can be: what was in it before, and the frame around the message.
FRAME_ROOM = BATCH_BYTES + (64 << 10)
# More than this unsent means that the other side does not read.
OUTBOX_FRAMES = 16_384
OUTBOX_BYTES = 128 << 20


class Batch(Protocol):
    """An ExchangeRequest or ExchangeResponse."""

    @property
    def frames(self) -> Any:
        """The frames."""


class Outbox:
    """Frames to be written, gathered in batches: whatever is there when the writer wakes goes in one message. There is no timer."""

    def __init__(self, batch: Callable[[], Batch]) -> None:
        self._batch = batch
        self._pending: deque[tuple[Batch, int, int]] = deque()
        self._open = batch()
        self._frames = self._bytes = 0
        self._all_frames = self._all_bytes = 0
        self._closed = False
        self._writer: asyncio.Future[None] | None = None
        self._room: asyncio.Event | None = None

    def add(self, call: int, size: int = 0, **fields: Any) -> None:
        """Adds a frame of that call; size is that of its payload."""
        if self._frames and self._bytes + size > BATCH_BYTES:
            self._cut()
        self._open.frames.add(call=call, **fields)
        self._frames += 1
        self._bytes += size
        self._wake()

    def announce_draining(self) -> None:
        """Says in the next batch that no more calls should be opened. For the serving side."""
        cast(ExchangeResponse, self._open).draining = True
        self._frames += 1  # a batch may hold nothing else
        self._wake()

    def _wake(self) -> None:
        if self._writer is not None and not self._writer.done():
            self._writer.set_result(None)

    def _cut(self) -> None:
        self._pending.append((self._open, self._frames, self._bytes))
        self._all_frames += self._frames
        self._all_bytes += self._bytes
        self._open, self._frames, self._bytes = self._batch(), 0, 0

    @property
    def full(self) -> bool:
        """Whether whoever adds frames should wait for room."""
        return self._all_frames + self._frames > OUTBOX_FRAMES or self._all_bytes + self._bytes > OUTBOX_BYTES

    async def room(self) -> None:
        """Waits until it is no longer full."""
        while self.full and not self._closed:
            self._room = self._room or asyncio.Event()
            await self._room.wait()

    async def next(self) -> Batch | None:
        """The next batch, as soon as there is one; None when it is closed and empty."""
        while not self._frames and not self._pending:
            if self._closed:
                return None
            self._writer = asyncio.get_running_loop().create_future()
            await self._writer
        if not self._pending:
            taken, self._open, self._frames, self._bytes = self._open, self._batch(), 0, 0
        else:
            taken, frames, size = self._pending.popleft()
            self._all_frames -= frames
            self._all_bytes -= size
        if self._room is not None and not self.full:
            self._room.set()
            self._room = None
        return taken

    def close(self) -> None:
        """Nothing more will be added."""
        self._closed = True
        self._wake()
        if self._room is not None:
            self._room.set()


class Credit:
    """How many messages may still be sent on a call; the reader grants more as it reads."""

    __slots__ = ("_left", "_waiter")

    def __init__(self, left: int = WINDOW) -> None:
        self._left = left
        self._waiter: asyncio.Future[None] | None = None

    def grant(self, count: int) -> None:
        """The reader has room for so many more."""
        self._left += count
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def take(self) -> None:
        """Waits for leave to send one message."""
        while self._left <= 0:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        self._left -= 1


class Grants:
    """Gives credit back to the sender, half a window at a time."""

    __slots__ = ("_call", "_outbox", "_taken")

    def __init__(self, outbox: Outbox, call: int) -> None:
        self._outbox, self._call, self._taken = outbox, call, 0

    def taken(self) -> None:
        """The reader took a message."""
        self._taken += 1
        if self._taken * 2 >= WINDOW:
            self._outbox.add(self._call, credit=self._taken)
            self._taken = 0


def add_failure(outbox: Outbox, call: int, fault: Fault) -> None:
    """Ends a call with a fault."""
    outbox.add(call, end=True, status_code=fault.kind.value, status=status_of(fault).SerializeToString())


def outcome(frame: Frame, path: str) -> Fault | None:
    """The fault that a call's last frame tells of, None for success."""
    if not frame.status_code:
        return None
    return fault_of(parse_status(frame.status, frame.status_code, ""), path)
