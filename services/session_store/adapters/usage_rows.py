"""Usage as every table of both databases has it: numbers in the order of the columns."""

from __future__ import annotations

from session_store.domain.usage import Usage


def usage(*sums: int) -> Usage:
    """A row's sums as a value."""
    read, written, cached, cache_writes, reasoning, cost, known, calls = sums
    return Usage(read, written, cached, cache_writes, reasoning, cost, bool(known), calls)


def usage_values(usage: Usage) -> tuple[int, ...]:
    """The numbers of a row."""
    tokens = (usage.input_tokens, usage.output_tokens, usage.cache_read_tokens, usage.cache_write_tokens, usage.reasoning_tokens)
    return (*tokens, usage.cost_nano_usd, int(usage.cost_known), usage.calls)
