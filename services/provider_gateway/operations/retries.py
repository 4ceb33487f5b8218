"""How often and how long a call may be repeated, and the budget that keeps repetitions from multiplying the load."""

from __future__ import annotations

from dataclasses import dataclass, field

from chassis.faults import Fault


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and how long: attempts at a target in all, the first pause and the longest in seconds, the longest wish that is heeded.

    Each call earns `budget_ratio` of a retry and each retry spends one, with `budget_burst` to spend at once, so that a provider that
    is down is not hit with a multiple of the load.
    """

    attempts: int = 3
    first_pause: float = 0.5
    longest_pause: float = 8.0
    longest_wish: float = 60.0
    budget_ratio: float = 0.2
    budget_burst: float = 10.0

    def pause(self, fault: Fault, repetitions: int, jitter: float) -> float:
        """Seconds to wait after a fault when so many repetitions were made before; `jitter` is from 0 to 1."""
        longest: float = min(self.longest_pause, self.first_pause * 2**repetitions)
        backoff = longest * (0.5 + 0.5 * jitter)
        if fault.retry_after is None:
            return backoff
        return fault.retry_after + 0.1 * backoff  # a little later than asked, so that not everybody comes at once


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
