"""How many tokens a request is, as far as that can be told without its model's tokenizer.

One estimate for everything: what CountTokens answers where the provider does not count, and what budgets set aside before a call. It is
pinned, so that the same request weighs the same everywhere and always; docs/configuration.md describes it to users.

It leans to the high side: a text of ASCII has one token in four characters, other scripts one in three bytes of UTF-8, and a call, a
message and a tool have the few tokens that surround them in a prompt. Pictures and documents have a flat weight, because what a model
makes of them depends on sizes that are not known here.
"""

from __future__ import annotations

from collections.abc import Iterable

from provider_gateway.domain.chat import (
    Blob,
    ChatRequest,
    DocumentPart,
    FormatKind,
    ImagePart,
    JsonPart,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    RefusalPart,
    TextPart,
    ToolCall,
    ToolDefinition,
)
from provider_gateway.domain.embeddings import EmbedInput

ASCII_PER_TOKEN = 4
BYTES_PER_TOKEN = 3  # of characters beyond ASCII: an ideogram is about one token, a Cyrillic letter less, an emoji more
PER_REQUEST = 3
PER_MESSAGE = 4
PER_CALL = 8
PER_TOOL = 12
PER_IMAGE = 1_200  # a picture of about a megapixel, at OpenAI's high detail as at Anthropic
PER_DOCUMENT = 3_000  # one or two pages with text and picture, where the size is not known
DOCUMENT_BYTES_PER_TOKEN = 32


def estimate_input(request: ChatRequest) -> int:
    """Tokens that a model reads for the request: its messages, tools and answer schema."""
    messages = sum([_message(message) for message in request.messages])
    tools = sum([_tool(tool) for tool in request.tools])
    schema = request.response_format
    return PER_REQUEST + messages + tools + (_bytes(schema.schema) if schema.kind is FormatKind.JSON_SCHEMA else 0)


def estimate_inputs(inputs: Iterable[EmbedInput]) -> int:
    """Tokens of what is to be embedded; those given as tokens are counted."""
    return sum([estimate_text(given) if isinstance(given, str) else len(given) for given in inputs])


def estimate_text(text: str) -> int:
    """Tokens of a text: 0 for none, else at least 1."""
    if text.isascii():
        return -(-len(text) // ASCII_PER_TOKEN)
    size, plain = len(text.encode("utf-8", "replace")), len(text.encode("ascii", "ignore"))
    return -(-(plain * BYTES_PER_TOKEN + (size - plain) * ASCII_PER_TOKEN) // (ASCII_PER_TOKEN * BYTES_PER_TOKEN))


def _message(message: Message) -> int:
    calls = sum([_call(call) for call in message.tool_calls]) if message.tool_calls else 0
    return PER_MESSAGE + sum([estimate_part(part) for part in message.parts]) + calls


def estimate_part(part: Part) -> int:
    """Tokens of one part of a message."""
    match part:
        case TextPart(text) | RefusalPart(text):
            return estimate_text(text)
        case JsonPart(data):
            return _bytes(data)
        case ReasoningPart(text, state):
            return estimate_text(text) if text or state is None else _bytes(state.data)
        case ImagePart():
            return PER_IMAGE
        case DocumentPart(blob):
            return _document(blob)
        case OpaquePart(state):
            return _bytes(state.data)


def _document(blob: Blob) -> int:
    if blob.data and blob.media_type.startswith("text/"):
        return _bytes(blob.data)
    return max(PER_DOCUMENT, len(blob.data) // DOCUMENT_BYTES_PER_TOKEN)


def _call(call: ToolCall) -> int:
    return PER_CALL + estimate_text(call.name) + _bytes(call.arguments)


def _tool(tool: ToolDefinition) -> int:
    return PER_TOOL + estimate_text(tool.name) + estimate_text(tool.description) + _bytes(tool.parameters)


def _bytes(data: bytes) -> int:
    return -(-len(data) // ASCII_PER_TOKEN) if data.isascii() else estimate_text(data.decode("utf-8", "replace"))
