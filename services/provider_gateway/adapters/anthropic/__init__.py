"""Anthropic Messages."""

from provider_gateway.adapters.anthropic.provider import AnthropicProvider
from provider_gateway.adapters.anthropic.wire import AnthropicWire

__all__ = ["AnthropicProvider", "AnthropicWire"]
