"""Ollama's own protocol, which says more than its imitation of OpenAI's: thinking, cuts, and how the model is loaded."""

from provider_gateway.adapters.ollama.wire import OllamaWire

__all__ = ["OllamaWire"]
