"""What each provider accepts of JSON Schema, as its documentation has it. Values only: adapting.py obeys them."""

from __future__ import annotations

from dataclasses import dataclass, replace


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


BOUNDS = words(
    "minLength maxLength pattern minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minItems maxItems uniqueItems"
    " minProperties maxProperties"
)
"""Keywords that narrow one value without reference to others: without them a schema takes more, and what it takes looks the same."""

ANNOTATIONS = words(
    "$schema $id $comment $anchor $vocabulary title description default examples example deprecated readOnly writeOnly contentEncoding"
    " contentMediaType contentSchema $defs definitions"
)
"""Keywords that allow and forbid nothing."""


@dataclass(frozen=True, slots=True, eq=False)  # each is itself alone, which makes it quick to look up what was adapted to it
class Subset:
    """A provider's part of JSON Schema.

    `keywords` are those it takes as they stand, beside type, properties, required, items, enum and anyOf, which all take.
    `everything`: it takes all of JSON Schema 2020-12 below the root; then only `root_object` and `array_items` mean anything.
    `root_object`: the root must be an object and no alternative of objects. `array_items`: arrays must say what their items are.
    `loosens`: a bound that it cannot express is told in the description, so that the schema takes more than it did; else it is refused.
    `closed`: every object must forbid what it does not list. `complete`: every property must be required.
    `references` and `recursion`: whether $ref stands, also within itself. `type_lists`: whether type may be a list; else there is nullable.
    `formats`: those it knows. `small_items`: minItems may be 0 or 1 only. `texts_only`: enum lists texts only.
    """

    keywords: frozenset[str] = frozenset()
    everything: bool = False
    root_object: bool = True
    array_items: bool = True
    loosens: bool = True
    closed: bool = False
    complete: bool = False
    references: bool = False
    recursion: bool = False
    type_lists: bool = True
    formats: frozenset[str] = frozenset()
    small_items: bool = False
    texts_only: bool = False


_FORMATS = frozenset({"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid"})

OPENAI = Subset(everything=True, references=True, recursion=True)
"""Function parameters of OpenAI and the servers that speak its protocol, when strict is not asked for."""

ANY_SERVER = replace(OPENAI, root_object=False, array_items=False)
"""Servers whose part of JSON Schema is their own: they get it as it is, in the words of 2020-12."""

OPENAI_STRICT = Subset(
    keywords=words("title description pattern minimum maximum exclusiveMinimum exclusiveMaximum multipleOf minItems maxItems"),
    loosens=False,
    closed=True,
    complete=True,
    references=True,
    recursion=True,
    formats=_FORMATS,
)
"""OpenAI's structured outputs: functions and response formats with strict."""

ANTHROPIC = replace(OPENAI, array_items=False)
"""Tools of Anthropic when strict is not asked for."""

ANTHROPIC_STRICT = Subset(
    keywords=frozenset({"title", "description", "default", "pattern", "minItems"}),
    array_items=False,
    loosens=False,
    closed=True,
    references=True,
    formats=_FORMATS | {"uri"},
    small_items=True,
)
"""Anthropic's strict tools."""

ANTHROPIC_STRICT_OUTPUT = replace(ANTHROPIC_STRICT, root_object=False)
"""Anthropic's response formats when strict is asked for."""

ANTHROPIC_OUTPUT = replace(ANTHROPIC_STRICT_OUTPUT, loosens=True)
"""Anthropic's response formats, which are always held to the schema, when strict is not asked for."""

GEMINI_TOOLS = replace(OPENAI, array_items=False)
"""Gemini's functions, described by JSON Schema (parametersJsonSchema), when strict is not asked for."""

GEMINI_JSON = Subset(
    keywords=words("title description minimum maximum minItems maxItems prefixItems additionalProperties"),
    root_object=False,
    array_items=False,
    references=True,
    recursion=True,
    formats=frozenset({"date-time", "date", "time"}),
)
"""Gemini's answers, described by JSON Schema (responseJsonSchema): what it holds the model to. It passes over all else."""

GEMINI_JSON_STRICT = replace(GEMINI_JSON, loosens=False)
"""The same when strict is asked for."""

GEMINI_TOOLS_STRICT = replace(GEMINI_JSON_STRICT, root_object=True)
"""Gemini's functions when strict is asked for."""

GEMINI = Subset(
    keywords=words("title description pattern minimum maximum minLength maxLength minItems maxItems minProperties maxProperties"),
    type_lists=False,
    formats=frozenset({"date-time", "enum", "int32", "int64", "float", "double"}),
    texts_only=True,
)
"""Gemini's function parameters, a part of OpenAPI 3.0 without references."""

GEMINI_OUTPUT = replace(GEMINI, root_object=False)
"""Gemini's response schemas."""
