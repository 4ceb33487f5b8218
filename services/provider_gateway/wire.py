"""Values of the domain as messages of the contract, for callers and for those who hear of calls. Pure."""

from __future__ import annotations

from behest.chat.v1 import chat_pb2
from behest.fault.v1 import fault_pb2
from chassis.faults import Fault
from provider_gateway.domain.answers import Usage

SERVICE = "provider-gateway"
MOST_MESSAGE = 512


def usage_to(usage: Usage) -> chat_pb2.Usage:
    """What a call consumed."""
    return chat_pb2.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cache_read_tokens,
        cache_write_tokens=usage.cache_write_tokens,
        reasoning_tokens=usage.reasoning_tokens,
        cost_nano_usd=usage.cost_nano_usd,
        cost_known=usage.cost_known,
        calls=usage.calls,
    )


def fault_to(fault: Fault) -> fault_pb2.Fault:
    """Why something failed, in at most 512 characters."""
    return fault_pb2.Fault(
        reason=fault.reason,
        message=fault.message[:MOST_MESSAGE],
        metadata=fault.metadata,
        service=fault.service or SERVICE,
        retryable=fault.retryable,
    )
