"""Which messages of a session a model sees: features.md C2, and how tokens are estimated: C10."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.domain.values import Entry, HistoryLimits, Role

BYTES_PER_TOKEN = 4
MESSAGE_TOKENS = 4


def estimate(utf8_bytes: int) -> int:
    """Tokens of a message whose content has so many bytes: a quarter of the bytes, and 4 for its frame."""
    return MESSAGE_TOKENS + -(-utf8_bytes // BYTES_PER_TOKEN)


def select(entries: Sequence[Entry], limits: HistoryLimits) -> tuple[Entry, ...]:
    """The newest entries within the limits, oldest first.

    A call is never parted from its results: a group that does not fit is left out whole. System entries are always kept.
    The newest group is kept even when it alone is too large, since without it there is nothing to answer.
    """
    kept: list[Entry] = []
    messages, tokens, full = 0, 0, False
    for group in reversed(_groups(entries)):
        size = sum(entry.tokens for entry in group)
        if group[0].role is Role.SYSTEM:
            kept[:0] = group
            continue
        full = full or bool(kept and (messages + len(group) > limits.max_messages or tokens + size > limits.max_tokens))
        if not full:
            kept[:0] = group
            messages, tokens = messages + len(group), tokens + size
    return tuple(kept)


def awaits_results(entries: Sequence[Entry]) -> bool:
    """Whether the newest entries are calls of which some have no result yet."""
    answered: set[str] = set()
    for entry in reversed(entries):
        if entry.role is not Role.TOOL:
            return any(call not in answered for call in entry.calls)
        answered.add(entry.answers)
    return False


def _groups(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Entries in groups that belong together: a message, or an assistant's calls with their results. Orphaned results are left out."""
    groups: list[list[Entry]] = []
    for entry in entries:
        if entry.role is not Role.TOOL:
            groups.append([entry])
        elif groups and entry.answers in groups[-1][0].calls:
            groups[-1].append(entry)
    return [group for group in groups if _complete(group)]


def _complete(group: list[Entry]) -> bool:
    answered = {entry.answers for entry in group[1:]}
    return all(call in answered for call in group[0].calls)
