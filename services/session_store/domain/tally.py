"""What one run did, counted from its log as it is written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tally:
    """What a stretch of one run's log adds to the run's counts. Time is in microseconds, so that sums are exact."""

    messages: int = 0
    tool_calls: int = 0
    tool_executions: int = 0
    tool_failures: int = 0
    tool_unknown: int = 0
    tool_micros: int = 0

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            self.messages + other.messages,
            self.tool_calls + other.tool_calls,
            self.tool_executions + other.tool_executions,
            self.tool_failures + other.tool_failures,
            self.tool_unknown + other.tool_unknown,
            self.tool_micros + other.tool_micros,
        )


NOTHING = Tally()
