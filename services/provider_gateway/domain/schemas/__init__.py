"""JSON Schemas in the words that a provider accepts, with the meaning they had."""

from provider_gateway.domain.schemas.adapting import Adapted, adapt
from provider_gateway.domain.schemas.references import Inexpressible
from provider_gateway.domain.schemas.subsets import (
    ANTHROPIC,
    ANTHROPIC_OUTPUT,
    ANTHROPIC_STRICT,
    ANTHROPIC_STRICT_OUTPUT,
    ANY_SERVER,
    GEMINI,
    GEMINI_JSON,
    GEMINI_JSON_STRICT,
    GEMINI_OUTPUT,
    GEMINI_TOOLS,
    GEMINI_TOOLS_STRICT,
    OPENAI,
    OPENAI_STRICT,
    Subset,
)

__all__ = [
    "ANTHROPIC",
    "ANTHROPIC_OUTPUT",
    "ANTHROPIC_STRICT",
    "ANTHROPIC_STRICT_OUTPUT",
    "ANY_SERVER",
    "GEMINI",
    "GEMINI_JSON",
    "GEMINI_JSON_STRICT",
    "GEMINI_OUTPUT",
    "GEMINI_TOOLS",
    "GEMINI_TOOLS_STRICT",
    "OPENAI",
    "OPENAI_STRICT",
    "Adapted",
    "Inexpressible",
    "Subset",
    "adapt",
]
