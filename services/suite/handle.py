"""One run as its caller holds it: its events, its text, its answer, and the ways to steer it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from behest.event.v1 import event_pb2 as event_pb
from behest.fault.v1 import fault_pb2 as fault_pb
from behest.run.v1 import run_pb2 as run_pb
from chassis.faults import Fault, Internal, RunCancelled, fault_class
from suite.following import kind_of
from suite.transcript import Piece, Transcript

if TYPE_CHECKING:
    from suite.client import Behest


class RunHandle:
    """A run that was accepted. Iterating gives its events from the first; leaving the loop leaves the run alone.

    `run` is the run as it was accepted; `await handle.refresh()` gets it as it is.
    """

    def __init__(self, client: Behest, run: run_pb.Run) -> None:
        self.run = run
        self._client = client

    @property
    def id(self) -> str:
        """The run's id."""
        return self.run.id

    @property
    def session_id(self) -> str:
        """The id of the session it belongs to."""
        return self.run.session_id

    def __aiter__(self) -> AsyncIterator[event_pb.Event]:
        return self.events()

    def events(self, after: int = 0) -> AsyncIterator[event_pb.Event]:
        """Its events after a sequence number, gap-free across lost connections, ending with the terminal one."""
        return self._client.watch(self.id, after=after)

    async def text(self) -> AsyncIterator[Piece]:
        """Its text as it is produced; raises the run's fault when it fails.

        Pieces are strings. When a model call had to be repeated, a piece's `retracts` says how many characters to take back.
        """
        transcript = Transcript()
        async for event in self.events():
            piece = transcript.feed(event)
            if piece is not None:
                yield piece
            raise_if_failed(event)

    async def answer(self) -> str:
        """The final answer's text once the run has completed; raises the run's fault when it fails."""
        transcript, turn = Transcript(), 0
        async for event in self.events():
            raise_if_failed(event)
            if kind_of(event) == "model_started" and event.model_started.turn != turn:
                transcript, turn = Transcript(), event.model_started.turn
            transcript.feed(event)
        return transcript.text

    async def refresh(self) -> run_pb.Run:
        """The run as it is now."""
        self.run = await self._client.get_run(self.id)
        return self.run

    async def cancel(self, reason: str = "") -> run_pb.Run:
        """Asks it to stop; it ends soon after."""
        return await self._client.cancel(self.id, reason)

    async def send(self, text: str, *, interrupt: bool = False) -> int:
        """Steers it: the model sees text at its next turn, or at once when interrupt is set. Returns the event's sequence."""
        return await self._client.send_input(self.id, text, interrupt=interrupt)


def raise_if_failed(event: event_pb.Event) -> None:
    """Raises the fault of a run_failed event, RunCancelled for a run_cancelled one; does nothing for others."""
    match kind_of(event):
        case "run_failed":
            raise as_fault(event.run_failed.fault)
        case "run_cancelled":
            reason = event.run_cancelled.reason
            raise RunCancelled(f"the run was cancelled: {reason}" if reason else "the run was cancelled", metadata={"run_id": event.run_id})


def as_fault(fault: fault_pb.Fault) -> Fault:
    """The typed fault that an event or a run records; Internal for a reason that this version does not know."""
    known = fault_class(fault.reason)
    message = fault.message if known else f"{fault.reason}: {fault.message}"
    return (known or Internal)(message, metadata=dict(fault.metadata), service=fault.service)
