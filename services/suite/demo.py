"""`behest demo`: four services and a local model; a question, a tool, and a killed process. Needs no key and no network."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from behest.agent.v1 import agent_pb2 as agent_pb
from behest.chat.v1 import chat_pb2 as chat_pb
from behest.run.v1 import run_service_pb2 as runs
from chassis.faults import Fault, Internal
from chassis.rpc.serve import run
from suite import timeline
from suite.addresses import Service
from suite.cli.listing import TIMELINE_HEAD, show_row
from suite.cli.live import Live
from suite.cli.outcome import Exit, command, fitted
from suite.cli.output import Output
from suite.client import Behest
from suite.composition import SuiteOptions, variable
from suite.following import Backoff, kind_of
from suite.handle import RunHandle
from suite.processes import Child, Processes, open_processes

DATA = Path(".data/demo")
QUESTION = "What is the capital of France?"
SUM, PRODUCT = "What is 1234 * 5678?", "7006652"
STORY = "Write a few sentences about the sea."
DELTAS_BEFORE_KILL = 3

# What the model would do if it were larger: call the tool, then speak of what the tool really returned.
SCRIPT = {
    "rules": [
        {"when": {"role": "tool", "contains": PRODUCT}, "turns": [{"text": f"1234 * 5678 = {PRODUCT}, says the calculator."}]},
        {"when": {"equals": SUM}, "turns": [{"calls": [{"name": "calculator", "arguments": {"expression": "1234 * 5678"}}]}]},
    ]
}


def run_demo(data: Path | None) -> Exit:
    """Runs the demo; raises a fault that says what went wrong."""
    run(_Demo(Output(json=False, inline=True), data or DATA).play())
    return Exit.OK


@dataclass(frozen=True, slots=True)
class _Demo:
    output: Output
    data: Path

    async def play(self) -> None:
        """The whole demo."""
        self._say("Four services in four processes, and a model on this machine: no key, no network, no database server.")
        async with self._suite() as suite, Behest(suite.children[0].listen) as client:
            for child in suite.children:
                self.output.aside(f"   {child.service.value:<17} {child.listen}  pid {child.pid}")
            asked = await self._ask(client)
            called = await self._call_a_tool(client, asked.session_id)
            killed = await self._kill_in_mid_run(client, suite, asked.session_id)
            await self._sum_up(client, called, killed)

    @asynccontextmanager
    async def _suite(self) -> AsyncIterator[Processes]:
        log: list[str] = []
        scripted = json.dumps({"adapter": "scripted", "script": SCRIPT})
        env = {**os.environ, variable("provider_gateway", "providers", "scripted"): scripted, variable("log", "level"): "error"}
        try:
            options = SuiteOptions(self.data, port_base=_free_port_base(), local_model=True)
            async with open_processes(options, log.append, env) as suite:
                yield suite
        except Fault:
            for line in log[-20:]:
                self.output.aside(line)
            raise

    async def _ask(self, client: Behest) -> RunHandle:
        self._say("1. A question. SmolLM2-135M answers; you see the text as it is produced.")
        return await self._carry_out(client, _short(QUESTION))

    async def _call_a_tool(self, client: Behest, session: str) -> RunHandle:
        self._say(
            "2. A tool, in the same session. A model this small cannot choose tools, so its part is forced and comes from a script; "
            "the tool, its result, the session and the log are real."
        )
        choice = chat_pb.ToolChoice(mode=chat_pb.ToolChoice.MODE_NAMED, name="calculator")
        order = runs.CreateRunRequest(session_id=session, input=_said(SUM), model="scripted/demo", tool_choice=choice)
        called = await self._carry_out(client, order)
        if PRODUCT not in await called.answer():
            raise Internal(f"the demo's answer does not hold the tool's result {PRODUCT}; look at run {called.id}")
        await self._timeline(client, called)
        return called

    async def _kill_in_mid_run(self, client: Behest, suite: Processes, session: str) -> RunHandle:
        self._say("3. A crash. The orchestrator is killed (kill -9) in mid-answer; it is started again and goes on with the run.")
        killed = await self._carry_out(client, _short(STORY, session), suite.children[0])
        await self._timeline(client, killed)
        return killed

    async def _carry_out(self, client: Behest, order: runs.CreateRunRequest, victim: Child | None = None) -> RunHandle:
        self.output.line(f"\n   > {order.input[0].text}\n")
        handle = await client.create_run(order)
        live, deltas = Live(self.output), 0
        async for event in client.watch(handle.id, backoff=Backoff(attempts=30)):
            live.show(event)
            deltas += kind_of(event) == "text_delta"
            if victim is not None and deltas == DELTAS_BEFORE_KILL:
                self._kill(victim)
                victim = None
        if live.exit is not Exit.OK:
            raise Internal(f"the demo's run {handle.id} did not complete; its timeline: {command()} watch {handle.id} --data {self.data}")
        return handle

    def _kill(self, victim: Child) -> None:
        self.output.line()
        self.output.aside(f"   kill -9 {victim.pid}")
        os.kill(victim.pid, signal.SIGKILL)

    async def _timeline(self, client: Behest, handle: RunHandle) -> None:
        self.output.line()
        self.output.aside(TIMELINE_HEAD)
        for row in timeline.rows(await client.replay(handle.id)):
            show_row(self.output, row)

    async def _sum_up(self, client: Behest, called: RunHandle, killed: RunHandle) -> None:
        usage = await client.usage(called.session_id)
        messages = await client.messages(called.session_id)
        resumed = sum(kind_of(event) == "run_resumed" for event in await client.replay(killed.id))
        stored = f"{len(messages)} messages, {timeline.tokens_of(usage.total)} tokens"
        self._say(f"Done: 3 runs, 1 session, {stored}; resumed {resumed} time{'s' if resumed != 1 else ''}, none lost.")
        self._say("Next:")
        name = command()
        for line in (
            f"{name} chat    talk with an agent",
            f"{name} up      keep a suite running",
            f"{name} sessions {called.session_id} --data {self.data}",
            f"{name} watch {killed.id} --data {self.data}",
        ):
            self.output.line(f"   {line}")

    def _say(self, text: str) -> None:
        self.output.line("\n" + self.output.bold(fitted(text, sys.stdout, 3 if text[0].isdigit() else 0)))


def _short(text: str, session: str = "") -> runs.CreateRunRequest:
    """An order for the local model that it answers alike each time, and soon."""
    sampling, limits = chat_pb.Sampling(max_output_tokens=90, temperature=0), agent_pb.Limits(max_continuations=-1)
    return runs.CreateRunRequest(session_id=session, input=_said(text), model="local/smollm2", sampling=sampling, limits=limits)


def _said(text: str) -> list[chat_pb.Part]:
    return [chat_pb.Part(text=text)]


def _free_port_base() -> int:
    """The first of four ports in a row that are free at this moment."""
    for base in range(50151, 60000, len(Service)):
        if all(_is_free(base + service.offset) for service in Service):
            return base
    raise Internal("no four free ports in a row between 50151 and 60000; close some servers")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
