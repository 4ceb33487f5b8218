"""What is noted of model calls, and the buffer in which the notes wait for Kafka."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Sequence
from dataclasses import dataclass, field

import pytest

from behest.provider.v1 import provider_pb2
from chassis.faults import Fault, ProviderCredentialsRefused, ProviderUnavailable, StreamIncomplete
from chassis.kafka.envelope import read_envelope
from chassis.kafka.publishing import Record
from chassis.rpc import Call, call_scope
from chassis.world import World
from kit.provider_double import REQUEST, STARTED, Bench, Double, StillClock, events_of, saying
from kit.publishing import RecordingPublisher
from provider_gateway.adapters.call_records import CallPublications, call_record, publishing
from provider_gateway.domain.answers import ChatEvent, FinishReason, TextDelta, Usage, UsageReport
from provider_gateway.domain.calls import EndedCall
from provider_gateway.domain.models import Capabilities, ModelTraits, Price
from provider_gateway.operations.recording import CallRecorder

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
Batches = AsyncGenerator[Sequence[ChatEvent], None]


@dataclass
class KeptCalls:
    calls: list[EndedCall] = field(default_factory=list)

    def ended(self, call: EndedCall) -> None:
        self.calls.append(call)

    @property
    def only(self) -> EndedCall:
        (call,) = self.calls
        return call


def bench_of(provider: Double, **fields: object) -> tuple[Bench, KeptCalls]:
    kept, clock = KeptCalls(), StillClock()
    return Bench(provider, clock, recorder=CallRecorder(kept, World(clock)), **fields), kept  # type: ignore[arg-type]


def failing(times: int, fault: Fault, after: Sequence[ChatEvent] = ()) -> Double:
    async def play(number: int) -> Batches:
        if number < times:
            if after:
                yield after
            raise fault
        async for batch in saying("Hello ", "world"):
            yield batch

    return Double(play)


async def run(bench: Bench, streamed: bool) -> None:
    with call_scope(Call(tenant="acme", traceparent=TRACE)):
        if streamed:
            await events_of(bench.chats())
        else:
            await bench.chats().complete(REQUEST, None)


@pytest.mark.feature("E2")
@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("streams", [True, False])
async def test_an_answered_call_is_told_once_with_its_attempts_its_usage_and_its_cost(streamed: bool, streams: bool) -> None:
    traits = ModelTraits(Capabilities(streaming=streams), Price(10, 100))
    bench, kept = bench_of(failing(2, ProviderUnavailable("away"), after=[STARTED]), traits=traits)
    await run(bench, streamed)
    call = kept.only
    assert (call.tenant, call.traceparent, call.provider, call.model, call.streamed) == ("acme", TRACE, "double", "m", streamed)
    assert call.usage == Usage(1, 2, cost_nano_usd=210, cost_known=True)
    assert (call.finish, call.fault, call.response_id) == (FinishReason.STOP, None, "r")
    assert [(attempt.fault.reason, attempt.duration) for attempt in call.failed] == [
        ("PROVIDER_UNAVAILABLE", 0),
        ("PROVIDER_UNAVAILABLE", 0.5),
    ]
    assert (call.started_at, call.duration) == (1000.0, 1.5)
    assert call.first_output == (1.5 if streamed else None)


@pytest.mark.feature("E2")
@pytest.mark.parametrize("streamed", [True, False])
async def test_a_failed_call_is_told_with_its_reason_and_the_attempts_before(streamed: bool) -> None:
    bench, kept = bench_of(failing(9, ProviderUnavailable("away")))
    with pytest.raises(ProviderUnavailable):
        await run(bench, streamed)
    assert kept.only.fault is not None and kept.only.fault.reason == "PROVIDER_UNAVAILABLE"
    assert (len(kept.only.failed), kept.only.finish, kept.only.usage) == (2, None, None)
    bench, kept = bench_of(failing(9, ProviderCredentialsRefused("no")))
    with pytest.raises(ProviderCredentialsRefused):
        await run(bench, streamed)
    assert (kept.only.failed, bench.clock.slept) == ((), [])


@pytest.mark.feature("E2")
@pytest.mark.feature("P16")
async def test_a_stream_that_breaks_or_is_left_is_told_with_what_it_had_used() -> None:
    async def breaking(number: int) -> Batches:
        yield [STARTED, TextDelta("Hel"), UsageReport(Usage(5, 1))]

    bench, kept = bench_of(Double(breaking))
    with pytest.raises(StreamIncomplete):
        await run(bench, True)
    assert kept.only.fault is not None and kept.only.fault.reason == "STREAM_INCOMPLETE"
    assert (kept.only.usage, kept.only.response_id) == (Usage(5, 1), "r")

    async def hanging(number: int) -> Batches:
        yield [STARTED, TextDelta("Hel"), UsageReport(Usage(5, 1))]
        await asyncio.Event().wait()

    bench, kept = bench_of(Double(hanging))
    stream = bench.chats().stream(REQUEST, None)
    assert await anext(stream)
    await stream.aclose()
    assert kept.only.fault is not None and kept.only.fault.reason == "CALL_CANCELLED"
    assert kept.only.usage == Usage(5, 1)


async def test_a_call_that_is_cancelled_is_told_as_such() -> None:
    async def hanging(number: int) -> Batches:
        await asyncio.Event().wait()
        yield []

    bench, kept = bench_of(Double(hanging))
    calling = asyncio.create_task(bench.chats().complete(REQUEST, None))
    await asyncio.sleep(0)
    calling.cancel()
    await asyncio.wait([calling])
    assert kept.only.fault is not None and kept.only.fault.reason == "CALL_CANCELLED"


def call_of(number: int = 0, request_id: str = "run-1/1/1") -> EndedCall:
    return EndedCall(
        id=str(number),
        tenant="acme",
        traceparent=TRACE,
        request_id=request_id,
        metadata={"team": "x"},
        provider="openai",
        model="m",
        streamed=True,
        started_at=1000.0,
        duration=1.5,
        first_output=0.5,
        response_id="r",
        finish=FinishReason.STOP,
        usage=Usage(1, 2, cost_nano_usd=210, cost_known=True),
        fault=None,
        failed=(),
    )


@pytest.mark.feature("E3")
def test_the_record_of_a_call_names_it_its_tenant_and_its_trace_and_has_the_runs_key() -> None:
    record = call_record(call_of(), "topic")
    envelope = read_envelope(record.headers)
    assert (envelope.id, envelope.source, envelope.type, envelope.tenant) == (
        "0",
        "/provider-gateway/acme",
        "dev.behest.call.ended.v1",
        "acme",
    )
    assert (envelope.traceparent, record.key) == (TRACE, b"run-1")
    assert dict(record.headers)["ce_time"] == b"1970-01-01T00:16:41.500000Z"
    told = provider_pb2.ProviderCall.FromString(record.value or b"")
    assert (told.duration_ms, told.first_output_ms, told.usage.cost_nano_usd, dict(told.metadata)) == (1500, 500, 210, {"team": "x"})
    assert call_record(call_of(request_id=""), "topic").key == b"0"


@pytest.mark.feature("E2")
async def test_calls_that_end_while_kafka_is_away_wait_and_those_beyond_the_bound_are_dropped_with_a_count() -> None:
    publisher = RecordingPublisher()
    publisher.hold()
    publications = CallPublications(publisher, "topic", StillClock(), most_waiting=3)
    async with publishing(publications):
        for number in range(8):
            publications.ended(call_of(number))
        await publisher.waiting.wait()
        publications.ended(call_of(8))
        assert publications.dropped == 6
        publisher.release()
        await publisher.until(["0", "1", "2"])
        publications.ended(call_of(9))
        await publisher.until(["9"])
    assert publisher.ids == ["0", "1", "2", "9"]


async def test_what_waits_is_published_at_the_end() -> None:
    publisher = RecordingPublisher()
    publications = CallPublications(publisher, "topic", StillClock())
    async with publishing(publications):
        for number in range(700):
            publications.ended(call_of(number))
    assert publisher.ids == [str(number) for number in range(700)]


class NeverPublisher:
    problem = None

    async def publish(self, records: Iterable[Record]) -> None:
        await asyncio.Event().wait()


async def test_the_end_does_not_wait_for_a_kafka_that_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("provider_gateway.adapters.call_records.LAST_SECONDS", 0.01)
    publications = CallPublications(NeverPublisher(), "topic", StillClock())
    async with asyncio.timeout(5), publishing(publications):
        publications.ended(call_of())
