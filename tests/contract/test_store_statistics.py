"""Statistics are true sums on every backend: of what the logs say, once each, whatever was repeated, resumed, deleted or imported."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from behest.event.v1 import event_pb2
from behest.session.v1 import session_pb2
from behest.session.v1 import session_service_pb2 as pb
from chassis import faults
from kit.store import BACKENDS, Store, as_tenant, open_driver, open_store, queueing, read_log, ticks
from kit.store_history import FAILED, SUCCEEDED, TOOL_TURN, UNKNOWN, Turn, Writing, statistics, write_run

DAY = 86_400
EXAMPLES = {"memory": 60, "sqlite": 12, "postgres": 4}


@pytest.fixture(params=sorted(BACKENDS))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(request.param, tmp_path) as opened, open_driver(opened):
        yield opened


@pytest.mark.feature("S8")
async def test_a_run_counts_what_it_did(store: Store) -> None:
    writing = await write_run(store, "r1", "s", TOOL_TURN, Turn(model="n"), end="")
    store.clock.advance(2.5)
    await writing.end()
    sums = await statistics(store, run_id="r1")
    assert (sums.runs, sums.runs_completed, sums.runs_running, sums.turns) == (1, 1, 0, 2)
    assert (sums.tool_calls, sums.tool_executions, sums.tool_failures, sums.tool_unknown) == (3, 3, 1, 1)
    assert (sums.tool_ms, sums.run_ms, sums.queued_ms) == (15.75, 2500.0, 0.0)
    assert (sums.messages, sums.events) == (6, writing.sequence)
    assert [(row.model, row.usage.input_tokens) for row in sums.usage] == [("m", 10), ("n", 10)]
    assert (sums.usage_total.calls, sums.usage_total.cost_nano_usd) == (2, 2000)
    assert sums.last_ended_at.seconds - sums.first_opened_at.seconds in (2, 3)


@pytest.mark.feature("S8")
async def test_a_session_a_tenant_and_all_its_days_are_sums_of_runs(store: Store) -> None:
    await write_run(store, "r1", "s", TOOL_TURN)
    await write_run(store, "r2", "s", Turn(), end="run_failed")
    store.clock.advance(DAY)
    async with open_driver(store, "d2"):
        await write_run(store, "r3", "t", TOOL_TURN, end="run_cancelled", driver_id="d2")
    parts = [await statistics(store, run_id=run) for run in ("r1", "r2", "r3")]
    assert added(parts[:2]) == plain(await statistics(store, session_id="s"))
    assert added(parts) == plain(await statistics(store))
    days = (await store.sessions.GetStatistics(pb.GetStatisticsRequest(by_day=True))).days
    assert [day.day for day in days] == ["2023-11-14", "2023-11-15"]
    assert [plain(day.statistics) for day in days] == [added(parts[:2]), added(parts[2:])]
    with as_tenant("other"):
        assert (await statistics(store)).runs == 0


@pytest.mark.feature("S8")
async def test_only_days_in_the_asked_range_count_and_days_are_whole(store: Store) -> None:
    await write_run(store, "r1", "s", Turn())
    midnight = 1_700_000_000 // DAY * DAY
    for since, until, runs in ((0, 0, 1), (-1, 0, 1), (0, 1, 1), (1, 2, 0), (-1, 0, 1)):
        edges = {"since": Timestamp(seconds=midnight + since * DAY), "until": Timestamp(seconds=midnight + max(until, since + 1) * DAY)}
        assert (await statistics(store, **edges)).runs == (runs if since == 0 else 0)
    for edges in ({"since": Timestamp(seconds=midnight + 1)}, {"since": Timestamp(seconds=midnight), "until": Timestamp(seconds=midnight)}):
        with pytest.raises(faults.RequestInvalid, match=r"midnight|later day"):
            await statistics(store, **edges)


async def test_statistics_of_what_does_not_exist_are_refused(store: Store) -> None:
    await write_run(store, "r1", "s")
    with pytest.raises(faults.SessionNotFound):
        await statistics(store, session_id="t")
    with pytest.raises(faults.RunNotFound):
        await statistics(store, run_id="r2")
    with as_tenant("other"), pytest.raises(faults.RunNotFound):
        await statistics(store, run_id="r1")


@pytest.mark.feature("S8")
async def test_an_append_that_is_repeated_counts_once(store: Store) -> None:
    writing = await write_run(store, "r1", "s", TOOL_TURN, end="")
    before = plain(await statistics(store))
    for request in writing.requests:
        await store.journal.Append(request)
    assert plain(await statistics(store)) == before


@pytest.mark.feature("S8")
async def test_a_waiting_runs_message_counts_when_it_joins_the_session_and_not_when_it_never_does(store: Store) -> None:
    first = await write_run(store, "r1", "s", end="")
    await store.journal.OpenRun(queueing("r2", "s"))
    assert (await statistics(store, run_id="r2")).messages == 0
    await first.end()
    assert (await statistics(store, run_id="r2")).messages == 1


@pytest.mark.feature("S8")
@pytest.mark.feature("S7")
async def test_a_deleted_session_goes_on_counting_in_its_tenants_sums_and_nowhere_else(store: Store) -> None:
    await write_run(store, "r1", "s", TOOL_TURN, end="run_failed")
    await write_run(store, "r2", "t", TOOL_TURN)
    before, days = plain(await statistics(store)), await by_day(store)
    for session in ("s", "t"):
        await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id=session))
    assert plain(await statistics(store)) == before
    assert await by_day(store) == days
    with pytest.raises(faults.SessionNotFound):
        await statistics(store, session_id="s")
    await write_run(store, "r1", "s", TOOL_TURN)
    assert (await statistics(store)).runs == 3 and (await statistics(store, session_id="s")).runs == 1


runs = st.lists(
    st.tuples(
        st.integers(0, 2),  # session
        st.lists(
            st.builds(
                Turn,
                st.integers(0, 50),
                st.integers(0, 9999),
                st.sampled_from("mn"),
                st.lists(st.tuples(st.sampled_from((SUCCEEDED, FAILED, UNKNOWN)), st.floats(0, 1e6, allow_nan=False)), max_size=3).map(
                    tuple
                ),
            ),
            max_size=2,
        ),
        st.sampled_from(("run_completed", "run_failed", "run_cancelled", "")),
        st.integers(0, 2 * DAY),  # seconds until the next
        st.booleans(),  # every append is sent twice
    ),
    max_size=6,
)


@pytest.mark.feature("S8")
@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_the_sums_are_what_folding_all_logs_gives(backend: str) -> None:
    @settings(max_examples=EXAMPLES[backend], deadline=None, suppress_health_check=list(HealthCheck))
    @given(runs, st.sets(st.integers(0, 2)))
    def check(plan: list[tuple[int, list[Turn], str, int, bool]], deleted: set[int]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            asyncio.run(_check(backend, Path(folder), plan, deleted))

    check()


async def _check(backend: str, folder: Path, plan: list[tuple[int, list[Turn], str, int, bool]], deleted: set[int]) -> None:
    async with open_store(backend, folder) as store:
        folded, open_sessions = session_pb2.Statistics(), set[int]()
        for number, (session, turns, end, pause, twice) in enumerate(plan):
            end = end or ("" if number == len(plan) - 1 else "run_completed")  # an orphan would go before those that come after
            async with open_driver(store, f"d{number}"):
                writing = await write_run(store, f"r{number}", f"s{session}", *turns, end=end, driver_id=f"d{number}")
                for request in writing.requests if twice else ():
                    with contextlib.suppress(faults.RunEnded):
                        await store.journal.Append(request)
            open_sessions |= set() if end else {session}
            fold(folded, await read_log(store, writing.run_id), writing)
            await ticks(store, seconds=pause)
        for session in deleted - open_sessions:
            with contextlib.suppress(faults.SessionNotFound):
                await store.sessions.DeleteSession(pb.DeleteSessionRequest(session_id=f"s{session}"))
        assert counts(await statistics(store)) == counts(folded)
        parts = await store.sessions.GetStatistics(pb.GetStatisticsRequest(by_day=True))
        assert added([day.statistics for day in parts.days]) == plain(parts.total)


def fold(sums: session_pb2.Statistics, log: list[event_pb2.Event], writing: Writing) -> None:
    """Adds what a run's log tells."""
    sums.runs += 1
    sums.events += len(log)
    sums.turns += writing.turns
    sums.messages += 1 + sum(len(request.messages) for request in writing.requests)
    for each in log:
        kind = each.WhichOneof("kind")
        sums.tool_calls += kind == "tool_call_completed"
        if kind == "tool_execution_finished":
            result = each.tool_execution_finished.result
            sums.tool_executions += 1
            sums.tool_failures += result.status == FAILED
            sums.tool_unknown += result.status == UNKNOWN
            sums.tool_ms += round(result.duration_ms, 3)
        if kind == "usage_recorded":
            sums.usage_total.input_tokens += each.usage_recorded.call.input_tokens
            sums.usage_total.cost_nano_usd += each.usage_recorded.call.cost_nano_usd
            sums.usage_total.calls += 1
        sums.runs_completed += kind == "run_completed"
        sums.runs_failed += kind == "run_failed"
        sums.runs_cancelled += kind == "run_cancelled"


COUNTED = [
    "runs",
    "runs_completed",
    "runs_failed",
    "runs_cancelled",
    "turns",
    "messages",
    "events",
    "tool_calls",
    "tool_executions",
    "tool_failures",
    "tool_unknown",
]


def counts(sums: session_pb2.Statistics) -> dict[str, object]:
    usage = sums.usage_total
    found: dict[str, object] = {name: getattr(sums, name) for name in COUNTED}
    return found | {"tool_ms": round(sums.tool_ms, 3), "usage": (usage.input_tokens, usage.cost_nano_usd, usage.calls)}


def plain(sums: session_pb2.Statistics) -> dict[str, object]:
    """All of it, by name."""
    found = {field.name: getattr(sums, field.name) for field in session_pb2.Statistics.DESCRIPTOR.fields if "usage" not in field.name}
    models = {row.model: (row.usage.input_tokens, row.usage.cost_nano_usd, row.usage.calls) for row in sums.usage}
    times = (sums.first_opened_at.ToNanoseconds(), sums.last_ended_at.ToNanoseconds())
    return found | {"first_opened_at": times[0], "last_ended_at": times[1], "usage": models, "tool_ms": round(sums.tool_ms, 3)}


def added(parts: list[session_pb2.Statistics]) -> dict[str, object]:
    """Parts as one: numbers add up, times are the first and the last."""
    if not parts:
        return plain(session_pb2.Statistics())
    total = plain(parts[0])
    for part in map(plain, parts[1:]):
        models = dict(total["usage"])  # type: ignore[call-overload]
        for model, numbers in part["usage"].items():  # type: ignore[attr-defined]
            models[model] = tuple(map(sum, zip(models.get(model, (0, 0, 0)), numbers, strict=True)))
        for name, value in part.items():
            if isinstance(value, int | float):
                total[name] = round(total[name] + value, 3)  # type: ignore[operator]
        total["usage"] = models
    total["first_opened_at"] = min(part.first_opened_at.ToNanoseconds() for part in parts)
    total["last_ended_at"] = max(part.last_ended_at.ToNanoseconds() for part in parts)
    return total


async def by_day(store: Store) -> list[tuple[str, dict[str, object]]]:
    response = await store.sessions.GetStatistics(pb.GetStatisticsRequest(by_day=True))
    return [(day.day, plain(day.statistics)) for day in response.days]
