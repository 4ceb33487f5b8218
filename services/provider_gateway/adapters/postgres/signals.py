"""Which targets are to be left alone, known to all replicas: told in the background, heard of at once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping

import structlog

from chassis.faults import Fault
from chassis.postgres import Database, Statements
from chassis.world import Clock
from provider_gateway.operations.signals import OwnSignals

CHANNEL = "provider_gateway"
AGAIN_SECONDS = 1.0
MOST = 4096
LEAST_SECONDS = 0.05  # a shorter wish is over before others hear of it
LONGEST_TARGET = 512  # what a notification has room for

# A longer wish stands. What is over is forgotten by whoever writes next.
_COOL = """
    INSERT INTO cooling_targets AS c (target, until) VALUES ($1, clock_timestamp() + make_interval(secs => $2))
    ON CONFLICT (target) DO UPDATE SET until = greatest(c.until, excluded.until)
"""
_FORGET = "DELETE FROM cooling_targets WHERE until < now()"
_TELL = "SELECT pg_notify($1, $2)"
_LOAD = (
    "SELECT target, extract(epoch FROM until - clock_timestamp())::float8 AS seconds FROM cooling_targets WHERE until > clock_timestamp()"
)


class PostgresSignals:
    """See the port. While the database is away each replica goes by what it knows itself."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database, self._clock = database, clock
        self._known = OwnSignals(clock)
        self._untold: dict[str, float] = {}
        self._arrival = asyncio.Event()
        self._load = True

    def cooling(self, target: str) -> float:
        """Seconds until the target may be called again."""
        return self._known.cooling(target)

    def cool(self, target: str, seconds: float) -> None:
        """The target asked to be left alone so long: known here now, and soon to all."""
        self._known.cool(target, seconds)
        worth_telling = seconds >= LEAST_SECONDS and len(target) <= LONGEST_TARGET and "\0" not in target
        if worth_telling and len(self._untold) < MOST:
            self._untold[target] = max(self._untold.get(target, 0.0), self._clock.monotonic() + seconds)
            self._arrival.set()

    async def run(self) -> None:
        """Tells and hears until it is cancelled."""
        self._database.listen(CHANNEL, self._hear, self._missed)
        while True:
            await self._arrival.wait()
            self._arrival.clear()
            try:
                await self._exchange()
            except Fault as fault:
                structlog.get_logger().debug("targets that cool off are not shared with other replicas", problem=fault.message)
                await self._clock.sleep(AGAIN_SECONDS)
                self._arrival.set()

    async def _exchange(self) -> None:
        told = dict(self._untold)
        left = {target: until - self._clock.monotonic() for target, until in told.items()}
        if news := {target: seconds for target, seconds in left.items() if seconds > 0}:
            await self._write(news)
        self._untold = {target: until for target, until in self._untold.items() if until > told.get(target, 0.0)}
        if self._load:
            self._load = False
            await self._load_all()

    async def _write(self, news: Mapping[str, float]) -> None:
        def work(statements: Statements) -> None:
            _cool(statements, news)

        await self._database.write(work)

    async def _load_all(self) -> None:
        try:
            rows = await self._database.read(lambda statements: statements.fetch(_LOAD))
        except Fault:
            self._load = True
            raise
        for row in rows:
            self._known.cool(row["target"], row["seconds"])

    def _hear(self, payload: str) -> None:
        target, seconds = json.loads(payload)
        self._known.cool(target, float(seconds))

    def _missed(self) -> None:
        self._load = True
        self._arrival.set()


def _cool(statements: Statements, news: Mapping[str, float]) -> None:
    statements.execute(_FORGET)
    for target in sorted(news):
        statements.execute(_COOL, target, news[target])
    for target, seconds in news.items():
        statements.fetch(_TELL, CHANNEL, json.dumps([target, seconds]))
