"""Whether and when to try again: retryable kinds only, backoff with jitter, the provider's own wish first, one deadline, one budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from chassis.faults import Fault
from chassis.world import Clock

NEVER = frozenset({"insufficient_quota", "billing_hard_limit_reached"})  # rate limits by name that waiting does not lift


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long: attempts in all, the first pause and the longest in seconds, the longest wish that is heeded.

    Each call earns `budget_ratio` of a retry and each retry spends one, with `budget_burst` to spend at once, so that a provider that
    is down is not hit with a multiple of the load.
    """

    attempts: int = 3
    first_pause: float = 0.5
    longest_pause: float = 8.0
    longest_wish: float = 60.0
    budget_ratio: float = 0.2
    budget_burst: float = 10.0


@dataclass(slots=True)
class RetryBudget:
    """A bucket of retries for one provider."""

    policy: RetryPolicy
    tokens: float = field(init=False)

    def __post_init__(self) -> None:
        self.tokens = self.policy.budget_burst

    def earn(self) -> None:
        """A call began."""
        self.tokens = min(self.policy.budget_burst, self.tokens + self.policy.budget_ratio)

    def spend(self) -> bool:
        """Takes one retry; False when there is none."""
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True


@dataclass(slots=True)
class Attempts:
    """The attempts of one call. `jitter` gives numbers from 0 to 1; `deadline` is a monotonic moment."""

    policy: RetryPolicy
    budget: RetryBudget
    clock: Clock
    jitter: Callable[[], float]
    deadline: float | None = None
    made: int = 1

    async def pause(self, fault: Fault) -> None:
        """Waits until the next attempt; raises the fault when there shall be none."""
        seconds = self._seconds(fault)
        if not self._worthwhile(fault, seconds) or not self.budget.spend():
            raise fault
        self.made += 1
        await self.clock.sleep(seconds)

    def _worthwhile(self, fault: Fault, seconds: float) -> bool:
        if not fault.retryable or self.made >= self.policy.attempts or fault.metadata.get("code") in NEVER:
            return False
        if fault.retry_after is not None and fault.retry_after > self.policy.longest_wish:
            return False
        return self.deadline is None or self.clock.monotonic() + seconds < self.deadline

    def _seconds(self, fault: Fault) -> float:
        cap: float = min(self.policy.longest_pause, self.policy.first_pause * 2 ** (self.made - 1))
        backoff = cap * (0.5 + 0.5 * self.jitter())
        if fault.retry_after is None:
            return backoff
        return fault.retry_after + 0.1 * backoff  # a little later than asked, so that not everybody comes at once
