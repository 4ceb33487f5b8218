"""The tools that a run has, listed once a turn."""

from __future__ import annotations

from orchestrator.domain.run import Run
from orchestrator.operations.ports import Tools, Toolset


class Toolbox:
    """What a run's model sees, and what it may therefore call until it is asked again."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._shown: Toolset | None = None

    async def show(self, run: Run) -> Toolset:
        """The tools as they are now, for a model that is about to be asked."""
        self._shown = await self._tools.visible(run.id, run.agent)
        return self._shown

    async def shown(self, run: Run) -> Toolset:
        """The tools that the model was shown; those of now when another driver asked it."""
        return self._shown or await self.show(run)
