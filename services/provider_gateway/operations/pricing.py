"""What answers cost, wherever their usage is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from provider_gateway.domain.answers import ChatEvent, ChatResult, Finished, Usage, UsageReport
from provider_gateway.domain.models import Price


def priced(result: ChatResult, price: Price | None) -> ChatResult:
    """The result with what it cost."""
    return result if price is None else replace(result, usage=priced_usage(result.usage, price))


def priced_usage(usage: Usage, price: Price) -> Usage:
    """The usage with what it cost: by the price, unless that is a mere list's and the provider itself told the cost."""
    if price.listed and usage.cost_known:
        return usage
    return replace(usage, cost_nano_usd=price.of(usage), cost_known=True)


def priced_events(events: Sequence[ChatEvent], price: Price) -> list[ChatEvent]:
    """The same steps, with what they cost where they tell usage."""
    return [_priced_event(event, price) for event in events]


def _priced_event(event: ChatEvent, price: Price) -> ChatEvent:
    match event:
        case UsageReport(usage):
            return UsageReport(priced_usage(usage, price))
        case Finished(result):
            return Finished(priced(result, price))
    return event
