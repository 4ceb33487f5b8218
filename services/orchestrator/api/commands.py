"""Commands as records: each asks for what an RPC does, and is carried out by that RPC's handler."""

from __future__ import annotations

import re
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from behest.run.v1 import run_service_pb2 as pb
from chassis.faults import MessageTooLarge, MethodNotFound, RequestInvalid, Violation
from chassis.kafka.envelope import Envelope, read_envelope
from chassis.rpc.call import DEFAULT_TENANT, PRINCIPAL_KEY, TENANT_KEY, TRACE_KEY, Call
from chassis.rpc.methods import Methods
from chassis.rpc.plain import MAX_MESSAGE
from chassis.rpc.server import refuse_unknown_fields
from chassis.rpc.stubs import outgoing_call
from orchestrator.operations.commands import Letter

PREFIX = "dev.behest.command."
ID = re.compile(r"[!-~]{1,128}")

TIMEOUT = 30.0
"""Seconds that one attempt may take; a command that was not carried out by then is tried again."""

Request = pb.CreateRunRequest | pb.CancelRunRequest | pb.SendInputRequest | pb.ResolveApprovalRequest


@dataclass(frozen=True, slots=True)
class Kind:
    """A type of command: the method that carries it out, and its request."""

    method: str
    request: type[Request]


KINDS = {
    PREFIX + "start.v1": Kind("/behest.run.v1.RunService/CreateRun", pb.CreateRunRequest),
    PREFIX + "cancel.v1": Kind("/behest.run.v1.RunService/CancelRun", pb.CancelRunRequest),
    PREFIX + "input.v1": Kind("/behest.run.v1.RunService/SendInput", pb.SendInputRequest),
    PREFIX + "approve.v1": Kind("/behest.run.v1.RunService/ResolveApproval", pb.ResolveApprovalRequest),
}


class CommandOrders:
    """Orders over the handlers of this process. With tenants, commands of others are refused; without, any tenant's are carried out."""

    def __init__(self, methods: Methods, tenants: frozenset[str]) -> None:
        self._methods = methods
        self._tenants = tenants

    async def carry_out(self, letter: Letter) -> None:
        """Returns when the log has it. Raises RequestInvalid, MethodNotFound, MessageTooLarge, and the method's faults."""
        envelope = read_envelope(letter.headers)
        kind, request = read_command(envelope, letter.value)
        method = self._methods.find(kind.method)
        assert method.unary is not None, "commands are unary"
        await method.unary(self._call(envelope, kind), request)

    def _call(self, envelope: Envelope, kind: Kind) -> Call:
        tenant = envelope.tenant or DEFAULT_TENANT
        if self._tenants and tenant not in self._tenants:
            text = f"tenant {tenant!r} may not send commands; list it in orchestrator.commands.tenants, or correct the header ce_tenant"
            raise RequestInvalid(text, violations=(Violation("ce_tenant", "is not allowed"),))
        return outgoing_call(
            kind.method, TIMEOUT, ((TENANT_KEY, tenant), (TRACE_KEY, envelope.traceparent), (PRINCIPAL_KEY, envelope.principal)), None
        )


def read_command(envelope: Envelope, value: bytes | None) -> tuple[Kind, Request]:
    """What a record asks for; the request has the command's id. Raises RequestInvalid, MethodNotFound, MessageTooLarge."""
    kind = _kind(envelope.type)
    data = value or b""
    if len(data) > MAX_MESSAGE:
        text = f"the command has {len(data)} bytes; at most {MAX_MESSAGE} are allowed: refer to large documents by URL"
        raise MessageTooLarge(text, metadata={"bytes": str(len(data)), "limit": str(MAX_MESSAGE)})
    try:
        request = kind.request.FromString(data)
    except DecodeError as error:
        text = f"the value is no {kind.request.DESCRIPTOR.full_name}: {error}; encode it as protobuf, its strings as UTF-8"
        raise RequestInvalid(text, violations=(Violation("value", str(error)),)) from None
    refuse_unknown_fields(request)
    request.request_id = _request_id(envelope.id, request.request_id)
    return kind, request


def _kind(type_: str) -> Kind:
    kind = KINDS.get(type_)
    if kind is not None:
        return kind
    known = ", ".join(KINDS)
    raise MethodNotFound(f"there are no commands of type {type_[:128]!r}; ce_type is one of {known}", metadata={"type": type_[:128]})


def _request_id(id_: str, inside: str) -> str:
    if ID.fullmatch(id_) is None:
        text = "the header ce_id must be 1 to 128 printable ASCII characters without spaces: it is the request id of the command"
        raise RequestInvalid(text, violations=(Violation("ce_id", "1 to 128 printable ASCII characters"),))
    if inside not in ("", id_):
        text = f"request_id is {inside[:128]!r} and ce_id {id_!r}; leave request_id empty, or make them equal"
        raise RequestInvalid(text, violations=(Violation("request_id", "differs from ce_id"),))
    return id_
