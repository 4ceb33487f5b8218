"""The way of one call over its targets: whom to ask next, after which pause, and when to give up.

Every target is asked once before any is asked again, for waiting helps nobody while another one stands ready. What is asked again was
hit by something that time may mend; such repetitions are bounded over all targets together, and paid from the budget of the one they go to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from chassis.faults import Fault, ProviderContextOverflow, ProviderRateLimited
from chassis.world import Clock
from provider_gateway.domain.failover import Remedy, remedy
from provider_gateway.operations.health import Health
from provider_gateway.operations.retries import RetryPolicy
from provider_gateway.operations.routes import Askable


@dataclass(frozen=True, slots=True)
class Manners:
    """How calls are made: when to retry, and the chance behind the jitter, from 0 to 1."""

    retries: RetryPolicy
    jitter: Callable[[], float]


A = TypeVar("A", bound=Askable)


@dataclass(slots=True)
class _Option(Generic[A]):
    """A target that may be asked from `ready` on, a monotonic moment."""

    target: A
    ready: float
    again: bool = False


class Course(Generic[A]):
    """The way of one call. `deadline` is a monotonic moment."""

    def __init__(self, targets: Sequence[A], manners: Manners, health: Health, clock: Clock, deadline: float | None) -> None:
        self._manners, self._health, self._clock, self._deadline = manners, health, clock, deadline
        self._repetitions = 0
        self._fault: Fault | None = None
        self._tried: dict[str, str] = {}
        self._cause: Fault | None = None
        self._fits: Callable[[A], bool] | None = None
        self._options: list[_Option[A]] = []
        for target in targets:
            self._offer(target)

    async def next(self) -> A:
        """The target to ask now, waiting until it may be asked; raises the fault that tells best why there is none."""
        while self._options:
            option = self._options.pop(0) if len(self._options) == 1 else self._earliest()
            now = self._clock.monotonic()
            if self._worthwhile(option, now):
                if option.ready > now:
                    await self._clock.sleep(option.ready - now)
                return option.target
        raise self._last_word()

    def spare(self, takes: Callable[[A], bool]) -> A | None:
        """The next target that was not asked yet, may be asked at once and takes the call; it is not offered again. None without one."""
        for option in self._options:
            if not option.again and option.ready == 0.0 and takes(option.target):
                self._options.remove(option)
                return option.target
        return None

    def passed_over(self, target: A, fault: Fault) -> None:
        """The target took no call."""
        self._note(target, fault)

    def failed(self, target: A, fault: Fault) -> None:
        """The target was asked and failed; raises the fault when nobody is to be asked after it."""
        self._note(target, fault)
        cure = remedy(fault)
        if cure is Remedy.NONE and self._cause is None:
            raise fault
        if cure is Remedy.TIME and (self._fits is None or self._fits(target)):
            self._again(target, fault)
        if isinstance(fault, ProviderContextOverflow):
            self._options = [option for option in self._options if not option.target.window or option.target.window > target.window]

    def settle(self, fault: Fault, fits: Callable[[A], bool]) -> None:
        """Output was delivered before this fault: only targets that fit can go on, and if none does, the fault is how the call ends."""
        self._cause, self._fits = fault, fits
        self._options = [option for option in self._options if fits(option.target)]

    def _offer(self, target: A) -> None:
        """Makes a target an option, for later when it cools off; not at all when that is too long to wait for."""
        cooling = self._health.signals.cooling(target.name)
        if cooling:
            self._fault = ProviderRateLimited(
                f"{target.name} asked to be left alone for {cooling:.1f} s; retry then, or add a target",
                metadata={"provider": target.access.provider.name, "model": target.model},
                retry_after=cooling,
            )
        if cooling <= self._manners.retries.longest_wish:
            self._options.append(_Option(target, self._clock.monotonic() + cooling if cooling else 0.0))

    def _again(self, target: A, fault: Fault) -> None:
        retries = self._manners.retries
        if fault.retry_after is not None and fault.retry_after > retries.longest_wish:
            return
        pause = retries.pause(fault, self._repetitions, self._manners.jitter())
        self._options.append(_Option(target, self._clock.monotonic() + pause, again=True))

    def _worthwhile(self, option: _Option[A], now: float) -> bool:
        if self._deadline is not None and option.ready > now and option.ready >= self._deadline:
            return False
        budget = option.target.access.budget
        if not option.again:
            budget.earn()
            return True
        if self._repetitions + 1 >= self._manners.retries.attempts or not budget.spend():
            return False
        self._repetitions += 1
        return True

    def _earliest(self) -> _Option[A]:
        option = min(self._options, key=_moment)
        self._options.remove(option)
        return option

    def _note(self, target: A, fault: Fault) -> None:
        """Keeps the fault that a caller can do most with: one that waiting mends, else the last."""
        self._tried[target.name] = fault.reason
        if self._fault is None or fault.retryable or not self._fault.retryable:
            self._fault = fault

    def _last_word(self) -> Fault:
        if self._cause is not None:
            return self._cause
        assert self._fault is not None, "a course without targets"
        if len(self._tried) > 1:
            self._fault.metadata["tried"] = "; ".join(f"{name}: {reason}" for name, reason in self._tried.items())
        return self._fault


def _moment(option: _Option[A]) -> float:
    return option.ready
