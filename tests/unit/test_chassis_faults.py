"""The fault tree, the registry in fault.proto, and how faults look as google.rpc.Status."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import grpc.aio
import pytest
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st

from behest.fault.v1 import fault_pb2
from chassis.faults import (
    DeadlineExceeded,
    Fault,
    Kind,
    MessageTooLarge,
    MethodNotFound,
    RunNotFound,
    ServiceUnavailable,
    Violation,
    reasons,
    unknown_class,
)
from chassis.rpc.status import fault_of, fault_of_rpc, status_of, trailing_metadata

PROTO = Path(__file__).parents[2] / "proto" / "behest" / "fault" / "v1" / "fault.proto"


def registry() -> dict[str, str]:
    """The reasons of the proto and the codes in their comments."""
    return {name: code for code, name in re.findall(r"// \[(\w+)\].*\n\s+REASON_(\w+) =", PROTO.read_text())}


@pytest.mark.feature("G2")
def test_every_reason_of_the_proto_has_a_class_of_its_kind_and_no_class_is_missing_there() -> None:
    assert {reason: kind.kind.name for reason, kind in reasons().items()} == registry()


def test_the_proto_documents_every_reason() -> None:
    names = {name.removeprefix("REASON_") for name in fault_pb2.Reason.DESCRIPTOR.values_by_name}
    assert names - {"UNSPECIFIED"} == set(registry())


def test_every_class_says_what_it_means() -> None:
    assert [kind for kind in reasons().values() if not kind.__doc__] == []


def test_codes_that_mean_later_may_be_retried_and_mistakes_may_not() -> None:
    retryable = {reason for reason, kind in reasons().items() if kind.retryable}
    assert {r for r, k in reasons().items() if k.kind is Kind.UNAVAILABLE} <= retryable
    assert not {r for r, k in reasons().items() if k.kind in (Kind.INVALID_ARGUMENT, Kind.NOT_FOUND)} & retryable


TEXT = st.text(max_size=40)


@given(
    kind=st.sampled_from(sorted(reasons().values(), key=lambda k: k.reason)),
    message=st.text(min_size=1, max_size=200),
    metadata=st.dictionaries(TEXT, TEXT, max_size=5),
    retry_after=st.none() | st.integers(0, 10**6).map(lambda ms: ms / 1000),
    violations=st.lists(st.builds(Violation, TEXT, TEXT), max_size=4).map(tuple),
    service=st.sampled_from(["", "session-store"]),
)
def test_a_fault_survives_its_status(kind, message, metadata, retry_after, violations, service) -> None:  # type: ignore[no-untyped-def]
    fault = kind(message, metadata=metadata, retry_after=retry_after, violations=violations, service=service)
    told = fault_of(Status.FromString(status_of(fault).SerializeToString()), "/a.B/C")
    assert type(told) is kind
    assert (told.message, told.metadata, told.violations, told.service) == (message, metadata, violations, service)
    assert told.retry_after == (None if retry_after is None else pytest.approx(retry_after))


@given(st.text(min_size=1).map(lambda text: text * 5000), st.integers(0, 60))
def test_a_status_fits_into_eight_kibibytes_of_headers(long: str, count: int) -> None:
    fault = RunNotFound(long, metadata={f"{n}{long}"[:300]: long for n in range(count)}, violations=(Violation(long, long),) * count)
    status = status_of(fault)
    percent_encoded = 3 * len(status.message.encode())
    base64 = len(trailing_metadata(status)[0][1]) * 4 // 3
    assert percent_encoded + base64 < 8 * 1024
    assert type(fault_of(status, "/a.B/C")) is RunNotFound


def rpc_error(code: grpc.StatusCode, details: str, *trailing: tuple[str, bytes]) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailing), details, "")


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect", ServiceUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", DeadlineExceeded),
        (grpc.StatusCode.CANCELLED, "Cancelled", ServiceUnavailable),
        (grpc.StatusCode.INTERNAL, "Internal error from Core", ServiceUnavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "CLIENT: Received message larger than max (5 vs. 4)", MessageTooLarge),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "SERVER: Sent message larger than max (5 vs. 4)", MessageTooLarge),
        (grpc.StatusCode.UNIMPLEMENTED, "Method not found!", MethodNotFound),
    ],
)
def test_a_bare_status_of_grpc_becomes_the_fault_that_says_so(code: grpc.StatusCode, details: str, kind: type[Fault]) -> None:
    assert type(fault_of_rpc(rpc_error(code, details), "/a.B/C")) is kind


def test_a_bare_status_of_another_code_keeps_its_kind() -> None:
    fault = fault_of_rpc(rpc_error(grpc.StatusCode.PERMISSION_DENIED, "RBAC: access denied"), "/a.B/C")
    assert (fault.kind, fault.message, fault.reason) == (Kind.PERMISSION_DENIED, "RBAC: access denied", "UNSPECIFIED")


def test_a_reason_of_a_later_version_keeps_kind_reason_and_metadata() -> None:
    later = unknown_class(Kind.ABORTED, "MOON_PHASE_WRONG")("wait for the moon", metadata={"phase": "new"}, service="session-store")
    told = fault_of(status_of(later), "/a.B/C")
    assert (told.kind, told.reason, told.metadata, told.service) == (Kind.ABORTED, "MOON_PHASE_WRONG", {"phase": "new"}, "session-store")
    assert "MOON_PHASE_WRONG" not in reasons()


def test_a_reason_of_another_domain_is_not_taken_for_ours() -> None:
    status = status_of(RunNotFound("no"))
    status.details[0].value = status.details[0].value.replace(b"behest.behest.dev", b"example.examp.org")
    assert type(fault_of(status, "/a.B/C")) is not RunNotFound


@pytest.mark.parametrize("garbage", [b"\xff\xff", b"", Status(code=0).SerializeToString()])
def test_garbage_for_details_leaves_the_code(garbage: bytes) -> None:
    error = rpc_error(grpc.StatusCode.UNAVAILABLE, "away", ("grpc-status-details-bin", garbage))
    fault = fault_of_rpc(error, "/a.B/C")
    assert (type(fault), fault.message) == (ServiceUnavailable, "away")
