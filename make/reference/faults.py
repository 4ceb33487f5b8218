"""The page of faults, from chassis.faults."""

from __future__ import annotations

from collections.abc import Iterator

from chassis.faults import Fault, reasons


def lines() -> Iterator[str]:
    """The page, line by line."""
    yield "# Faults"
    yield ""
    yield "A failed call carries `google.rpc.Status` with an `ErrorInfo`: its domain is `<service>.behest.dev`, its reason one of these."
    yield "Switch on the two, never on the message."
    yield "A retryable one may succeed when the same request is sent again; where a `RetryInfo` comes along, not before its delay."
    for family in Fault.__subclasses__():
        yield from _family(family)


def _family(family: type[Fault]) -> Iterator[str]:
    yield from ("", f"## {_sentence(family).removesuffix('.')}", "")
    yield "| reason | status | retryable | meaning |"
    yield "|---|---|---|---|"
    for reason, fault in sorted(reasons().items()):
        if issubclass(fault, family):
            yield f"| `{reason}` | {fault.kind.name} | {'yes' if fault.retryable else 'no'} | {_sentence(fault)} |"


def _sentence(fault: type[Fault]) -> str:
    return " ".join((fault.__doc__ or "").split())
