"""Composes what a model sees: features.md C1 and C2."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chassis.faults import ContextSourceFailed, Fault, LeaseLost, RunEnded
from orchestrator.domain.events import SourceShare
from orchestrator.domain.history import awaits_results, estimate, select
from orchestrator.domain.values import Agent, Entry, Role, SessionId
from orchestrator.operations.ports import Histories, Tail

MOST_RESULTS = 256
"""Results of one turn that are looked through for the message that asked for them."""


@contextlib.contextmanager
def source_named(source: str) -> Iterator[None]:
    """Makes a fault of the body one that names the context source it came from: features.md C1."""
    try:
        yield
    except (LeaseLost, RunEnded):
        raise
    except Fault as fault:
        text = f"the context source {source} failed: {fault.message}"
        raise ContextSourceFailed(text, metadata={"source": source, "reason": fault.reason}, service=fault.service) from fault


@dataclass(frozen=True, slots=True)
class Context:
    """What a model sees: system parts, then messages. `dropped` counts messages of the window that were left out."""

    system: tuple[str, ...]
    entries: tuple[Entry, ...]
    shares: tuple[SourceShare, ...]
    dropped: int


async def newest(histories: Histories, session_id: SessionId, agent: Agent) -> Tail:
    """The newest messages of a session, as many as the agent's limit, and more where they are all results of calls that lie before."""
    limit = agent.history.max_messages
    tail = await histories.tail(session_id, limit)
    if tail.before and all(entry.role is Role.TOOL for entry in tail.entries):
        return await histories.tail(session_id, limit + MOST_RESULTS + 1)
    return tail


class Window:
    """The newest messages of a session, kept up to date while a run adds to them. Bounded by twice the agent's history limit."""

    def __init__(self, agent: Agent, tail: Tail) -> None:
        self._agent = agent
        self._entries = list(tail.entries)
        self._dropped = tail.before

    def joined(self, entries: tuple[Entry, ...]) -> None:
        """Adds messages that joined the session. Nothing is let go while results are awaited: a call without them would go too."""
        self._entries.extend(entries)
        if len(self._entries) > 2 * self._agent.history.max_messages and not awaits_results(self._entries):
            kept = list(select(self._entries, self._agent.history))
            self._dropped += len(self._entries) - len(kept)
            self._entries = kept

    def compose(self, joining: Iterable[Entry] = ()) -> Context:
        """What the model sees now, with the messages that join the session in the next append."""
        agent, entries = self._agent, [*self._entries, *joining]
        kept = select(entries, agent.history)
        system = tuple(text for text in (agent.instructions, *agent.context) if text)
        shares = (*_static_shares(agent), SourceShare("history", len(kept), sum(entry.tokens for entry in kept)))
        return Context(system, kept, shares, self._dropped + len(entries) - len(kept))


def _static_shares(agent: Agent) -> tuple[SourceShare, ...]:
    instructions = (agent.instructions,) if agent.instructions else ()
    sources = (("instructions", instructions), ("static", agent.context))
    return tuple(SourceShare(name, len(texts), sum(map(_tokens, texts))) for name, texts in sources if texts)


def _tokens(text: str) -> int:
    return estimate(len(text.encode()))
