"""Exported sessions between the wire and the domain: the framing of the file and its records. Pure, as convert.py."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from behest.session.v1 import export_pb2 as pb
from behest.session.v1 import journal_service_pb2, session_pb2
from chassis.faults import ExportTooNew
from session_store.api import convert, convert_log
from session_store.domain.batch import MAX_EVENTS, Batch
from session_store.domain.bounds import check_id, check_labels, check_title
from session_store.domain.run import Run, RunState
from session_store.domain.session import MessageId, RunId, Session, SessionId, StoredMessage, Tenant
from session_store.domain.tally import NOTHING
from session_store.domain.transfer import Counts, EventsPiece, Manifest, MessagesPiece, Piece, RunPiece, damaged
from session_store.operations.exporting import Exported

MAGIC = "behest session export"
FORMAT = 1
MAX_RECORD = 80 << 20  # more than any append or message can be
_MOST_LENGTH = 10  # bytes of a varint

Parsed = TypeVar("Parsed", bound=Message)


class Writer:
    """Makes the file, record by record."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._sha = hashlib.sha256()
        self._manifest = Counts()

    def write(self, exported: Exported) -> bytes:
        """The bytes of a piece."""
        match exported:
            case Session():
                header = pb.ExportHeader(
                    magic=MAGIC, format=FORMAT, exported_at=convert.timestamp(self._now), session=convert.session(exported)
                )
                return self._framed(pb.ExportRecord(header=header))
            case RunPiece(run, usage):
                self._count(runs=1)
                rows = convert.usage_rows(usage)
                return self._framed(pb.ExportRecord(run=pb.ExportRun(run=convert_log.run(run), input_digest=run.input_digest, usage=rows)))
            case Batch():
                self._count(events=exported.last - exported.first + 1)
                events = pb.ExportEvents(run_id=exported.run_id, first=exported.first, last=exported.last, entries=exported.data)
                return self._framed(pb.ExportRecord(events=events))
        self._count(messages=len(exported))
        return self._framed(pb.ExportRecord(messages=pb.ExportMessages(messages=map(convert.stored_message, exported))))

    def close(self) -> bytes:
        """The last bytes."""
        counted = export_counts(self._manifest)
        return self._framed(pb.ExportRecord(end=pb.ExportEnd(counts=counted, sha256=self._sha.digest())))

    def _framed(self, record: pb.ExportRecord) -> bytes:
        body = record.SerializeToString(deterministic=True)
        framed = _varint(len(body)) + body
        self._sha.update(framed)
        return framed

    def _count(self, messages: int = 0, runs: int = 0, events: int = 0) -> None:
        before = self._manifest
        self._manifest = Counts(before.messages + messages, before.runs + runs, before.events + events)


class Reader:
    """Takes a file apart as its bytes come. Holds one record at most."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._sha = hashlib.sha256()
        self._end: pb.ExportEnd | None = None
        self._begun = False

    def feed(self, data: bytes) -> Iterator[pb.ExportHeader | Piece]:
        """The records that are whole now; the header comes first. Raises ExportDamaged, ExportTooNew, RequestInvalid."""
        self._buffer += data
        while (body := self._take()) is not None:
            record = _parsed(pb.ExportRecord, body)
            kind = record.WhichOneof("kind")
            if self._end is not None or (kind == "header") == self._begun:
                raise damaged("its records are not in their order")
            self._begun = True
            if kind == "end":
                self._end = record.end
            elif kind == "header":
                yield _checked(record.header)
            elif kind is not None:
                yield piece(record)

    def close(self, manifest: Manifest) -> None:
        """Raises ExportDamaged unless the file was whole."""
        if self._end is None or self._buffer:
            raise damaged("it was cut off" if self._end is None else "something stands behind its end")
        if self._end.sha256 != self._before_end:
            raise damaged("its checksum is not that of its bytes")
        counts = self._end.counts
        manifest.close(Counts(counts.messages, counts.runs, counts.events))

    def _take(self) -> bytes | None:
        length, start = _read_varint(self._buffer)
        if start == 0 or len(self._buffer) < start + length:
            return None
        self._before_end = self._sha.digest()
        body = bytes(self._buffer[start : start + length])
        self._sha.update(self._buffer[: start + length])
        del self._buffer[: start + length]
        return body


def header_session(tenant: Tenant, header: pb.ExportHeader) -> Session:
    """The session that a file is of."""
    wire = header.session
    check_id("session.id", wire.id)
    check_title("session.title", wire.title)
    check_labels("session.metadata", wire.metadata)
    created_at, updated_at = convert.seconds(wire.created_at), convert.seconds(wire.updated_at)
    return Session(
        tenant,
        SessionId(wire.id),
        created_at,
        updated_at,
        wire.title,
        dict(wire.metadata),
        version=max(1, wire.version),
        forked_from=SessionId(wire.forked_from_session_id),
        forked_at=wire.forked_at_position,
    )


def piece(record: pb.ExportRecord) -> Piece:
    """A record as a piece. Raises ExportDamaged, RequestInvalid."""
    match record.WhichOneof("kind"):
        case "run":
            return RunPiece(_run(record.run), tuple(map(convert.model_usage, record.run.usage)))
        case "events":
            return _events(record.events)
    return MessagesPiece(tuple(_message(message) for message in record.messages.messages))


def export_counts(counts: Counts) -> pb.ExportCounts:
    """Counts for the wire."""
    return pb.ExportCounts(messages=counts.messages, runs=counts.runs, events=counts.events)


def _checked(header: pb.ExportHeader) -> pb.ExportHeader:
    if header.magic != MAGIC:
        raise damaged("it does not begin like one")
    if header.format > FORMAT:
        raise ExportTooNew(
            f"the file has format {header.format}, this version reads up to {FORMAT}; import it with a version as new as its writer",
            metadata={"found": str(header.format), "known": str(FORMAT)},
        )
    return header


def _run(exported: pb.ExportRun) -> Run:
    wire = exported.run
    check_id("run.id", wire.id)
    return Run(
        tenant=Tenant(""),
        id=RunId(wire.id),
        session_id=SessionId(wire.session_id),
        created_at=convert.seconds(wire.created_at),
        state=convert_log.run_state(wire.state),
        sequence=wire.sequence,
        started_at=convert.seconds(wire.started_at) if wire.HasField("started_at") else None,
        ended_at=convert.seconds(wire.ended_at) if wire.HasField("ended_at") else None,
        details=convert_log.details(wire),
        usage=wire.usage.SerializeToString() if wire.HasField("usage") else b"",
        turns=wire.turns,
        fault=wire.fault.SerializeToString() if wire.HasField("fault") else b"",
        output_message_id=wire.output_message_id,
        input_digest=exported.input_digest,
    )


def _events(exported: pb.ExportEvents) -> EventsPiece:
    log = _parsed(journal_service_pb2.FollowResponse, exported.entries)
    if not 1 <= len(log.events) <= MAX_EVENTS or exported.last - exported.first + 1 != len(log.events):
        raise damaged(f"run {exported.run_id} has {len(log.events)} events where {exported.first} to {exported.last} should be")
    ends_in: RunState | None = None
    tally = NOTHING
    for sequence, event in enumerate(log.events, exported.first):
        kind = event.WhichOneof("kind") or ""
        if event.sequence != sequence or (kind == "run_created") != (sequence == 1) or ends_in is not None:
            raise damaged(f"event {sequence} of run {exported.run_id} is not the one that belongs there")
        ends_in, tally = convert_log.ends_in(kind), tally + convert_log.counted(event)
    return EventsPiece(RunId(exported.run_id), exported.first, exported.last, exported.entries, ends_in, tally)


def _message(wire: session_pb2.StoredMessage) -> StoredMessage:
    check_id("message.id", wire.id)
    convert.check_role("message", wire.message)
    body = wire.message.SerializeToString()
    return StoredMessage(MessageId(wire.id), wire.position, RunId(wire.run_id), convert.seconds(wire.created_at), body)


def _parsed(kind: type[Parsed], data: bytes) -> Parsed:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise damaged("a record cannot be read") from error


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _read_varint(data: bytearray) -> tuple[int, int]:
    """A length and where it ends; 0, 0 as long as it is not whole."""
    length = 0
    for index, byte in enumerate(data[:_MOST_LENGTH]):
        length |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if length > MAX_RECORD:
                raise damaged(f"a record is said to have {length} bytes")
            return length, index + 1
    if len(data) >= _MOST_LENGTH:
        raise damaged("the length of a record cannot be read")
    return 0, 0
