"""How targets fare: what is under way at each, whether it is to be asked at all, and who waits for it. Bounded, one process's own."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from itertools import islice

from chassis.faults import (
    ProviderBusy,
    ProviderCredentialsMissing,
    ProviderRateLimited,
    ProviderResponseInvalid,
    ProviderTimeout,
    ProviderUnavailable,
    StreamIncomplete,
    UpstreamFault,
)
from chassis.world import Clock
from provider_gateway.domain.breaker import Admission, Breaker, CircuitPolicy
from provider_gateway.domain.concurrency import Concurrency, ConcurrencyPolicy
from provider_gateway.domain.models import TargetStatus
from provider_gateway.domain.routing import Standing
from provider_gateway.operations.signals import Signals

MOST_TARGETS = 4096
LATENCIES = 128
OVERLOADED = frozenset({"429", "503", "529"})
_SICK = (ProviderUnavailable, ProviderTimeout, ProviderResponseInvalid, StreamIncomplete)


class Fitness:
    """How one target fares."""

    __slots__ = ("breaker", "concurrency", "last_failure", "latencies", "name", "policy", "waiting")

    def __init__(self, name: str, circuit: CircuitPolicy, policy: ConcurrencyPolicy) -> None:
        self.name, self.policy = name, policy
        self.breaker, self.concurrency = Breaker(circuit), Concurrency(policy)
        self.waiting: deque[asyncio.Future[None]] = deque()
        self.latencies: deque[float] = deque(maxlen=LATENCIES)
        self.last_failure = ""

    @property
    def idle(self) -> bool:
        """Whether nothing is under way and nobody waits."""
        return not self.concurrency.in_flight and not self.waiting

    async def turn(self) -> None:
        """Waits for a place and takes it; raises ProviderBusy when too many wait, or too long."""
        if len(self.waiting) >= self.policy.queue:
            raise self._busy("too many wait")
        turn = asyncio.get_running_loop().create_future()
        self.waiting.append(turn)
        try:
            async with asyncio.timeout(self.policy.queue_seconds):
                await turn
        except BaseException as error:
            self._give_up(turn)
            if isinstance(error, TimeoutError):
                raise self._busy(f"none ended in {self.policy.queue_seconds:g} s") from None
            raise

    def leave(self) -> None:
        """Gives a place back, to whoever waits longest."""
        self.concurrency.in_flight -= 1
        while self.waiting and self.concurrency.has_room:
            turn = self.waiting.popleft()
            if not turn.done():
                self.concurrency.in_flight += 1
                turn.set_result(None)

    def _give_up(self, turn: asyncio.Future[None]) -> None:
        if turn.done() and not turn.cancelled():
            self.leave()  # the place came together with the end of patience
        elif turn in self.waiting:
            self.waiting.remove(turn)

    def _busy(self, why: str) -> ProviderBusy:
        provider, _, model = self.name.partition("/")
        limit = self.concurrency.limit
        return ProviderBusy(
            f"{self.name} has {limit} calls under way, as many as it takes, and {why}; retry later, or add a target",
            metadata={"provider": provider, "model": model, "limit": str(limit)},
            retry_after=1.0,
        )


class Place:
    """A call's place at a target: told how the call goes, and left once."""

    __slots__ = ("_began", "_fitness", "_health", "_probe", "claim")

    def __init__(self, health: Health, fitness: Fitness, probe: bool, began: float) -> None:
        self.claim: Callable[[], None] = _nobody_else  # to be called before output is delivered; raises where another attempt was first
        self._health, self._fitness, self._probe, self._began = health, fitness, probe, began

    def began_output(self) -> None:
        """The first output came."""
        now = self._health.clock.monotonic()
        self._fitness.latencies.append(now - self._began)
        self._fitness.concurrency.began_output(now, self._began)

    def answered(self) -> None:
        """The call ended well."""
        fitness = self._fitness
        fitness.last_failure = ""
        fitness.breaker.answered(self._health.clock.monotonic(), self._probe)
        fitness.concurrency.answered()
        fitness.leave()

    def failed(self, fault: BaseException) -> None:
        """The call ended otherwise. Only what speaks of the target's health counts: not what the request or the caller is to blame for."""
        fitness, now = self._fitness, self._health.clock.monotonic()
        if isinstance(fault, UpstreamFault):
            fitness.last_failure = fault.reason
        if _overload(fault):
            fitness.concurrency.overloaded(now, self._began)
        if isinstance(fault, _SICK):
            fitness.breaker.failed(now, self._probe)
        elif self._probe and isinstance(fault, UpstreamFault) and not isinstance(fault, ProviderCredentialsMissing):
            fitness.breaker.answered(now, True)  # a target that refuses is there
        elif self._probe:
            fitness.breaker.abandoned(now)
        if isinstance(fault, ProviderRateLimited) and fault.retry_after:
            self._health.signals.cool(fitness.name, fault.retry_after)
        fitness.leave()


class Health:
    """How all targets fare. `policies` gives a provider's terms for calls at once."""

    def __init__(
        self, circuit: CircuitPolicy, policies: Callable[[str], ConcurrencyPolicy], clock: Clock, signals: Signals, most: int = MOST_TARGETS
    ) -> None:
        self.clock, self.signals = clock, signals
        self._circuit, self._policies, self._most = circuit, policies, most
        self._fitness: dict[str, Fitness] = {}

    def standing(self, name: str) -> Standing:
        """How a target fares, for the order in which targets are asked."""
        fitness = self._fitness.get(name)
        if fitness is not None and not fitness.breaker.admits(self.clock.monotonic()):
            return Standing.OPEN
        if self.signals.cooling(name):
            return Standing.COOLING
        return Standing.FULL if fitness is not None and not fitness.concurrency.has_room else Standing.READY

    async def enter(self, name: str) -> Place:
        """A place at a target. Raises ProviderUnavailable while its circuit is open, ProviderBusy when it takes no more calls."""
        fitness = self._fitness.get(name) or self._new(name)
        now = self.clock.monotonic()
        if not fitness.breaker.admits(now):
            raise _left_alone(fitness, now)
        if fitness.waiting or not fitness.concurrency.has_room:
            await fitness.turn()
            now = self.clock.monotonic()
        else:
            fitness.concurrency.in_flight += 1
        admission = fitness.breaker.admit(now)
        if admission is Admission.STAY:  # it opened while the call waited
            fitness.leave()
            raise _left_alone(fitness, now)
        return Place(self, fitness, admission is Admission.PROBE, now)

    def latency(self, name: str, percentile: float, least: int) -> float | None:
        """Seconds within which so many in a hundred of the target's answers of late had begun; None when fewer than `least` are known."""
        fitness = self._fitness.get(name)
        if fitness is None or len(fitness.latencies) < least:
            return None
        known = sorted(fitness.latencies)
        return known[min(len(known) - 1, int(len(known) * percentile / 100))]

    def statuses(self, provider: str) -> list[TargetStatus]:
        """How the provider's targets fare that were called of late, sorted by model."""
        mine = [(name, fitness) for name, fitness in self._fitness.items() if name.startswith(f"{provider}/")]
        return [self._status(name.partition("/")[2], name, fitness) for name, fitness in sorted(mine, key=lambda pair: pair[0])]

    def _status(self, model: str, name: str, fitness: Fitness) -> TargetStatus:
        cooling = self.signals.cooling(name)
        return TargetStatus(
            model=model,
            circuit=fitness.breaker.circuit,
            in_flight=fitness.concurrency.in_flight,
            concurrency_limit=fitness.concurrency.limit,
            cooling_until=self.clock.now() + cooling if cooling else None,
            last_failure=fitness.last_failure,
        )

    def _new(self, name: str) -> Fitness:
        fitness = self._fitness[name] = Fitness(name, self._circuit, self._policies(name.partition("/")[0]))
        if len(self._fitness) > self._most:
            self._forget_one(fitness)
        return fitness

    def _forget_one(self, newest: Fitness) -> None:
        """Drops the oldest target that nobody is at; looks at a few only."""
        for name, fitness in islice(self._fitness.items(), 64):
            if fitness.idle and fitness is not newest:
                del self._fitness[name]
                return


def _nobody_else() -> None:
    """No other attempt is under way."""


def _overload(fault: BaseException) -> bool:
    return isinstance(fault, ProviderRateLimited) or (isinstance(fault, ProviderUnavailable) and fault.metadata.get("status") in OVERLOADED)


def _left_alone(fitness: Fitness, now: float) -> ProviderUnavailable:
    provider, _, model = fitness.name.partition("/")
    last = fitness.last_failure
    return ProviderUnavailable(
        f"{fitness.name} failed too often of late, last with {last}, and is left alone for now; retry later, or add a target",
        metadata={"provider": provider, "model": model, "circuit": "open", "last_failure": last},
        retry_after=max(fitness.breaker.until - now, 0.1),
    )
