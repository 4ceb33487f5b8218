"""How faults travel: Fault to google.rpc.Status and back. The only place that knows both."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from chassis.faults import (
    CallCancelled,
    DeadlineExceeded,
    Fault,
    Internal,
    Kind,
    MessageTooLarge,
    MethodNotFound,
    RequestInvalid,
    ServiceUnavailable,
    Violation,
    fault_class,
    unknown_class,
)

STATUS_KEY = "grpc-status-details-bin"
DOMAIN_SUFFIX = ".behest.dev"

# HTTP/2 peers commonly refuse headers over 8 KiB. The text travels percent-encoded (up to 3x) and again in base64 (4/3).
MAX_TEXT = 1024
MAX_VALUE = 256
MAX_DETAILS = 3072

_BROKEN_OFF = "Internal error from Core"
"""What grpc's client says, under INTERNAL, when a stream is gone that it wants to write to: no answer of anybody."""

_KINDS = frozenset(kind.value for kind in Kind)
_CODES = {code.value[0]: code for code in grpc.StatusCode}


def status_of(fault: Fault) -> Status:
    """The fault as a status with ErrorInfo, RetryInfo and BadRequest, cut to fit into headers."""
    status = Status(code=fault.kind.value, message=cut(fault.message, MAX_TEXT))
    for detail in _details(fault):
        status.details.add().Pack(detail)
        if status.ByteSize() > MAX_DETAILS:
            del status.details[-1]
    return status


def _details(fault: Fault) -> Iterable[Any]:
    yield _error_info(fault)
    if fault.retry_after is not None:
        nanos = round(fault.retry_after * 1e9)
        yield error_details_pb2.RetryInfo(retry_delay=Duration(seconds=nanos // 10**9, nanos=nanos % 10**9))
    if fault.violations:
        yield _bad_request(fault.violations)


def _error_info(fault: Fault) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo(reason=fault.reason, domain=f"{fault.service or 'behest'}{DOMAIN_SUFFIX}")
    room = MAX_DETAILS // 3
    for key, value in fault.metadata.items():
        short = cut(value, MAX_VALUE)
        room -= len(key.encode()) + len(short.encode())
        if room < 0:
            break
        info.metadata[key] = short
    return info


def _bad_request(violations: Iterable[Violation]) -> error_details_pb2.BadRequest:
    bad, room = error_details_pb2.BadRequest(), MAX_DETAILS // 3
    for violation in violations:
        field, description = cut(violation.field, MAX_VALUE), cut(violation.description, MAX_VALUE)
        room -= len(field.encode()) + len(description.encode())
        if room < 0:
            break
        bad.field_violations.add(field=field, description=description)
    return bad


def cut(text: str, size: int) -> str:
    """The text, or its beginning that fits into size bytes of UTF-8 with an ellipsis."""
    data = text.encode("utf-8", "replace")
    return data.decode() if len(data) <= size else data[: size - 3].decode(errors="ignore") + "…"


def trailing_metadata(status: Status) -> tuple[tuple[str, bytes], ...]:
    """The metadata that carries a status's details over plain gRPC."""
    return ((STATUS_KEY, status.SerializeToString()),)


def grpc_code(number: int) -> grpc.StatusCode:
    """The code of that number, UNKNOWN for one that does not exist."""
    return _CODES.get(number, grpc.StatusCode.UNKNOWN)


def fault_of(status: Status, path: str) -> Fault:
    """The fault that a status tells of: the class of its reason, or one that fits its code."""
    info, retry, bad = _unpack(status)
    known = fault_class(info.reason)
    if info.domain.endswith(DOMAIN_SUFFIX) and known is not None:
        make = known
    else:
        make = unknown_class(_kind(status.code), info.reason) if info.reason else _plain_class(status)
    service = info.domain.removesuffix(DOMAIN_SUFFIX)
    return make(
        status.message or f"{path} failed",
        metadata=info.metadata,
        retry_after=retry,
        violations=tuple(Violation(v.field, v.description) for v in bad.field_violations),
        service="" if service == "behest" else service,
    )


def _unpack(status: Status) -> tuple[error_details_pb2.ErrorInfo, float | None, error_details_pb2.BadRequest]:
    info, retry, bad = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo(), error_details_pb2.BadRequest()
    has_retry = False
    for detail in status.details:
        try:
            detail.Unpack(info)
            has_retry |= detail.Unpack(retry)
            detail.Unpack(bad)
        except DecodeError:  # a detail that is not what it says is no detail
            continue
    return info, retry.retry_delay.ToNanoseconds() / 1e9 if has_retry else None, bad


_PLAIN = {
    Kind.CANCELLED.value: CallCancelled,
    Kind.INVALID_ARGUMENT.value: RequestInvalid,
    Kind.DEADLINE_EXCEEDED.value: DeadlineExceeded,
    Kind.UNIMPLEMENTED.value: MethodNotFound,
    Kind.UNAVAILABLE.value: ServiceUnavailable,
    Kind.INTERNAL.value: Internal,
}


def _plain_class(status: Status) -> type[Fault]:
    """The class for a status without details, as gRPC itself and proxies make them."""
    if status.code == Kind.RESOURCE_EXHAUSTED.value and "larger than max" in status.message.lower():
        return MessageTooLarge
    return _PLAIN.get(status.code) or unknown_class(_kind(status.code), "")


def _kind(code: int) -> Kind:
    return Kind(code) if code in _KINDS else Kind.UNKNOWN


def fault_of_rpc(error: grpc.aio.AioRpcError, path: str) -> Fault:
    """The fault that a failed gRPC call tells of."""
    for key, value in cast(Iterable[tuple[str, str | bytes]], error.trailing_metadata() or ()):
        if key == STATUS_KEY and isinstance(value, bytes):
            return fault_of(parse_status(value, error.code().value[0], error.details() or ""), path)
    message = error.details() or ""
    if error.code() is grpc.StatusCode.INTERNAL and message == _BROKEN_OFF:
        return ServiceUnavailable(f"{path} was cut off while its request was sent; try again")
    if error.code() is grpc.StatusCode.CANCELLED:  # nobody here did: a call given up here raises no AioRpcError
        return ServiceUnavailable(f"{path} was cut off by its server, as one that ends does; try again")
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        message = f"{path} cannot be reached: {message or 'the connection broke'}; is the service running there?"
    return fault_of(Status(code=error.code().value[0], message=message), path)


def parse_status(data: bytes, code: int, message: str) -> Status:
    """The serialized status; when it is garbage or says success, one of the code and message."""
    try:
        status = Status.FromString(data)
    except DecodeError:
        return Status(code=code, message=message)
    return status if status.code else Status(code=code, message=message)
