"""How long a conversation is to its model: as its provider counts, else as everything here estimates."""

from __future__ import annotations

from dataclasses import dataclass

from chassis.faults import UpstreamFault
from chassis.world import Clock
from provider_gateway.domain.admission import admit
from provider_gateway.domain.chat import ChatRequest
from provider_gateway.domain.estimate import estimate_input
from provider_gateway.operations.chats import Manners
from provider_gateway.operations.limits import whole_call
from provider_gateway.operations.retries import Attempts
from provider_gateway.operations.routes import Routes


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens that the model would read; `exact` where its provider counted them."""

    input_tokens: int
    exact: bool
    provider: str
    model: str


class TokenCounts:
    """Counts tokens. Costs nothing, so that no budget is asked and nothing is recorded."""

    def __init__(self, routes: Routes, manners: Manners, clock: Clock) -> None:
        self._routes, self._manners, self._clock = routes, manners, clock

    async def count(self, request: ChatRequest, deadline: float | None) -> TokenCount:
        """The count for the model that would answer. Fails as answering would; `deadline` is a monotonic moment."""
        admit(request)
        target = self._routes.target(request)
        access = target.access
        attempts = Attempts(self._manners.retries, access.budget, self._clock, self._manners.jitter, deadline)
        async with whole_call(access.provider.name, access.limits):
            while True:
                try:
                    counted = await access.provider.count(target.call)
                    break
                except UpstreamFault as fault:
                    await attempts.pause(fault)
        tokens = estimate_input(request) if counted is None else counted
        return TokenCount(tokens, counted is not None, access.provider.name, target.call.model)
