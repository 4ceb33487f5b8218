"""How long a conversation is to its model: as its provider counts, else as everything here estimates."""

from __future__ import annotations

from dataclasses import dataclass

from provider_gateway.domain.admission import admit
from provider_gateway.domain.chat import ChatRequest
from provider_gateway.domain.estimate import estimate_input
from provider_gateway.operations.attempts import Attempt, Attempts, Call
from provider_gateway.operations.health import Place
from provider_gateway.operations.limits import whole_call
from provider_gateway.operations.recording import SILENCE
from provider_gateway.operations.routes import Routes, Target
from provider_gateway.operations.spending import Expense, Reservation


@dataclass(frozen=True, slots=True)
class TokenCount:
    """Tokens that the model would read; `exact` where its provider counted them."""

    input_tokens: int
    exact: bool
    provider: str
    model: str


class TokenCounts:
    """Counts tokens. Costs nothing, so that nothing is recorded, and the attempts are to be ones that no budget bounds."""

    def __init__(self, routes: Routes, attempts: Attempts) -> None:
        self._routes, self._attempts = routes, attempts

    async def count(self, request: ChatRequest, deadline: float | None) -> TokenCount:
        """The count for the model that would answer, of an alias the one to be asked first. `deadline` is a monotonic moment.

        Fails as answering would.
        """
        admit(request)
        target = self._routes.route(request).first
        access = target.access
        async with whole_call(access.provider.name, access.limits) as bound:
            course = self._attempts.course((target,), deadline)
            counted = await self._attempts.made(Call(Attempt(_free, _counted), course, SILENCE, bound))
        tokens = estimate_input(request) if counted is None else counted
        return TokenCount(tokens, counted is not None, access.provider.name, target.model)


def _free(target: Target) -> Expense:
    return Expense(target.access.provider.name, target.model, target.call.request.budget_key, 0, 0, None)


async def _counted(target: Target, place: Place, reservation: Reservation) -> int | None:
    return await target.access.provider.count(target.call)
