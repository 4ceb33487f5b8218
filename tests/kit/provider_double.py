"""A provider whose answers a test writes, a clock that does not wait, and the operations around them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from provider_gateway.domain.answers import ChatEvent, ChatResult, Finished, FinishReason, Started, TextDelta, Usage, UsageReport
from provider_gateway.domain.breaker import CircuitPolicy
from provider_gateway.domain.catalogue import Catalogue
from provider_gateway.domain.chat import ChatRequest, Message, Role, TextPart
from provider_gateway.domain.concurrency import ConcurrencyPolicy
from provider_gateway.domain.models import ModelTraits
from provider_gateway.domain.naming import Names
from provider_gateway.domain.routing import Alias, Choice
from provider_gateway.operations.attempts import UNBOUNDED, Attempts
from provider_gateway.operations.chats import Chats
from provider_gateway.operations.course import Manners
from provider_gateway.operations.health import Health
from provider_gateway.operations.limits import TimeLimits
from provider_gateway.operations.ports import ModelCall
from provider_gateway.operations.recording import Recorder, Silence
from provider_gateway.operations.retries import RetryBudget, RetryPolicy
from provider_gateway.operations.routes import Access, Routes
from provider_gateway.operations.signals import OwnSignals
from provider_gateway.operations.spending import Spending

Play = Callable[[int], AsyncGenerator[Sequence[ChatEvent], None]]
REQUEST = ChatRequest((Message(Role.USER, (TextPart("hi"),)),), "double/m")
ANY = replace(REQUEST, model="any")
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
    """The operations around one double, or around several behind the alias `any`, each a tier of its own unless `alias` says otherwise."""

    provider: Double
    clock: StillClock = field(default_factory=StillClock)
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    limits: TimeLimits = field(default_factory=TimeLimits)
    traits: ModelTraits = field(default_factory=ModelTraits)
    recorder: Recorder = field(default_factory=Silence)
    others: Sequence[Double] = ()
    others_traits: Mapping[str, ModelTraits] = field(default_factory=dict)
    alias: Alias | None = None
    circuit: CircuitPolicy = field(default_factory=CircuitPolicy)
    concurrency: ConcurrencyPolicy = field(default_factory=ConcurrencyPolicy)
    spending: Spending = UNBOUNDED
    chance: Callable[[], float] = lambda: 0.0

    def __post_init__(self) -> None:
        self.health = Health(self.circuit, lambda provider: self.concurrency, self.clock, OwnSignals(self.clock))

    def routes(self) -> Routes:
        """Where calls go."""
        doubles = [self.provider, *self.others]
        models = {self.provider.name: {"m": self.traits}}
        models |= {other.name: {"m": self.others_traits.get(other.name, ModelTraits())} for other in self.others}
        accesses = {double.name: Access(double, self.limits, RetryBudget(self.policy)) for double in doubles}
        alias = self.alias or Alias(tuple(Choice(f"{double.name}/m", tier=tier) for tier, double in enumerate(doubles)))
        names = Names(list(accesses), {}, {"any": alias})
        return Routes(accesses, Catalogue(models), names, lambda adapter, model: None, self.health, self.chance)

    def chats(self) -> Chats:
        """The operations."""
        attempts = Attempts(self.health, Manners(self.policy, lambda: 1.0), self.clock, self.spending)
        return Chats(self.routes(), attempts, self.recorder)


async def events_of(chats: Chats, deadline: float | None = None, request: ChatRequest = REQUEST) -> list[ChatEvent]:
    """The steps of one stream."""
    return [event async for batch in chats.stream(request, deadline) for event in batch]
