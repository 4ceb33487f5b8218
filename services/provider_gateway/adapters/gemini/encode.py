"""Writes a request in the words of generateContent.

Schemas go where the API takes JSON Schema (parametersJsonSchema, responseJsonSchema), not where it takes its own subset of OpenAPI: the
former knows references, unions and additionalProperties, so their meaning stays.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from provider_gateway.adapters.gemini.contents import PROVIDER, ContentsWriter
from provider_gateway.adapters.gemini.generations import THINKS_BY_LEVEL, generation
from provider_gateway.adapters.gemini.thinking import thinking
from provider_gateway.adapters.wire import adapted_schema, in_order, not_expressible, raw, unmarkable
from provider_gateway.domain.answers import RequestWarning
from provider_gateway.domain.chat import ChatRequest, FormatKind, Sampling, ToolChoiceMode, ToolDefinition
from provider_gateway.domain.schemas import GEMINI_JSON, GEMINI_JSON_STRICT, GEMINI_TOOLS, GEMINI_TOOLS_STRICT, Subset
from provider_gateway.operations.ports import ModelCall

Body = dict[str, Any]

MOST_STOPS = 5
MOST_SEED = 2**31
_TOOL_NAME = re.compile(r"[a-zA-Z_]")
_MODES: Mapping[ToolChoiceMode, str] = {
    ToolChoiceMode.AUTO: "AUTO",
    ToolChoiceMode.NONE: "NONE",
    ToolChoiceMode.REQUIRED: "ANY",
    ToolChoiceMode.NAMED: "ANY",
}


@dataclass(slots=True)
class GeminiEncoder:
    """Writes one request, collecting what had to be adapted."""

    warnings: list[RequestWarning]

    def body(self, call: ModelCall) -> Body:
        """The request's body; the same for whole and streamed answers."""
        request = call.request
        self.warnings += unmarkable(request, PROVIDER)
        writer = ContentsWriter(generation(call.model), self.warnings)
        body: Body = {"contents": writer.contents(request.messages)}
        system = writer.system(request.messages)
        if system:
            body["systemInstruction"] = system
        if request.tools:
            body["tools"] = [{"functionDeclarations": [self._tool(f"tools[{at}]", tool) for at, tool in in_order(request.tools)]}]
        body |= _tool_config(request)
        config = self._config(call)
        if config:
            body["generationConfig"] = config
        if request.metadata:
            self._warn("metadata", f"{', '.join(sorted(request.metadata))} stay in behest's records; {PROVIDER} takes none")
        return body

    def _config(self, call: ModelCall) -> Body:
        request = call.request
        config = _sampling(request.sampling) | self._format(request, call.model)
        thought = thinking(request.sampling.reasoning_effort, call.model, request.sampling.max_output_tokens)
        if thought.fields:
            config["thinkingConfig"] = thought.fields
        if thought.adapted:
            self._warn("sampling.reasoning_effort", thought.adapted)
        return config

    def _tool(self, path: str, tool: ToolDefinition) -> Body:
        if not _TOOL_NAME.match(tool.name):
            raise not_expressible(f"{path}.name", PROVIDER, "names of tools begin with a letter or an underscore")
        body: Body = {"name": tool.name}
        if tool.description:
            body["description"] = tool.description
        if tool.parameters:
            subset = GEMINI_TOOLS_STRICT if tool.strict else GEMINI_TOOLS
            body["parametersJsonSchema"] = self._schema(tool.parameters, subset, f"{path}.parameters")
        return body

    def _format(self, request: ChatRequest, model: str) -> Body:
        answer = request.response_format
        if answer.kind not in (FormatKind.JSON_OBJECT, FormatKind.JSON_SCHEMA):
            return {}
        if request.tools and generation(model) < THINKS_BY_LEVEL:
            remedy = "models before Gemini 3 answer in JSON only without tools; leave one of them out, or choose a newer model"
            raise not_expressible("response_format.kind", PROVIDER, remedy)
        config: Body = {"responseMimeType": "application/json"}
        if answer.kind is FormatKind.JSON_SCHEMA:
            subset = GEMINI_JSON_STRICT if answer.strict else GEMINI_JSON
            config["responseJsonSchema"] = self._schema(answer.schema, subset, "response_format.schema")
        return config

    def _schema(self, schema: bytes, subset: Subset, path: str) -> Any:
        return raw(adapted_schema(schema, subset, path, PROVIDER, self.warnings))

    def _warn(self, path: str, message: str) -> None:
        self.warnings.append(RequestWarning(path, message))


def _tool_config(request: ChatRequest) -> Body:
    if not request.tools:
        return {}
    if request.parallel_tool_calls is False:
        remedy = "it calls as many tools at once as it likes; leave the field unset and run the calls one after another"
        raise not_expressible("parallel_tool_calls", PROVIDER, remedy)
    choice = request.tool_choice
    mode = _MODES.get(choice.mode, "")
    if mode in ("", "AUTO") and any(tool.strict for tool in request.tools):
        mode = "VALIDATED"  # free to call, and held to the schemas when it does; ANY holds to them anyway
    if not mode:
        return {}
    config: Body = {"mode": mode}
    if choice.mode is ToolChoiceMode.NAMED:
        config["allowedFunctionNames"] = [choice.name]
    return {"toolConfig": {"functionCallingConfig": config}}


def _sampling(sampling: Sampling) -> Body:
    if len(sampling.stop) > MOST_STOPS:
        raise not_expressible("sampling.stop", PROVIDER, f"it takes at most {MOST_STOPS} texts")
    if sampling.seed is not None and not -MOST_SEED <= sampling.seed < MOST_SEED:
        raise not_expressible("sampling.seed", PROVIDER, "its seeds have 32 bits")
    config: Body = {
        "temperature": sampling.temperature,
        "topP": sampling.top_p,
        "maxOutputTokens": sampling.max_output_tokens,
        "stopSequences": list(sampling.stop) or None,
        "seed": sampling.seed,
    }
    return {name: value for name, value in config.items() if value is not None}
