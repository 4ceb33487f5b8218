"""Where servers that speak Chat Completions differ: every quirk of a request is a field here, with its reason.

What servers answer differently needs no dialect: the decoder takes all of it from all of them.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from provider_gateway.adapters.openai.effort import EffortWords
from provider_gateway.domain.schemas import ANY_SERVER, OPENAI_STRICT, Subset


class ReasoningBack(enum.Enum):
    """Which reasoning a server wants back with the conversation."""

    THIS_TURN = 1  # within the turn that it belongs to; most servers ignore it afterwards, and some refuse it
    WITH_CALLS = 2  # and with every message that called tools, in all later turns


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one kind of server wants to be spoken to. The defaults are OpenAI's own."""

    name: str = "openai"

    # OpenAI's reasoning models refuse max_tokens; most others know nothing else.
    max_tokens_field: str = "max_completion_tokens"
    # Servers that check their requests strictly refuse stream_options, and report usage in streams unasked.
    stream_usage: bool = True
    # Mistral says random_seed.
    seed_field: str = "seed"
    # Where the end user's id goes; empty where the server would refuse the field.
    user_field: str = "user"
    # How many stop sequences the server takes; 0 where no limit is known. It would answer 400 for more.
    most_stops: int = 4
    # The words of a server for how hard to think.
    efforts: EffortWords = EffortWords.FIELD

    # Mistral's older word for "must call a tool" is any, and its older models know only that.
    required_word: str = "required"
    # Ollama does not look at tool_choice: a forced call would silently be none.
    hears_tool_choice: bool = True
    # llama.cpp takes a choice by name for none at all; showing it that tool alone and demanding a call means what was meant.
    names_tool: bool = True
    # Where the server does not know parallel_tool_calls, it decides itself.
    parallel_field: bool = True
    # Where the server does not know strict, schemas of tools are advice.
    strict_tools: bool = True
    # DeepSeek has the JSON mode only, Perplexity schemas only.
    json_schema: bool = True
    json_object: bool = True

    # OpenAI refuses ids of tool calls with more characters, and other vendors give longer ones; 0 where no limit is known.
    call_id_longest: int = 40
    # Mistral wants exactly nine letters and digits; 0 where any length will do.
    call_id_exactly: int = 0
    # DeepSeek refuses a conversation whose messages with tool calls lack the reasoning that led to them, in whatever turn.
    reasoning_back: ReasoningBack = ReasoningBack.THIS_TURN
    # The field that must be there with every tool call, be it empty, because another vendor's model made the call; empty for none.
    reasoning_required: str = ""
    # Servers that do not know a model's reasoning for what it is leave it in the text, between <think> and </think> at the beginning.
    think_tags: bool = False
    # Some servers end a whole answer with [DONE] alone; from others that would be an answer cut short.
    done_suffices: bool = False

    # Azure takes its key as api-key, puts the model into the path and wants to know its own version.
    key_header: str = "authorization"
    deployments: bool = False
    api_version: str = ""

    # vLLM counts tokens, at an address beside /v1.
    counts: bool = False

    # Inputs of one embedding call, and their tokens together; 0 where only the gateway's own bound holds. Servers that may answer with
    # numbers instead of base64 get fewer, so that long vectors fit into one answer.
    embed_inputs: int = 2048
    embed_tokens: int = 0
    # Whether inputs may be given as tokens.
    embeds_tokens: bool = True
    # Base64 is a quarter of the bytes and a tenth of the parsing. A server that refuses it is not asked again.
    vectors_base64: bool = True
    # Mistral says output_dimension.
    dimensions_field: str = "dimensions"
    # What strict schemas may say: OpenAI's own part of JSON Schema; followers have their own, and get schemas as they are.
    strict: Subset = OPENAI_STRICT
    # How it is told to go on with an assistant message that comes last: last_message, prefix or continue_final_message.
    continue_by: str = "last_message"


OPENAI = Dialect()
COMPATIBLE = Dialect("compatible", max_tokens_field="max_tokens", most_stops=0, call_id_longest=0, embed_inputs=512, strict=ANY_SERVER)

DIALECTS: Mapping[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        OPENAI,
        COMPATIBLE,
        Dialect("azure", key_header="api-key", deployments=True, api_version="2024-10-21"),
        replace(COMPATIBLE, name="vllm", efforts=EffortWords.VLLM, counts=True, continue_by="continue_final_message"),
        replace(
            COMPATIBLE,
            name="ollama",
            hears_tool_choice=False,
            parallel_field=False,
            strict_tools=False,
            user_field="",
            efforts=EffortWords.THREE,
            embeds_tokens=False,
        ),
        replace(COMPATIBLE, name="llama-cpp", names_tool=False, strict_tools=False, user_field="", efforts=EffortWords.TEMPLATE),
        replace(COMPATIBLE, name="groq", max_tokens_field="max_completion_tokens", most_stops=4, efforts=EffortWords.THREE),
        replace(
            COMPATIBLE,
            name="mistral",
            stream_usage=False,
            seed_field="random_seed",
            user_field="",
            required_word="any",
            call_id_exactly=9,
            continue_by="prefix",
            embed_tokens=12_000,  # its calls take 16,000, and the estimate may be low
            embeds_tokens=False,
            vectors_base64=False,
            dimensions_field="output_dimension",
        ),
        replace(
            COMPATIBLE,
            name="deepseek",
            most_stops=16,
            seed_field="",
            user_field="",
            parallel_field=False,
            strict_tools=False,
            json_schema=False,
            efforts=EffortWords.DEEPSEEK,
            reasoning_back=ReasoningBack.WITH_CALLS,
            reasoning_required="reasoning_content",
            continue_by="prefix",
            embed_inputs=0,
        ),
        replace(COMPATIBLE, name="openrouter", most_stops=4, efforts=EffortWords.OBJECT),
        replace(COMPATIBLE, name="moonshot", most_stops=5, efforts=EffortWords.SWITCH, embed_inputs=0),
        replace(COMPATIBLE, name="xai", efforts=EffortWords.FIELD),
        replace(
            COMPATIBLE, name="perplexity", think_tags=True, json_object=False, parallel_field=False, strict_tools=False, embed_inputs=0
        ),
        replace(COMPATIBLE, name="together"),
        replace(COMPATIBLE, name="alibaba", efforts=EffortWords.QWEN, embed_inputs=10, embeds_tokens=False, vectors_base64=False),
    )
}


@dataclass(frozen=True, slots=True)
class Home:
    """Where a vendor's own service is, and which variable its key is in by custom."""

    base_url: str
    variable: str


HOMES: Mapping[str, Home] = {
    "openai": Home("https://api.openai.com/v1", "OPENAI_API_KEY"),
    "groq": Home("https://api.groq.com/openai/v1", "GROQ_API_KEY"),
    "mistral": Home("https://api.mistral.ai/v1", "MISTRAL_API_KEY"),
    "deepseek": Home("https://api.deepseek.com/v1", "DEEPSEEK_API_KEY"),
    "openrouter": Home("https://openrouter.ai/api/v1", "OPENROUTER_API_KEY"),
    "moonshot": Home("https://api.moonshot.ai/v1", "MOONSHOT_API_KEY"),
    "xai": Home("https://api.x.ai/v1", "XAI_API_KEY"),
    "perplexity": Home("https://api.perplexity.ai", "PERPLEXITY_API_KEY"),
    "together": Home("https://api.together.xyz/v1", "TOGETHER_API_KEY"),
    "alibaba": Home("https://dashscope-intl.aliyuncs.com/compatible-mode/v1", "DASHSCOPE_API_KEY"),
}

_HOSTS: Mapping[str, str] = {
    **{str(urlsplit(home.base_url).hostname): name for name, home in HOMES.items()},
    "codestral.mistral.ai": "mistral",
    "api.moonshot.cn": "moonshot",
    "api.together.ai": "together",
    "dashscope.aliyuncs.com": "alibaba",
    "dashscope-us.aliyuncs.com": "alibaba",
    "ollama.com": "ollama",
}
_AZURE = (".openai.azure.com", ".cognitiveservices.azure.com", ".services.ai.azure.com")
_OLLAMA_PORT = 11434


def dialect_at(base_url: str) -> str:
    """The dialect of the server at this address, as far as the address tells; else compatible."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    if host.endswith(_AZURE):
        return "azure"
    return _HOSTS.get(host) or ("ollama" if parts.port == _OLLAMA_PORT else "compatible")


def variable_at(base_url: str) -> str:
    """The variable that holds the key for this address by custom; empty where none is known."""
    name = dialect_at(base_url)
    if name == "azure":
        return "AZURE_OPENAI_API_KEY"
    home = HOMES.get(name)
    return home.variable if home and _HOSTS.get(urlsplit(base_url).hostname or "") == name else ""
