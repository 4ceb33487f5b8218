"""Which agents there are."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence

from chassis.faults import AgentNotFound, SettingsInvalid
from orchestrator.domain.values import Agent


class Agents:
    """The configured agents and the one used when a run names none."""

    def __init__(self, agents: Mapping[str, Agent], default: str = "") -> None:
        if not agents:
            raise SettingsInvalid("orchestrator.agents is empty; configure at least one agent")
        self._agents = dict(sorted(agents.items()))
        self.default = default or next(iter(agents))
        if self.default not in agents:
            raise SettingsInvalid(f"orchestrator.default_agent: no agent {default!r}{self._nearest(default)}")

    def get(self, name: str) -> Agent:
        """The agent of that name, the default for an empty one. Raises AgentNotFound."""
        agent = self._agents.get(name or self.default)
        if agent is None:
            raise AgentNotFound(f"no agent {name!r}{self._nearest(name)}", metadata={"agent": name})
        return agent

    def all(self) -> Sequence[Agent]:
        """Every agent, sorted by name."""
        return tuple(self._agents.values())

    def _nearest(self, name: str) -> str:
        near = difflib.get_close_matches(name, self._agents, 1)
        return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(self._agents)}"
