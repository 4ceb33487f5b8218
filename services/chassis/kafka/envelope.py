"""Reading what cloud_events.py writes, by whoever wrote it: CloudEvents 1.0 in the binary mode of its Kafka binding. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from chassis.faults import RequestInvalid, Violation
from chassis.kafka.cloud_events import Header

REQUIRED = ("ce_specversion", "ce_id", "ce_source", "ce_type")
CONTENT_TYPES = ("application/protobuf", "application/x-protobuf")
MOST_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class Envelope:
    """What a record's headers say of it. `tenant`, `traceparent` and `principal` are empty when they say nothing."""

    id: str
    source: str
    type: str
    tenant: str
    traceparent: str
    principal: str = ""


def read_envelope(headers: Iterable[Header]) -> Envelope:
    """The envelope of a record. Raises RequestInvalid naming every header that is missing or wrong."""
    texts, violations = _texts(headers)
    violations += [Violation(name, "is missing; CloudEvents need it") for name in REQUIRED if not texts.get(name)]
    violations += _unreadable(texts)
    if violations:
        told = "; ".join(f"the header {v.field} {v.description}" for v in violations)
        raise RequestInvalid(f"the record is no CloudEvent that can be read: {told}", violations=tuple(violations))
    return Envelope(
        id=texts["ce_id"],
        source=texts["ce_source"],
        type=texts["ce_type"],
        tenant=texts.get("ce_tenant", ""),
        traceparent=texts.get("traceparent", "") or texts.get("ce_traceparent", ""),
        principal=texts.get("ce_principal", ""),
    )


def _texts(headers: Iterable[Header]) -> tuple[dict[str, str], list[Violation]]:
    """The headers that an envelope is made of, and what is wrong with them."""
    texts: dict[str, str] = {}
    violations: list[Violation] = []
    for name, value in headers:
        if not name.startswith("ce_") and name not in ("traceparent", "content-type"):
            continue
        problem = _problem(name, value, texts)
        if problem:
            violations.append(Violation(name[:MOST_CHARACTERS], problem))
        else:
            texts[name] = value.decode()
    return texts, violations


def _problem(name: str, value: bytes | None, before: Mapping[str, str]) -> str:
    if name in before:
        return "is given twice; give it once"
    if value is None or len(value) > MOST_CHARACTERS:
        return f"is {'null' if value is None else 'too long'}; give 1 to {MOST_CHARACTERS} bytes of UTF-8"
    try:
        value.decode()
    except UnicodeDecodeError:
        return "is no UTF-8 text; encode it so"
    return ""


def _unreadable(texts: Mapping[str, str]) -> list[Violation]:
    found = []
    if texts.get("ce_specversion", "1.0") != "1.0":
        found.append(Violation("ce_specversion", f"is {texts['ce_specversion']!r}; 1.0 is what can be read"))
    content = texts.get("content-type", CONTENT_TYPES[0])
    if content.partition(";")[0].strip().lower() not in CONTENT_TYPES:
        found.append(Violation("content-type", f"is {content!r}; {CONTENT_TYPES[0]} in binary mode is what can be read"))
    return found
