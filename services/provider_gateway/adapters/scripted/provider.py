"""Plays a script as a provider would: in pieces, with delays, and with what can go wrong."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterator, Sequence

from chassis.faults import (
    Fault,
    ProviderContextOverflow,
    ProviderCredentialsRefused,
    ProviderPermissionDenied,
    ProviderRateLimited,
    ProviderRequestRefused,
    ProviderResponseInvalid,
    ProviderTimeout,
    ProviderUnavailable,
    StreamIncomplete,
)
from chassis.world import Clock
from provider_gateway.adapters.scripted.begun import taken_up
from provider_gateway.adapters.scripted.choice import answers_in, arguments_of, readable
from provider_gateway.adapters.scripted.script import Script, ScriptedFault, Turn
from provider_gateway.adapters.scripted.vectors import DIMENSIONS, vector_of
from provider_gateway.domain.answers import ChatEvent, ChatResult, FinishReason, Usage
from provider_gateway.domain.assembly import Assembly
from provider_gateway.domain.chat import ChatRequest
from provider_gateway.domain.embeddings import MAX_INPUTS, EmbedResult
from provider_gateway.domain.estimate import estimate_inputs
from provider_gateway.operations.ports import EmbedCall, ModelCall

REMEMBERED = 1024  # so many failing requests are told apart for `times`
CHARACTERS_PER_TOKEN = 4
_FAULTS: dict[str, type[Fault]] = {
    "rate_limited": ProviderRateLimited,
    "unavailable": ProviderUnavailable,
    "timeout": ProviderTimeout,
    "credentials_refused": ProviderCredentialsRefused,
    "permission_denied": ProviderPermissionDenied,
    "context_overflow": ProviderContextOverflow,
    "refused": ProviderRequestRefused,
    "garbage": ProviderResponseInvalid,
    "cut": StreamIncomplete,
}


class ScriptedProvider:
    """Answers from a script. Without one it echoes."""

    adapter = "scripted"
    base_url = ""

    def __init__(self, name: str, script: Script, clock: Clock) -> None:
        self.name = name
        self._script, self._clock = script, clock
        self._failures: OrderedDict[bytes, int] = OrderedDict()

    def problem(self) -> str:
        """Nothing: it needs nothing."""
        return ""

    async def complete(self, call: ModelCall) -> ChatResult:
        """The whole answer."""
        call, turn = taken_up(self._script, call)
        await self._sleep(turn.delay_ms)
        fault = self._due_fault(turn, call.request)
        if fault is not None:
            await self._fail(fault)
        performance = _Performance(self.name, call, turn, self._script.piece)
        for _ in performance.steps():
            pass
        return performance.answer.result()

    async def stream(self, call: ModelCall) -> AsyncGenerator[Sequence[ChatEvent], None]:
        """The answer in pieces."""
        call, turn = taken_up(self._script, call)
        await self._sleep(turn.delay_ms)
        fault = self._due_fault(turn, call.request)
        performance = _Performance(self.name, call, turn, self._script.piece)
        for number, batch in enumerate(performance.steps()):
            if fault is not None and number >= fault.after_pieces:
                break
            if number:
                await self._sleep(self._script.delay_ms)
            yield batch
        if fault is not None:
            await self._fail(fault)
        yield performance.answer.complete()

    @property
    def embed_limit(self) -> int:
        """As many as a request may have."""
        return MAX_INPUTS

    @property
    def embed_tokens(self) -> int:
        """Any number."""
        return 0

    async def embed(self, call: EmbedCall) -> EmbedResult:
        """Vectors made of the words: see vectors.py."""
        request = call.request
        vectors = tuple([vector_of(given, request.dimensions or DIMENSIONS) for given in request.inputs])
        return EmbedResult(vectors, Usage(estimate_inputs(request.inputs)), self.name, call.model)

    async def count(self, call: ModelCall) -> int | None:
        """None: a script counts nothing."""
        return None

    async def _sleep(self, milliseconds: int) -> None:
        if milliseconds:
            await self._clock.sleep(milliseconds / 1000)

    async def _fail(self, fault: ScriptedFault) -> None:
        if fault.kind == "stall":
            await asyncio.Event().wait()  # until somebody loses patience
        seconds = None if fault.retry_after_ms is None else fault.retry_after_ms / 1000
        text = f"{self.name} plays the fault {fault.kind}"
        raise _FAULTS[fault.kind](text, metadata={"provider": self.name}, retry_after=seconds)

    def _due_fault(self, turn: Turn, request: ChatRequest) -> ScriptedFault | None:
        fault = turn.fault
        if fault is None or not fault.times:
            return fault
        key = hashlib.sha256(repr(request.messages).encode()).digest()
        failed = self._failures.pop(key, 0)
        self._failures[key] = failed + 1
        if len(self._failures) > REMEMBERED:
            self._failures.popitem(last=False)
        return fault if failed < fault.times else None


class _Performance:
    """One turn being played into an assembly."""

    def __init__(self, provider: str, call: ModelCall, turn: Turn, piece: int) -> None:
        self.answer = Assembly(provider)
        self._call, self._turn, self._piece = call, turn, piece
        self._number = answers_in(call.request.messages)

    def steps(self) -> Iterator[list[ChatEvent]]:
        """Batches as a provider would send them; afterwards the answer is whole but for its end."""
        answer, turn = self.answer, self._turn
        answer.started(self._call.model, f"scripted-{self._number}")
        for piece in self._pieces(turn.reasoning):
            answer.reasoning(piece)
            yield answer.drain()
        for piece in self._pieces(turn.text):
            answer.text(piece)
            yield answer.drain()
        for piece in self._pieces(turn.refusal):
            answer.refusal(piece)
            yield answer.drain()
        yield from self._calls()
        answer.report(self._usage())
        answer.finish = self._finish()
        answer.finish_raw = answer.finish.name.lower()

    def _calls(self) -> Iterator[list[ChatEvent]]:
        for index, call in enumerate(self._turn.calls):
            self.answer.open_call(index, call.id or f"call_{self._number}_{index}", call.name)
            for piece in self._pieces(arguments_of(call).decode()):
                self.answer.arguments(index, piece)
            yield self.answer.drain()

    def _finish(self) -> FinishReason:
        if self._turn.finish:
            return FinishReason[self._turn.finish.upper()]
        if self._turn.calls:
            return FinishReason.TOOL_CALLS
        return FinishReason.REFUSAL if self._turn.refusal else FinishReason.STOP

    def _usage(self) -> Usage:
        usage = self._turn.usage
        if usage is not None:
            return Usage(usage.input, usage.output, usage.cache_read, usage.cache_write, usage.reasoning)
        read = sum(len(readable(message)) for message in self._call.request.messages)
        calls = sum(len(arguments_of(call)) for call in self._turn.calls)
        written = len("".join(self._pieces(self._turn.text))) + len("".join(self._pieces(self._turn.reasoning))) + calls
        return Usage(-(-read // CHARACTERS_PER_TOKEN), -(-written // CHARACTERS_PER_TOKEN))

    def _pieces(self, text: str | list[str]) -> list[str]:
        if isinstance(text, list):
            return text
        return [text[start : start + self._piece] for start in range(0, len(text), self._piece)]
