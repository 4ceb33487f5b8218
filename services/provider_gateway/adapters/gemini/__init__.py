"""Gemini generateContent, at the Generative Language API and at Vertex AI."""

from provider_gateway.adapters.gemini.wire import GeminiWire

__all__ = ["GeminiWire"]
