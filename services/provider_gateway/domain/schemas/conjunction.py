"""Two schemas as one that takes what both take: how allOf, and what stands beside anyOf, is said without them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from provider_gateway.domain.schemas.references import Contradiction, Inexpressible, Schema
from provider_gateway.domain.schemas.subsets import ANNOTATIONS

_HIGHEST = frozenset({"minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"})
_LOWEST = frozenset({"maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"})
_OBJECT = frozenset({"properties", "additionalProperties"})
_ITEMS = frozenset({"items", "prefixItems"})


def both(one: Schema, other: Schema, path: str) -> Schema:
    """The schema of what one and other take. Neither has a $ref or allOf at its top. Raises Inexpressible where it cannot be said.

    What only their parts have in common is said by an allOf within: whoever walks on resolves it.
    """
    for key in ("unevaluatedProperties", "unevaluatedItems"):
        if key in one or key in other:
            raise _stuck(path, key)
    merged = {key: value for key, value in one.items() if key not in _OBJECT}
    for key, value in other.items():
        if key in _OBJECT:
            continue
        if key not in merged:
            merged[key] = value
        elif key not in ANNOTATIONS and not same(merged[key], value):
            merged[key] = _narrower(key, merged[key], value, path)
    if ("prefixItems" in one) != ("prefixItems" in other) and _ITEMS & one.keys() and _ITEMS & other.keys():
        raise _stuck(path, "prefixItems")
    return merged | _object(one, other, path)


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal as JSON Schema has it: 1 and 1.0 are, 1 and true are not."""
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(value, other[key]) for key, value in one.items())
    return bool(one == other)


def types_of(node: Schema) -> list[str] | None:
    """The types that a schema names, None where it names none."""
    given = node.get("type")
    return None if given is None else [given] if isinstance(given, str) else list(given)


def _narrower(key: str, one: Any, other: Any, path: str) -> Any:
    if key in _HIGHEST:
        return max(one, other)
    if key in _LOWEST:
        return min(one, other)
    if key not in _RULES:
        raise _stuck(path, key)
    return _RULES[key](one, other, path)


def _types(one: Any, other: Any, path: str) -> Any:
    left, right = types_of({"type": one}) or [], types_of({"type": other}) or []
    common = [name for name in left if name in right or (name == "integer" and "number" in right)]
    common += [name for name in right if name == "integer" and "number" in left and name not in common]
    if not common:
        raise Contradiction(f"{path}.type", "no value is of both types; remove what contradicts itself")
    return common[0] if len(common) == 1 else common


def _enum(one: list[Any], other: list[Any], path: str) -> list[Any]:
    common = [value for value in one if any(same(value, also) for also in other)]
    if not common:
        raise Contradiction(f"{path}.enum", "no value is in both lists; remove what contradicts itself")
    return common


def _required(one: list[str], other: list[str], _: str) -> list[str]:
    return [*one, *(name for name in other if name not in one)]


def _any_of(one: list[Any], other: list[Any], _: str) -> list[Any]:
    return [{"allOf": [left, right]} for left in one for right in other]


def _each(one: Any, other: Any, _: str) -> Any:
    return {"allOf": [one, other]}


def _either(one: Any, other: Any, _: str) -> bool:
    return bool(one or other)


_RULES: Mapping[str, Callable[[Any, Any, str], Any]] = {
    "type": _types,
    "enum": _enum,
    "required": _required,
    "anyOf": _any_of,
    "items": _each,
    "uniqueItems": _either,
}


def _object(one: Schema, other: Schema, path: str) -> Schema:
    """Properties and additionalProperties, which mean nothing without each other."""
    if not _OBJECT & one.keys() or not _OBJECT & other.keys():
        return {key: node[key] for node in (one, other) for key in _OBJECT if key in node}
    rests = one.get("additionalProperties", True), other.get("additionalProperties", True)
    if rests != (True, True) and ("patternProperties" in one or "patternProperties" in other):
        raise _stuck(path, "patternProperties")
    left, right = one.get("properties", {}), other.get("properties", {})
    properties = {}
    rest = _conjunction(*rests)
    for name in [*left, *(name for name in right if name not in left)]:
        found = _conjunction(left.get(name, rests[0]), right.get(name, rests[1]))
        if found is not False or rest is not False:  # what the rest forbids need not be forbidden by name
            properties[name] = found
    return {"properties": properties} | ({} if rest is True else {"additionalProperties": rest})


def _conjunction(one: Any, other: Any) -> Any:
    if one is False or other is False:
        return False
    if one in (True, {}) or same(one, other):
        return other
    return one if other in (True, {}) else {"allOf": [one, other]}


def _stuck(path: str, key: str) -> Inexpressible:
    return Inexpressible(f"{path}.{key}", "it stands in several places that all hold; write it as one")
