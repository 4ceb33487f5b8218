"""CloudEvents 1.0 in the binary mode of its Kafka binding: the attributes are headers, the data is the record's value.

Attributes that many events share are made once; see `shared_headers` and `own_headers`, which together are all of an event's.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Sequence
from urllib.parse import quote

Header = tuple[str, bytes]

CONTENT_TYPE: Header = ("content-type", b"application/protobuf")
_VERSION: Header = ("ce_specversion", b"1.0")
OMITTED = "ce_omittedbytes"
DATAREF = "ce_dataref"


def event_type(kind: str, version: int = 1) -> str:
    """The type of an event by its kind, a noun and what became of it: dev.behest.run.completed.v1 for run_completed."""
    noun, _, verb = kind.rpartition("_")
    return f"dev.behest.{noun}.{verb}.v{version}"


def source_of(service: str, tenant: str) -> str:
    """Who says it. Source and id name an event; the tenant is part of the source since ids are unique within one."""
    return f"/{service}/{quote(tenant, safe='')}"


def shared_headers(source: str, message: str, subject: str, tenant: str, session: str = "") -> tuple[Header, ...]:
    """Headers that events of one subject share; message is the full name of the data's protobuf message."""
    shared = (
        CONTENT_TYPE,
        _VERSION,
        ("ce_source", source.encode()),
        ("ce_dataschema", f"proto:{message}".encode()),
        ("ce_subject", subject.encode()),
        ("ce_tenant", tenant.encode()),
    )
    return (*shared, ("ce_session", session.encode())) if session else shared


def own_headers(id_: str, type_: bytes, moment: str, traceparent: str = "") -> list[Header]:
    """Headers of one event. The trace context stands twice: as CloudEvents' extension, and where W3C tools look for it."""
    own = [("ce_id", id_.encode()), ("ce_type", type_), ("ce_time", moment.encode())]
    if traceparent:
        context = traceparent.encode()
        own += (("ce_traceparent", context), ("traceparent", context))
    return own


def omission_headers(size: int, elsewhere: str) -> Sequence[Header]:
    """What an event says whose data is too large for a record: how large it is, and where to read it."""
    return ((OMITTED, str(size).encode()), (DATAREF, elsewhere.encode()))


def rfc3339(seconds: int, nanos: int = 0) -> str:
    """A moment as CloudEvents writes it, to the microsecond."""
    return f"{_second(seconds)}.{nanos // 1000:06d}Z"


@functools.lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
