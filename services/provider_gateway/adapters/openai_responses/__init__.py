"""OpenAI Responses, and every server that speaks it: Azure, xAI, local ones."""

from provider_gateway.adapters.openai_responses.dialect import Dialect
from provider_gateway.adapters.openai_responses.wire import OpenAiResponsesWire

__all__ = ["Dialect", "OpenAiResponsesWire"]
