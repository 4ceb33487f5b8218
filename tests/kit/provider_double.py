"""A provider whose answers a test writes, a clock that does not wait, and the operations around them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from provider_gateway.domain.answers import ChatEvent, ChatResult, Finished, FinishReason, Started, TextDelta, Usage, UsageReport
from provider_gateway.domain.catalogue import Catalogue
from provider_gateway.domain.chat import ChatRequest, Message, Role, TextPart
from provider_gateway.domain.models import ModelTraits
from provider_gateway.domain.naming import Names
from provider_gateway.operations.chats import Chats, Manners
from provider_gateway.operations.limits import TimeLimits
from provider_gateway.operations.ports import ModelCall
from provider_gateway.operations.recording import Recorder, Silence
from provider_gateway.operations.retries import RetryBudget, RetryPolicy
from provider_gateway.operations.routes import Access, Routes

Play = Callable[[int], AsyncGenerator[Sequence[ChatEvent], None]]
REQUEST = ChatRequest((Message(Role.USER, (TextPart("hi"),)),), "double/m")
STARTED = Started("double", "m", "r")


def answer(text: str) -> ChatResult:
    """A result that says text."""
    parts = (TextPart(text),) if text else ()
    return ChatResult(Message(Role.ASSISTANT, parts), FinishReason.STOP, "stop", Usage(1, 2), "double", "m", "r")


def finish(text: str) -> list[ChatEvent]:
    """The end of a stream that said text."""
    result = answer(text)
    return [UsageReport(result.usage), Finished(result)]


async def saying(*pieces: str) -> AsyncGenerator[Sequence[ChatEvent], None]:
    """A stream that says these pieces."""
    yield [STARTED]
    for piece in pieces:
        yield [TextDelta(piece)]
    yield finish("".join(pieces))


@dataclass
class Double:
    """Plays `play(n)` for its n-th stream; a whole answer is the end of the same."""

    play: Play
    name: str = "double"
    adapter: str = "openai"
    base_url: str = ""
    calls: list[ModelCall] = field(default_factory=list)
    closed: int = 0

    def problem(self) -> str:
        return ""

    async def complete(self, call: ModelCall) -> ChatResult:
        events = [event async for batch in self.stream(call) for event in batch]
        last = events[-1]
        assert isinstance(last, Finished)
        return last.result

    async def stream(self, call: ModelCall) -> AsyncGenerator[Sequence[ChatEvent], None]:
        self.calls.append(call)
        played = self.play(len(self.calls) - 1)
        try:
            async for batch in played:
                yield batch
        finally:
            self.closed += 1
            await played.aclose()


@dataclass
class StillClock:
    """A clock that moves only when somebody sleeps, and does so at once."""

    time: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.time += seconds


@dataclass
class Bench:
    """The operations around one double."""

    provider: Double
    clock: StillClock = field(default_factory=StillClock)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    limits: TimeLimits = field(default_factory=TimeLimits)
    traits: ModelTraits = field(default_factory=ModelTraits)
    recorder: Recorder = field(default_factory=Silence)

    def chats(self) -> Chats:
        """The operations."""
        catalogue = Catalogue({"double": {"m": self.traits}})
        access = Access(self.provider, self.limits, RetryBudget(self.policy))
        routes = Routes({"double": access}, catalogue, Names(["double"], {}, {}), lambda adapter, model: None)
        return Chats(routes, Manners(self.policy, lambda: 1.0), self.clock, self.recorder)


async def events_of(chats: Chats, deadline: float | None = None) -> list[ChatEvent]:
    """The steps of one stream."""
    return [event async for batch in chats.stream(REQUEST, deadline) for event in batch]
