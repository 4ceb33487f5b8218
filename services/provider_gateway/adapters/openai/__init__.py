"""OpenAI Chat Completions, and every server that speaks it."""

from provider_gateway.adapters.openai.dialect import Dialect
from provider_gateway.adapters.openai.server import Server, server_of
from provider_gateway.adapters.openai.wire import OpenAiWire

__all__ = ["Dialect", "OpenAiWire", "Server", "server_of"]
