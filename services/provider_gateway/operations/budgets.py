"""Holds calls to their caps: exactly, over all replicas, and without asking for each call.

What a call may cost is set aside from this replica's allowances (domain/allowance.py). Where they do not have it, the call waits for the
next round: one question to the bank for all calls that wait. Rounds follow each other while calls wait, and once a second otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import structlog

from chassis.faults import BudgetExhausted, CapabilityMissing, Fault, Internal
from chassis.rpc import current_call, running
from chassis.world import World
from provider_gateway.domain.allowance import Allowance, Claim
from provider_gateway.domain.budgets import Bucket, Cap, Unit, Whose
from provider_gateway.operations.bank import Bank, Standing
from provider_gateway.operations.billing import Bill, reserved
from provider_gateway.operations.spending import Expense, Reservation

LOOK_SECONDS = 1.0
TEND_LOOKS = 5
IDLE_LOOKS = 60  # an allowance that was not used for so long is given up
PAUSE_SECONDS = 0.2  # between questions to a bank that is away
LAST_SECONDS = 2.0  # to say how things stand at the end


@dataclass(frozen=True, slots=True)
class Terms:
    """What is decided beside the caps: the tokens expected where nothing bounds an output, and whether calls go on without a bank."""

    unbounded_output: int = 4096
    without_bank: bool = False


@dataclass(frozen=True, slots=True)
class _Share:
    """What a call needs of one bucket."""

    cap: Cap
    bucket: Bucket
    amount: int


_Held = Sequence[tuple[_Share, Allowance]]


@dataclass(slots=True, eq=False)
class _Waiting:
    shares: Sequence[_Share]
    future: asyncio.Future[_Held] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Budgets:
    """A Spending with caps. `run` must run beside its users; see `keeping`."""

    def __init__(self, caps: Sequence[Cap], bank: Bank, world: World, terms: Terms = Terms()) -> None:
        self.caps, self._bank, self._world, self._terms = caps, bank, world, terms
        self._allowances: dict[Bucket, Allowance] = {}
        self._leaving: list[Claim] = []
        self._line: deque[_Waiting] = deque()
        self._arrival, self._asking = asyncio.Event(), asyncio.Lock()
        self._reports: set[Bucket] = set()  # what is to be told of before the next look
        self._away = False

    @asynccontextmanager
    async def reserve(self, expense: Expense) -> AsyncIterator[Reservation]:
        """Sets aside what the body may consume. Raises BudgetExhausted, StorageUnavailable; CapabilityMissing for an unknown price."""
        held, bill = await self._held(self._shares(expense)), Bill(expense)
        error: BaseException | None = None
        try:
            yield bill
        except BaseException as raised:
            error = raised
            raise
        finally:
            for share, allowance in held:
                allowance.settle(share.amount, bill.weight(share.cap, error))
            self._report(allowance for _, allowance in held)

    async def run(self) -> None:
        """Keeps the allowances, until it is cancelled."""
        looks, next_look = 0, self._world.clock.monotonic()
        while True:
            await self._wait_until(next_look)
            is_look = self._world.clock.monotonic() >= next_look
            if is_look:
                looks, next_look = looks + 1, self._world.clock.monotonic() + LOOK_SECONDS
            await self._round(is_look)
            if is_look and looks % TEND_LOOKS == 0:
                await self._tend()

    async def standings(self, tenant: str) -> Sequence[Standing]:
        """How a tenant's buckets stand, with what this replica knows of them now. Raises StorageUnavailable."""
        await self.refresh()
        return await self._bank.standings(tenant)

    def now(self) -> float:
        """Seconds since the epoch by the clock that windows go by."""
        return self._bank.now()

    async def refresh(self) -> None:
        """Has the bank know how this replica stands. Raises StorageUnavailable."""
        await self._ask(all_news=True)

    async def close(self) -> None:
        """Gives everything up that is not held, if that can be done soon."""
        try:
            async with asyncio.timeout(LAST_SECONDS):
                await self._ask(all_news=True)
                self._give_up(allowance for allowance in self._allowances.values() if not allowance.held)
                await self._ask(all_news=False)
        except (TimeoutError, Fault) as error:
            structlog.get_logger().warning("budgets: what this replica last used could not be written", problem=str(error))

    def _shares(self, expense: Expense) -> list[_Share]:
        whose = Whose(current_call().tenant, expense.budget_key, f"{expense.provider}/{expense.model}")
        now = self._bank.now()
        caps = [cap for cap in self.caps if cap.holds_for(whose)]
        for cap in caps:
            if cap.unit is Unit.NANO_USD and expense.price is None and not cap.unpriced:
                raise _unpriced(cap, whose.model)
        return [_Share(cap, cap.bucket(whose, now), reserved(cap, expense, self._terms.unbounded_output)) for cap in caps]

    async def _held(self, shares: Sequence[_Share]) -> _Held:
        held = self._try(shares)
        if held is not None:
            return held
        if self._away and self._terms.without_bank:
            return _holding([(share, self._allowance(share)) for share in shares])
        waiting = _Waiting(shares)
        self._line.append(waiting)
        self._arrival.set()
        try:
            return await waiting.future
        except asyncio.CancelledError:
            if waiting.future.done() and not waiting.future.cancelled() and waiting.future.exception() is None:
                for share, allowance in waiting.future.result():  # it was served in the moment in which its caller went away
                    allowance.settle(share.amount, 0)
            raise

    def _try(self, shares: Sequence[_Share]) -> _Held | None:
        """Holds all that a call needs, or nothing."""
        held = [(share, self._allowance(share)) for share in shares]
        if any(allowance.free < share.amount for share, allowance in held):
            return None
        return _holding(held)

    def _allowance(self, share: _Share) -> Allowance:
        found = self._allowances.get(share.bucket)
        if found is None:
            found = self._allowances[share.bucket] = Allowance(self._world.ids.new(), share.bucket, share.cap.limit)
        return found

    def _report(self, allowances: Iterable[Allowance]) -> None:
        """Near a cap others may wait for what a call did not need."""
        if self._bank.shared and (near := [allowance.bucket for allowance in allowances if allowance.near]):
            self._reports.update(near)
            self._arrival.set()

    async def _wait_until(self, moment: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, moment - self._world.clock.monotonic())):
                await self._arrival.wait()
        self._arrival.clear()

    async def _round(self, is_look: bool) -> None:
        """One question for all that wait, and their answers."""
        line, self._line = [waiting for waiting in self._line if not waiting.future.done()], deque()
        if is_look:
            self._look()
        try:
            asked = await self._ask(line, all_news=is_look)
        except Exception as error:  # noqa: BLE001 — whoever waits must hear of it, and the next round must come
            self._do_without(line, _fault_of(error))
            await self._world.clock.sleep(PAUSE_SECONDS)
            return
        except BaseException:
            self._line.extendleft(reversed(line))
            raise
        if asked:
            self._tell(away=False)
        self._serve(line)

    def _look(self) -> None:
        now = self._bank.now()
        for allowance in self._allowances.values():
            allowance.look()
        self._give_up(
            allowance
            for allowance in self._allowances.values()
            if not allowance.held and not allowance.has_news(whole=True) and (allowance.idle >= IDLE_LOOKS or allowance.bucket.is_over(now))
        )

    def _give_up(self, allowances: Iterable[Allowance]) -> None:
        for allowance in list(allowances):
            self._leaving.append(allowance.last_claim())
            del self._allowances[allowance.bucket]

    def _claims(self, line: Iterable[_Waiting] = (), *, all_news: bool) -> list[tuple[Allowance, Claim]]:
        whole, wanted = not self._bank.shared, Counter[Bucket]()
        for waiting in line:
            for share in waiting.shares:
                wanted[share.bucket] += share.amount
                self._allowance(share)
        reports, self._reports = self._reports, set()
        looked_at = list(self._allowances) if all_news else [bucket for bucket in {*wanted, *reports} if bucket in self._allowances]
        found = [self._allowances[bucket] for bucket in looked_at]
        return [
            (allowance, allowance.claim(wanted[allowance.bucket], whole=whole))
            for allowance in found
            if allowance.bucket in wanted or allowance.has_news(whole=whole)
        ]

    async def _ask(self, line: Iterable[_Waiting] = (), *, all_news: bool) -> bool:
        """One question at a time, so that answers come in the order of what they answer; False when there was nothing to ask."""
        async with self._asking:
            claims, leaving = self._claims(line, all_news=all_news), list(self._leaving)
            if claims or leaving:
                await self._settle(claims, leaving)
            return bool(claims or leaving)

    async def _settle(self, claims: Sequence[tuple[Allowance, Claim]], leaving: Sequence[Claim]) -> None:
        grants = await self._bank.settle([*leaving, *(claim for _, claim in claims)])
        self._leaving = [claim for claim in self._leaving if claim not in leaving]
        for (allowance, claim), grant in zip(claims, grants[len(leaving) :], strict=True):
            if not allowance.granting(claim, grant) and self._allowances.get(allowance.bucket) is allowance:
                del self._allowances[allowance.bucket]

    def _serve(self, line: Iterable[_Waiting]) -> None:
        for waiting in line:
            if waiting.future.done():
                continue
            held = self._try(waiting.shares)
            if held is not None:
                waiting.future.set_result(held)
            elif all(self._allowance(share).known for share in waiting.shares):
                waiting.future.set_exception(self._exhausted(waiting.shares))
                self._report(self._allowance(share) for share in waiting.shares)  # what was granted and is too little for it
            else:  # an allowance was counted as spent while this replica could not be heard: once more, with a new one
                self._line.append(waiting)
                self._arrival.set()

    def _do_without(self, line: Iterable[_Waiting], fault: Fault) -> None:
        """The bank is away: calls are refused, or go on and are counted when it is back."""
        self._tell(away=True, problem=fault.message)
        for waiting in line:
            if waiting.future.done():
                continue
            if self._terms.without_bank:
                waiting.future.set_result(_holding([(share, self._allowance(share)) for share in waiting.shares]))
            else:
                waiting.future.set_exception(fault)

    def _tell(self, *, away: bool, problem: str = "") -> None:
        if away and not self._away:
            goes_on = "calls go on and are counted later" if self._terms.without_bank else "calls under a budget are refused"
            structlog.get_logger().warning(f"budgets cannot be kept; {goes_on}", problem=problem)
        elif self._away and not away:
            structlog.get_logger().info("budgets are kept again")
        self._away = away

    async def _tend(self) -> None:
        try:
            await self._bank.tend()
        except Fault as fault:
            self._tell(away=True, problem=fault.message)
        else:
            self._tell(away=False)

    def _exhausted(self, shares: Iterable[_Share]) -> BudgetExhausted:
        short = next(share for share in shares if self._allowance(share).free < share.amount)
        return exhausted(short.cap, self._allowance(short), short.amount, self._bank.now())


@asynccontextmanager
async def keeping(budgets: Budgets) -> AsyncIterator[Budgets]:
    """Keeps the allowances while the body runs, and gives them up at its end."""
    try:
        async with running(budgets=budgets.run()):
            yield budgets
    finally:
        await budgets.close()


def _fault_of(error: Exception) -> Fault:
    if isinstance(error, Fault):
        return error
    structlog.get_logger().error("budgets could not be kept", exc_info=error)
    return Internal("the gateway could not keep its budgets; its log has more")


def _holding(held: Sequence[tuple[_Share, Allowance]]) -> _Held:
    for share, allowance in held:
        allowance.hold(share.amount)
    return held


def exhausted(cap: Cap, allowance: Allowance, amount: int, now: float) -> BudgetExhausted:
    """The fault that names the cap, whose it is, how much of it is used, and when there is more."""
    bucket, used = allowance.bucket, allowance.totals.granted - allowance.free
    scope = ", ".join(f"{cut} {value}" for cut, value in bucket.scope.items()) or "everybody"
    left, limit, needed = (told(cap.unit, value) for value in (cap.limit - used, cap.limit, amount))
    ends_at = bucket.ends_at
    when = "it does not refill: raise it" if ends_at is None else f"it refills in {max(0, ends_at - now):.0f} s"
    text = f"the budget {cap.name} of {scope} has {left} of {limit} left and the call may need {needed}; {when}"
    return BudgetExhausted(
        f"{text}, or ask for less output",
        metadata={
            "budget": cap.name,
            "scope": scope,
            "unit": cap.unit.name.lower(),
            "limit": str(cap.limit),
            "used": str(used),
            "needed": str(amount),
        },
        retry_after=None if ends_at is None or amount > cap.limit else max(0.0, ends_at - now),
    )


def told(unit: Unit, value: int) -> str:
    """An amount as people read it."""
    return f"${value / 1e9:g}" if unit is Unit.NANO_USD else f"{value} {unit.name.lower()}"


def _unpriced(cap: Cap, model: str) -> CapabilityMissing:
    text = f"{model} has no known price, so the budget {cap.name} cannot be kept; set models.….price of its provider"
    return CapabilityMissing(
        f"{text}, or unknown_price: allow of the budget", metadata={"model": model, "missing": "price", "budget": cap.name}
    )
