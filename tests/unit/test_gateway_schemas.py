"""JSON Schemas in each provider's words take what they took, or are refused by the path of what cannot be said."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import jsonschema_rs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from provider_gateway.domain import schemas
from provider_gateway.domain.schemas import (
    ANTHROPIC,
    ANTHROPIC_OUTPUT,
    ANTHROPIC_STRICT,
    ANTHROPIC_STRICT_OUTPUT,
    GEMINI,
    GEMINI_JSON,
    GEMINI_JSON_STRICT,
    GEMINI_OUTPUT,
    GEMINI_TOOLS,
    GEMINI_TOOLS_STRICT,
    OPENAI,
    OPENAI_STRICT,
    Inexpressible,
    Subset,
)

pytestmark = pytest.mark.feature("P23")

SUBSETS = {
    "openai": OPENAI,
    "openai_strict": OPENAI_STRICT,
    "anthropic": ANTHROPIC,
    "anthropic_strict": ANTHROPIC_STRICT,
    "anthropic_strict_output": ANTHROPIC_STRICT_OUTPUT,
    "anthropic_output": ANTHROPIC_OUTPUT,
    "gemini": GEMINI,
    "gemini_output": GEMINI_OUTPUT,
    "gemini_json": GEMINI_JSON,
    "gemini_json_strict": GEMINI_JSON_STRICT,
    "gemini_tools": GEMINI_TOOLS,
    "gemini_tools_strict": GEMINI_TOOLS_STRICT,
}
STRICT = [OPENAI_STRICT, ANTHROPIC_STRICT]
each_subset = pytest.mark.parametrize("subset", SUBSETS.values(), ids=SUBSETS)


def adapted(schema: Any, subset: Subset) -> Any:
    return json.loads(schemas.adapt(json.dumps(schema).encode(), subset).schema)


def loosened(schema: Any, subset: Subset) -> tuple[str, ...]:
    return schemas.adapt(json.dumps(schema).encode(), subset).loosened


def refused(schema: Any, subset: Subset) -> str:
    with pytest.raises(Inexpressible) as caught:
        adapted(schema, subset)
    return caught.value.path


def of(*, closed: bool = True, **properties: Any) -> dict[str, Any]:
    """An object that needs these properties and, when closed, has no other."""
    node = {"type": "object", "properties": properties, "required": list(properties)}
    return node | ({"additionalProperties": False} if closed else {})


# What is taken: the same values, judged by another implementation of JSON Schema

_NAMES = st.sampled_from(["a", "b", "c"])
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 6) | st.sampled_from([0.5, 2.0, "", "a", "bb", "ccc", "2026-01-01"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=5,
)
_SCALAR = st.sampled_from(["a", "bb", 1, 2, 0.5, True, None])


def _some(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=keywords)


_STRINGS = _some(minLength=st.integers(0, 3), maxLength=st.integers(0, 3), pattern=st.sampled_from(["^a", "b", "c$"])).map(
    lambda bounds: {"type": "string"} | bounds
)
_NUMBERS = st.builds(
    lambda kind, bounds: {"type": kind} | bounds,
    st.sampled_from(["integer", "number"]),
    _some(minimum=st.integers(-1, 3), exclusiveMaximum=st.integers(1, 6), multipleOf=st.sampled_from([1, 2, 0.5])),
)
_PLAIN = st.one_of(
    _STRINGS,
    _NUMBERS,
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}, {"type": ["integer", "string"], "minimum": 2}]),
    st.lists(_SCALAR, min_size=1, max_size=4).map(lambda values: {"enum": values}),
    _SCALAR.map(lambda value: {"const": value}),
    st.sampled_from([{"$ref": "#/$defs/text"}, {"$ref": "#/$defs/pair"}, {"$ref": "#/definitions/old", "description": "an old one"}]),
)


def _objects(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    def build(properties: dict[str, Any], optional: list[str], rest: Any) -> dict[str, Any]:
        node: dict[str, Any] = {"type": "object", "properties": properties, "required": [n for n in properties if n not in optional]}
        return node if rest is None else node | {"additionalProperties": rest}

    return st.builds(
        build,
        st.dictionaries(_NAMES, inner, max_size=3),
        st.just([]) | st.lists(_NAMES, max_size=2),
        st.sampled_from([None, False, False, False, True, {"type": "integer"}]),
    )


def _composed(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(inner, min_size=1, max_size=3)
    return st.one_of(
        _objects(inner),
        _objects(inner),
        st.builds(lambda items, bounds: {"type": "array", "items": items} | bounds, inner, _some(minItems=st.integers(0, 2))),
        several.map(lambda branches: {"anyOf": branches}),
        several.map(lambda branches: {"oneOf": branches}),
        several.map(lambda branches: {"allOf": branches}),
        st.builds(lambda branches, beside: beside | {"anyOf": branches}, several, _NUMBERS),
        st.builds(lambda name, branches: {"type": "object", "required": [name], "anyOf": branches}, _NAMES, several),
    )


_NODES = st.recursive(_PLAIN, _composed, max_leaves=6)
_DEFINITIONS = {
    "$defs": {"text": {"type": "string"}, "pair": of(a={"type": "integer"}, b={"$ref": "#/$defs/text"})},
    "definitions": {"old": {"enum": ["a", "bb"]}},
}
SCHEMAS = _objects(_NODES).map(lambda node: node | _DEFINITIONS)


def judge(schema: Any) -> Callable[[Any], bool]:
    """Whether a schema, in JSON Schema's words or in Gemini's, takes a value."""
    return jsonschema_rs.validator_for(_plain(schema)).is_valid


def _plain(node: Any) -> Any:
    """Gemini's nullable in the words of JSON Schema; all other schemas as they are."""
    if isinstance(node, list):
        return [_plain(item) for item in node]
    if not isinstance(node, dict):
        return node
    plain = {key: _plain(value) for key, value in node.items() if key != "nullable" or value is not True}
    return {"anyOf": [plain, {"type": "null"}]} if node.get("nullable") is True else plain


def _says_all(schema: Any) -> bool:
    """Whether no object leaves open what else it may have: those are closed where a provider demands it."""
    if isinstance(schema, list):
        return all(map(_says_all, schema))
    if not isinstance(schema, dict):
        return True
    return ("properties" not in schema or "additionalProperties" in schema) and all(map(_says_all, schema.values()))


@each_subset
@given(schema=SCHEMAS, values=st.lists(_VALUES, min_size=5, max_size=20))
def test_what_a_schema_took_it_takes_and_where_nothing_was_lost_nothing_else(subset: Subset, schema: Any, values: list[Any]) -> None:
    try:
        found = schemas.adapt(json.dumps(schema).encode(), subset)
    except Inexpressible:
        return
    takes, takes_now = judge(schema), judge(json.loads(found.schema))
    exact = not found.loosened and subset not in (GEMINI, GEMINI_OUTPUT)  # those have no word for "nothing else"
    for value in [*values, {}, {"a": 1}, {"a": "bb", "b": 2}, {"c": None}]:
        took, now = takes(value), takes_now(value)
        if took and (not subset.closed or _says_all(schema)):
            assert now, value
        if now and exact:
            assert took or not isinstance(value, dict), value  # arguments are an object whatever the schema says
    if subset.closed:
        assert all(takes(value) for value in values if takes_now(value)) or found.loosened


@each_subset
@given(schema=SCHEMAS)
@example({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "string"}, "minItems": 2, "uniqueItems": True}}})
@example(of(a={"allOf": [{"enum": ["a"], "description": "an a"}, {"anyOf": [{"type": "string"}]}]}))
@example(
    of(closed=False, a={"anyOf": [{"type": "string"}, of(b={"$ref": "#/$defs/text"}, c={"type": "object", "anyOf": [{"type": "string"}]})]})
    | _DEFINITIONS
)
def test_adapting_twice_is_adapting_once(subset: Subset, schema: Any) -> None:
    try:
        once = schemas.adapt(json.dumps(schema).encode(), subset).schema
    except Inexpressible:
        return
    again = schemas.adapt(once, subset)
    assert again.schema == once
    assert again.loosened == ()


@each_subset
def test_a_schema_that_needs_no_change_keeps_its_bytes(subset: Subset) -> None:
    written = b'{ "type": "object",\n "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": false }'
    if subset not in (GEMINI, GEMINI_OUTPUT):
        assert schemas.adapt(written, subset).schema == written
    plain = written.replace(b', "additionalProperties": false', b"")
    if not subset.closed:
        assert schemas.adapt(plain, subset).schema == plain


# What is refused, and by which path


@pytest.mark.parametrize("subset", [OPENAI_STRICT, ANTHROPIC_STRICT, ANTHROPIC_OUTPUT, GEMINI])
@pytest.mark.parametrize(
    ("node", "place"),
    [
        ({"type": "string", "not": {"const": "a"}}, ".not"),
        ({"if": {"type": "string"}, "then": {"minLength": 2}, "type": "string"}, ".if"),
        ({"type": "object", "properties": {}, "patternProperties": {"^x": {}}, "additionalProperties": False}, ".patternProperties"),
        ({"type": "array", "items": {"type": "string"}, "contains": {"const": "a"}}, ".contains"),
        ({"type": "array", "prefixItems": [{"type": "string"}]}, ".prefixItems"),
        (
            {"anyOf": [{"type": "string"}, {"type": "object", "dependentRequired": {"a": ["b"]}, "properties": {}}]},
            ".anyOf[1].dependentRequired",
        ),
        ({}, ".type"),
        (False, ""),
        ({"$ref": "https://example.com/schema"}, ".$ref"),
        ({"$ref": "#/$defs/nowhere"}, ".$ref"),
        ({"$dynamicRef": "#x", "type": "string"}, ".$dynamicRef"),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, ".type"),
        ({"allOf": [{"type": "string", "pattern": "a"}, {"pattern": "b"}]}, ".pattern"),
        ({"type": "array", "items": {"$ref": "#/properties/x"}}, ".items.$ref"),
    ],
)
def test_what_no_provider_has_words_for_is_refused_by_its_path(subset: Subset, node: Any, place: str) -> None:
    assert refused(of(x=node), subset) == f".properties.x{place}"


@pytest.mark.parametrize(
    ("node", "place"),
    [
        ({"type": "string", "minLength": 1}, ".minLength"),
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, ".uniqueItems"),
        ({"oneOf": [{"type": "string"}, {"type": ["string", "null"]}]}, ".oneOf"),
        ({"type": "object", "properties": {}, "additionalProperties": True}, ".additionalProperties"),
        ({"type": "object"}, ".additionalProperties"),
    ],
)
@pytest.mark.parametrize("subset", STRICT)
def test_strict_refuses_what_the_model_could_not_be_held_to(subset: Subset, node: Any, place: str) -> None:
    assert refused(of(x=node), subset) == f".properties.x{place}"


def test_openai_strict_refuses_an_optional_property_rather_than_let_it_be_null() -> None:
    """Null and absent are two things to the tool that is called."""
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}, "required": ["a"]}
    assert refused(schema, OPENAI_STRICT) == ".properties.b"
    assert adapted(schema, ANTHROPIC_STRICT) == schema | {"additionalProperties": False}


@pytest.mark.parametrize("subset", [ANTHROPIC_STRICT, ANTHROPIC_OUTPUT, GEMINI])
def test_a_schema_that_refers_to_itself_is_refused_where_it_cannot_be_said(subset: Subset) -> None:
    node = of(value={"type": "integer"}, next={"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]})
    schema = of(first={"$ref": "#/$defs/node"}) | {"$defs": {"node": node}}
    assert refused(schema, subset) == ".properties.first.$ref"
    assert adapted(schema, OPENAI_STRICT) == schema


def test_references_that_would_grow_beyond_measure_are_refused() -> None:
    levels = {
        f"l{n}": of(a={"$ref": f"#/$defs/l{n + 1}"}, b={"$ref": f"#/$defs/l{n + 1}"}, c={"$ref": f"#/$defs/l{n + 1}"}) for n in range(12)
    }
    schema = of(x={"$ref": "#/$defs/l0"}) | {"$defs": levels | {"l12": {"type": "string"}}}
    with pytest.raises(Inexpressible, match="more than 10000 parts"):
        adapted(schema, GEMINI)


@each_subset
@pytest.mark.parametrize(
    "schema", [{"$ref": "#"}, {"allOf": [{"$ref": "#"}]}, {"$ref": "#/$defs/a", "$defs": {"a": {"allOf": [{"$ref": "#/$defs/a"}]}}}]
)
def test_a_schema_that_is_nothing_but_itself_is_refused(subset: Subset, schema: Any) -> None:
    with pytest.raises(Inexpressible):
        adapted(schema, subset)


@each_subset
def test_a_schema_nested_without_end_is_refused(subset: Subset) -> None:
    written = b'{"type":"object","properties":{"a":' * 3000 + b'{"type":"string"}' + b"}}" * 3000
    with pytest.raises(Inexpressible, match="nested too deeply"):
        schemas.adapt(written, subset)


# What is said in other words


def test_gemini_gets_references_written_out_null_as_a_quality_and_constants_as_lists() -> None:
    schema = of(
        closed=False,
        one={"$ref": "#/$defs/point", "description": "where"},
        two={"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
        three={"const": "x"},
        four={"type": ["integer", "string", "null"], "minimum": 2},
        five={"oneOf": [of(closed=False, kind={"const": "a"}), of(closed=False, kind={"const": "b"})]},
    ) | {"$defs": {"point": of(closed=False, x={"type": "number"})}}
    point = {"type": "object", "description": "where", "properties": {"x": {"type": "number"}}, "required": ["x"]}
    kinds = [{"type": "object", "properties": {"kind": {"type": "string", "enum": [kind]}}, "required": ["kind"]} for kind in "ab"]
    assert adapted(schema, GEMINI) == {
        "type": "object",
        "properties": {
            "one": point,
            "two": {"type": "string", "nullable": True},
            "three": {"type": "string", "enum": ["x"]},
            "four": {"anyOf": [{"type": "integer", "minimum": 2, "nullable": True}, {"type": "string", "nullable": True}]},
            "five": {"anyOf": kinds},
        },
        "required": ["one", "two", "three", "four", "five"],
    }
    assert loosened(schema, GEMINI) == ()


def test_a_bound_without_words_is_told_in_the_description_and_named() -> None:
    schema = of(closed=False, x={"type": "array", "description": "Names", "items": {"type": "string"}, "uniqueItems": True, "minItems": 2})
    assert adapted(schema, GEMINI)["properties"]["x"]["description"] == "Names (uniqueItems: true)"
    assert adapted(schema, ANTHROPIC_OUTPUT)["properties"]["x"]["description"] == "Names (uniqueItems: true; minItems: 2)"
    assert loosened(schema, ANTHROPIC_OUTPUT) == (".properties.x.uniqueItems", ".properties.x.minItems")


@pytest.mark.parametrize("subset", [OPENAI, ANTHROPIC])
def test_alternatives_at_the_root_become_one_object_that_takes_each_of_them(subset: Subset) -> None:
    schema = {"oneOf": [of(kind={"const": "a"}, x={"type": "integer"}), of(kind={"const": "b"}, y={"type": "string"})]}
    found = adapted(schema, subset)
    assert (found["type"], found["required"]) == ("object", ["kind"])
    assert not {"oneOf", "anyOf"} & found.keys()
    assert found["description"].startswith("anyOf: [")
    assert loosened(schema, subset) == (".anyOf",)


def test_a_pointer_may_be_quoted_in_both_ways() -> None:
    schema = of(closed=False, x={"$ref": "#/$defs/a~1b%20%C3%BC~0"}) | {"$defs": {"a/b ü~": {"type": "string"}}}
    assert adapted(schema, GEMINI)["properties"] == {"x": {"type": "string"}}


def test_what_stands_beside_alternatives_is_put_into_each() -> None:
    schema = of(x={"type": "object", "properties": {"a": {"type": "string"}}, "anyOf": [{"required": ["a"]}, {"required": []}]})
    branches = adapted(schema, ANTHROPIC_STRICT)["properties"]["x"]["anyOf"]
    assert [branch.get("required") for branch in branches] == [["a"], None]
    assert all(branch["properties"] == {"a": {"type": "string"}} for branch in branches)


def test_draft_7_is_read_as_draft_7() -> None:
    old = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "type": "object",
        "properties": {"x": {"$ref": "#/definitions/a", "minLength": 9}, "y": {"type": "array", "items": [{"type": "string"}]}},
        "dependencies": {"x": ["y"]},
        "definitions": {"a": {"type": "string"}},
    }
    found = adapted(old, ANTHROPIC)
    assert found["properties"] == {"x": {"$ref": "#/definitions/a"}, "y": {"type": "array", "prefixItems": [{"type": "string"}]}}
    assert found["dependentRequired"] == {"x": ["y"]}
    assert "$schema" not in found


@pytest.mark.parametrize("subset", [OPENAI, ANTHROPIC])
def test_an_object_without_its_type_and_an_array_without_items_get_them_where_servers_insist(subset: Subset) -> None:
    found = adapted({"properties": {"x": {"type": "array"}}}, subset)
    assert found["type"] == "object"
    assert ("items" in found["properties"]["x"]) is (subset is OPENAI)


@pytest.mark.parametrize("subset", [OPENAI, OPENAI_STRICT, ANTHROPIC, GEMINI])
def test_arguments_that_are_no_object_are_refused(subset: Subset) -> None:
    assert refused({"type": "string"}, subset) == ".type"
    assert refused({"type": "object", "enum": [{}]}, subset) == ".type"


def test_schemas_are_adapted_once_and_large_ones_do_not_stay() -> None:
    large = json.dumps(of(x={"type": "string", "description": "x" * 40_000})).encode()
    assert schemas.adapt(large, OPENAI).schema == large
    small = json.dumps(of(x={"type": "string"})).encode()
    assert schemas.adapt(small, GEMINI) is schemas.adapt(small, GEMINI)
    assert schemas.adapt(large, GEMINI) is not schemas.adapt(large, GEMINI)


@pytest.mark.parametrize("subset", [GEMINI_JSON, GEMINI_JSON_STRICT, GEMINI_TOOLS, GEMINI_TOOLS_STRICT])
def test_gemini_keeps_references_tuples_and_what_stands_beside_the_properties(subset: Subset) -> None:
    schema = {
        "type": "object",
        "properties": {
            "next": {"$ref": "#/$defs/node"},
            "pair": {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": {"type": "null"}},
            "map": {"type": "object", "additionalProperties": {"type": "number"}},
        },
        "additionalProperties": False,
        "$defs": {"node": {"type": "object", "properties": {"next": {"$ref": "#/$defs/node"}}}},
    }
    assert adapted(schema, subset) == schema


def test_that_a_tuple_has_no_more_items_is_said_by_their_number() -> None:
    schema = {"type": "array", "prefixItems": [{"type": "string"}, {"type": "integer"}], "items": False}
    said = {"type": "array", "prefixItems": schema["prefixItems"], "maxItems": 2}
    assert adapted(of(pair=schema), GEMINI_JSON_STRICT) == of(pair=said)
