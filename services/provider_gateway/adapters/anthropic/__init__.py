"""Anthropic Messages."""

from provider_gateway.adapters.anthropic.wire import AnthropicWire

__all__ = ["AnthropicWire"]
