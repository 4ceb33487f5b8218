"""Giving orders from a terminal: `behest run` and `behest chat`."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

from behest.chat.v1 import chat_pb2 as chat_pb
from behest.run.v1 import run_pb2 as run_pb
from behest.run.v1 import run_service_pb2 as runs
from chassis.faults import Fault, InputEmpty, RequestInvalid
from suite.cli.live import Live
from suite.cli.loop import Loop, open_loop
from suite.cli.outcome import Exit, message_of, tell
from suite.cli.output import Output
from suite.cli.reach import Where, reach
from suite.client import Behest
from suite.handle import RunHandle

LEAVE = frozenset({"/quit", "/exit"})


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked, and of whom."""

    text: str = ""
    model: str = ""
    agent: str = ""
    session: str = ""
    tool: str = ""
    on_busy: str = "reject"
    priority: str = "normal"

    def local_model(self, asked: bool | None) -> bool | None:
        """Whether to run the local model for it: as asked, and of itself only for an order that may need it."""
        return asked if asked is not None or not self.model else self.model.startswith("local/")

    def request(self) -> runs.CreateRunRequest:
        """The order in the contract's words."""
        choice = chat_pb.ToolChoice(mode=chat_pb.ToolChoice.MODE_NAMED, name=self.tool) if self.tool else None
        part = chat_pb.Part(text=self.text)
        return runs.CreateRunRequest(
            session_id=self.session,
            agent=self.agent,
            model=self.model,
            input=[part],
            tool_choice=choice,
            on_busy=run_pb.BusyPolicy.Value(f"BUSY_POLICY_{self.on_busy.upper()}"),
            priority=run_pb.RunPriority.Value(f"RUN_PRIORITY_{self.priority.upper()}"),
        )


class Conversation:
    """Orders given one after another over one connection. Ctrl-C cancels the run under way."""

    def __init__(self, loop: Loop, client: Behest, output: Output) -> None:
        self._loop, self._client, self._output = loop, client, output
        self._handle: RunHandle | None = None
        self._cancelled = False

    def give(self, order: Order) -> Exit:
        """Carries one order out on the screen."""
        self._handle, self._cancelled = None, False
        code = self._loop.run(self._carry_out(order), on_interrupt=self._cancel)
        return Exit.INTERRUPTED if self._cancelled and code is not Exit.OK else code

    @property
    def session(self) -> str:
        """The session of the last order; empty when it was not accepted."""
        return self._handle.session_id if self._handle else ""

    async def _carry_out(self, order: Order) -> Exit:
        self._handle = await self._client.create_run(order.request())
        if self._cancelled:
            await self._handle.cancel("interrupted")
        return await Live(self._output).follow(self._handle.events())

    async def _cancel(self) -> None:
        self._cancelled = True
        if self._handle is not None:
            try:
                await self._handle.cancel("interrupted")
            except Fault as fault:
                tell(f"the run could not be cancelled: {fault.message or fault.reason}\nit goes on; Ctrl-C once more leaves it")


@contextlib.contextmanager
def open_conversation(where: Where, output: Output) -> Iterator[Conversation]:
    """A conversation with the suite that where names, or with one in this process."""
    with open_loop() as loop, loop.holding(reach(where)) as client:
        yield Conversation(loop, client, output)


def run_order(where: Where, order: Order, json: bool | None) -> Exit:
    """`behest run`: one order from the arguments or standard input."""
    order = order if order.text != "-" else replace(order, text=_piped())
    with open_conversation(where, Output(json)) as conversation:
        return conversation.give(order)


def run_chat(where: Where, order: Order, json: bool | None) -> Exit:
    """`behest chat`: orders from the keyboard until the end of input, or one from a pipe."""
    if not sys.stdin.isatty():
        return run_order(where, replace(order, text="-"), json)
    with open_conversation(where, Output(json)) as conversation:
        return _talk(conversation, order)


def _piped() -> str:
    text = text_of(sys.stdin.buffer.read()).strip()
    if not text:
        raise InputEmpty("there is no order: give it as an argument, or through standard input")
    return text


def text_of(given: bytes) -> str:
    """What came through a pipe as text. Raises RequestInvalid when it is none."""
    try:
        return given.decode()
    except UnicodeDecodeError as error:
        text = f"the order is not UTF-8 text: byte {error.start + 1} is {given[error.start]:#04x}; convert it first, for example with iconv"
        raise RequestInvalid(text) from None


def _talk(conversation: Conversation, order: Order) -> Exit:
    import readline  # noqa: F401 - gives input() its line editing

    tell("/quit or Ctrl-D ends, Ctrl-C stops an answer")
    while True:
        try:
            text = input("> ").strip()
        except (EOFError, KeyboardInterrupt):
            tell("")
            return Exit.OK
        if text in LEAVE:
            return Exit.OK
        if text:
            order = _say(conversation, replace(order, text=text))


def _say(conversation: Conversation, order: Order) -> Order:
    """Gives the order and returns the one that goes on in the same session. A failure is told and the talk goes on."""
    try:
        conversation.give(order)
    except Fault as fault:
        tell(message_of(fault))
    return replace(order, session=conversation.session or order.session, tool="")
