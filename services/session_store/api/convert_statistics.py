"""Statistics between the wire and the domain. Pure, as convert.py."""

from __future__ import annotations

from datetime import UTC, datetime

from behest.session.v1 import session_pb2
from behest.session.v1 import session_service_pb2 as pb
from session_store.api.convert import seconds, timestamp, usage, usage_rows
from session_store.domain import usage as sums
from session_store.domain.bounds import refuse
from session_store.domain.run import RunState
from session_store.domain.session import RunId, SessionId, Tenant
from session_store.domain.statistics import DAY_SECONDS, Statistics, day_number
from session_store.operations.counting import Counted, StatisticsQuery


def statistics_query(tenant: Tenant, request: pb.GetStatisticsRequest) -> StatisticsQuery:
    """What is asked for."""
    since = day_number("since", seconds(request.since)) if request.HasField("since") else None
    until = day_number("until", seconds(request.until)) if request.HasField("until") else None
    if since is not None and until is not None and since >= until:
        raise refuse("until", "is not after since; give a later day, or leave it out")
    return StatisticsQuery(tenant, SessionId(request.session_id), RunId(request.run_id), since, until)


def statistics_response(counted: Counted, by_day: bool) -> pb.GetStatisticsResponse:
    """The sums for the wire."""
    days = [session_pb2.DayStatistics(day=_day(day), statistics=statistics(value)) for day, value in counted.days] if by_day else []
    return pb.GetStatisticsResponse(total=statistics(counted.total), days=days)


def statistics(value: Statistics) -> session_pb2.Statistics:
    """Sums for the wire."""
    tally = value.tally
    wire = session_pb2.Statistics(
        runs=sum(value.states.values()),
        turns=value.turns,
        messages=tally.messages,
        events=value.events,
        tool_calls=tally.tool_calls,
        tool_executions=tally.tool_executions,
        tool_failures=tally.tool_failures,
        tool_unknown=tally.tool_unknown,
        tool_ms=tally.tool_micros / 1000,
        run_ms=value.run_micros / 1000,
        queued_ms=value.queued_micros / 1000,
        usage=usage_rows(value.usage),
        usage_total=usage(sums.total(value.usage)),
    )
    _set_states(wire, value)
    _set_times(wire, value)
    return wire


def _set_states(wire: session_pb2.Statistics, value: Statistics) -> None:
    for state in RunState:
        setattr(wire, f"runs_{state.name.lower()}", value.states.get(state, 0))


def _set_times(wire: session_pb2.Statistics, value: Statistics) -> None:
    if value.first_opened_at is not None:
        wire.first_opened_at.CopyFrom(timestamp(value.first_opened_at))
    if value.last_ended_at is not None:
        wire.last_ended_at.CopyFrom(timestamp(value.last_ended_at))


def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_SECONDS, UTC).date().isoformat()
