"""Schemas of draft 7 as 2020-12 has them: the few forms that changed, everywhere in a schema, without changing what it takes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from provider_gateway.domain.schemas.references import Schema
from provider_gateway.domain.schemas.subsets import ANNOTATIONS, words

ONE = words("additionalProperties items contains not if then else propertyNames unevaluatedItems unevaluatedProperties contentSchema")
MANY = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
NAMED = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_OLD = ("draft-07", "draft-06", "draft-04")


def modern(root: Schema) -> Schema:
    """The schema in the words of 2020-12; the same object where nothing is to be changed."""
    old = any(draft in str(root.get("$schema", "")) for draft in _OLD)
    found = _modern(root, old)
    return {key: value for key, value in found.items() if key != "$schema"} if old else found


def within(node: Schema, change: Callable[[Any], Any]) -> Schema:
    """The schema with each schema right below it changed; the same object where all stay what they are."""
    changed = {key: _changed(key, value, change) for key, value in node.items()}
    return changed if any(changed[key] is not node[key] for key in node) else node


def _changed(key: str, value: Any, change: Callable[[Any], Any]) -> Any:
    if key in ONE and isinstance(value, dict):
        return change(value)
    if key in MANY and isinstance(value, list):
        fresh = [change(item) if isinstance(item, dict) else item for item in value]
        return fresh if any(new is not item for new, item in zip(fresh, value, strict=True)) else value
    if key in NAMED and isinstance(value, dict):
        named = {name: change(item) if isinstance(item, dict) else item for name, item in value.items()}
        return named if any(named[name] is not value[name] for name in value) else value
    return value


def _modern(node: Schema, old: bool) -> Schema:
    if old and "$ref" in node:  # before 2019 nothing beside a reference meant anything
        node = {key: value for key, value in node.items() if key == "$ref" or key in ANNOTATIONS}
    if isinstance(node.get("items"), list):
        rest = {"items": node["additionalItems"]} if "additionalItems" in node else {}
        node = (
            {key: value for key, value in node.items() if key not in ("items", "additionalItems")} | {"prefixItems": node["items"]} | rest
        )
    if isinstance(node.get("dependencies"), dict):
        node = _dependencies(node)
    return within(node, lambda found: _modern(found, old))


def _dependencies(node: Schema) -> Schema:
    given = node["dependencies"]
    names = {name: value for name, value in given.items() if isinstance(value, list)}
    schemas = {name: value for name, value in given.items() if not isinstance(value, list)}
    fresh = {key: value for key, value in node.items() if key != "dependencies"}
    return fresh | ({"dependentRequired": names} if names else {}) | ({"dependentSchemas": schemas} if schemas else {})
