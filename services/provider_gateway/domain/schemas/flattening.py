"""Takes a schema's composition apart: references that cannot stand, allOf, oneOf, and what stands beside alternatives."""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

from provider_gateway.domain.schemas.conjunction import both, same, types_of
from provider_gateway.domain.schemas.references import Contradiction, Inexpressible, References, Schema
from provider_gateway.domain.schemas.subsets import ANNOTATIONS, Subset

MOST_NODES = 10_000
"""Schemas that one may grow to by writing out references and alternatives."""

_TOLD = 500  # characters of a lost bound in a description


class Flattening:
    """Flattens the nodes of one schema, counting them, and noting in `looser` what was lost on the way."""

    def __init__(self, subset: Subset, references: References, looser: list[str]) -> None:
        self.subset, self.references, self.looser = subset, references, looser
        self._nodes = 0

    def flat(self, node: Any, path: str, *, inline: bool = False) -> Schema:
        """The node with at most one of $ref and anyOf, nothing but annotations beside it, and neither allOf nor oneOf.

        A $ref that the provider takes stands, unless `inline`.
        """
        self._count(path)
        node = _object(node, path)
        if self._stays(node, path) and not inline:
            return {"$ref": node["$ref"]}
        rest = node.get("unevaluatedProperties")
        node = self._merged({key: value for key, value in node.items() if key != "unevaluatedProperties"}, path)
        if "const" in node:
            node = both({key: value for key, value in node.items() if key != "const"}, {"enum": [node["const"]]}, path)
        if rest is not None:
            node = _closed(node, rest, path)
        return self._distributed(self._alternatives(node, path), path)

    def object_root(self, root: Schema) -> Schema:
        """The root as one object schema; alternatives of objects become one that takes what any of them takes."""
        node = self.flat(root, "", inline=True)
        node = self._one_object(node) if "anyOf" in node else node
        types = types_of(node)
        if "enum" in node or (types is not None and "object" not in types):
            raise Inexpressible(".type", "arguments are an object")
        if "not" in node:
            raise Inexpressible(".not", "the whole must be a plain object; move it into a property")
        kept = {key: root[key] for key in ("$defs", "definitions") if key in root}
        return {"type": "object"} | {key: value for key, value in node.items() if key != "type"} | kept

    def lose(self, path: str, key: str, value: Any) -> str:
        """What to tell the model in words because the provider cannot hold it to it; refuses where the caller wanted it held to all."""
        if not self.subset.loosens:
            raise Inexpressible(f"{path}.{key}", "remove it, or do not ask for strict")
        self.looser.append(f"{path}.{key}")
        written = json.dumps(value, ensure_ascii=False)
        return f"{key}: {written if len(written) <= _TOLD else written[:_TOLD] + '…'}"

    def _count(self, path: str) -> None:
        self._nodes += 1
        if self._nodes > MOST_NODES:
            raise Inexpressible(path, f"written out it has more than {MOST_NODES} parts; make it smaller")

    def _stays(self, node: Schema, path: str) -> bool:
        if not self.subset.references or not isinstance(node.get("$ref"), str) or node.keys() - ANNOTATIONS - {"$ref"}:
            return False
        reference: str = node["$ref"]
        named = reference == "#" or (reference.startswith(("#/$defs/", "#/definitions/")) and reference.count("/") == 2)
        recursive = self.references.recursive(reference, path)
        if recursive and not (self.subset.recursion and named):
            raise Inexpressible(f"{path}.$ref", "it refers to itself; write it out to the depth that is needed")
        return named and (recursive or not {"title", "description"} & node.keys())  # what is said beside it is kept by writing it out

    def _merged(self, node: Schema, path: str) -> Schema:
        """The node without $ref and allOf."""
        parts: list[Schema] = []
        if "$ref" in node:
            target = self.references.target(node["$ref"], path)
            if self.references.recursive(node["$ref"], path) and not self.subset.recursion:
                raise Inexpressible(f"{path}.$ref", "it refers to itself; write it out to the depth that is needed")
            parts.append(self.flat(target, path, inline=True))
        for number, part in enumerate(node.get("allOf", ())):
            parts.append(self.flat(part, f"{path}.allOf[{number}]", inline=True))
        merged = {key: value for key, value in node.items() if key not in ("$ref", "allOf", "$defs", "definitions")}
        for part in parts:
            merged = both(merged, part, path)
        return merged

    def _alternatives(self, node: Schema, path: str) -> Schema:
        """The node with anyOf instead of oneOf."""
        if "oneOf" not in node:
            return node
        branches = [self.flat(branch, f"{path}.oneOf[{number}]", inline=True) for number, branch in enumerate(node["oneOf"])]
        fresh = {key: value for key, value in node.items() if key != "oneOf"}
        if not all(_disjoint(one, other) for one, other in combinations(branches, 2)):
            if not self.subset.loosens:
                raise Inexpressible(f"{path}.oneOf", "its alternatives overlap; use anyOf")
            self.looser.append(f"{path}.oneOf")
        return both(fresh, {"anyOf": branches}, path)

    def _distributed(self, node: Schema, path: str) -> Schema:
        """The node with nothing but annotations beside anyOf."""
        if "anyOf" not in node:
            return node
        beside = {key: value for key, value in node.items() if key != "anyOf" and key not in ANNOTATIONS}
        said = {key: value for key, value in node.items() if key in ANNOTATIONS}
        branches = node["anyOf"]
        if beside:
            found = [self._beside(beside, branch, f"{path}.anyOf[{number}]") for number, branch in enumerate(branches)]
            branches = [branch for branch in found if branch is not None]
        if not branches:
            raise Contradiction(f"{path}.anyOf", "none of its alternatives takes any value; name one that does")
        return said | {"anyOf": branches}

    def _beside(self, beside: Schema, branch: Any, path: str) -> Schema | None:
        """The branch with what stands beside it; None when nothing is taken by both."""
        try:
            return both(beside, self.flat(branch, path, inline=True), path)
        except Contradiction:
            return None

    def _one_object(self, node: Schema) -> Schema:
        if not self.subset.loosens:
            raise Inexpressible(".anyOf", "the whole must be one object; put the alternatives into a property")
        branches = [self.flat(branch, f".anyOf[{number}]", inline=True) for number, branch in enumerate(node["anyOf"])]
        if any("anyOf" in branch or types_of(branch) not in (None, ["object"]) for branch in branches):
            raise Inexpressible(".anyOf", "the whole must be one object; put the alternatives into a property")
        fresh = {key: value for key, value in node.items() if key != "anyOf"} | _united(branches)
        describe(fresh, [self.lose("", "anyOf", node["anyOf"])])
        return fresh


def describe(node: Schema, told: list[str]) -> None:
    """Adds what was told to the description."""
    if told:
        said, words = node.get("description"), "; ".join(told)
        node["description"] = f"{said} ({words})" if said else words


def _united(branches: list[Schema]) -> Schema:
    """One object schema that takes what any branch takes, of properties that they name."""
    names = dict.fromkeys(name for branch in branches for name in branch.get("properties", {}))
    properties: dict[str, Any] = {}
    for name in names:
        found: list[Any] = []
        for branch in branches:
            meant = branch.get("properties", {}).get(name)
            if meant is not None and not any(same(meant, known) for known in found):
                found.append(meant)
        properties[name] = found[0] if len(found) == 1 else {"anyOf": found}
    needed = [name for name in names if all(name in branch.get("required", ()) for branch in branches)]
    united: Schema = {"type": "object", "properties": properties} | ({"required": needed} if needed else {})
    closed = all(branch.get("additionalProperties") is False for branch in branches)
    return united | ({"additionalProperties": False} if closed else {})


def _object(node: Any, path: str) -> Schema:
    if node is True:
        return {}
    if not isinstance(node, dict):
        raise Inexpressible(path, "it takes no value at all; leave it out" if node is False else "it is no schema; correct it")
    return node


def _closed(node: Schema, rest: Any, path: str) -> Schema:
    """What unevaluatedProperties says as additionalProperties, which it is where the properties are all in one place."""
    if {"anyOf", "oneOf", "additionalProperties", "patternProperties", "if", "dependentSchemas"} & node.keys():
        raise Inexpressible(f"{path}.unevaluatedProperties", "say it by additionalProperties")
    return node | {"additionalProperties": rest}


def _disjoint(one: Schema, other: Schema) -> bool:
    """Whether surely no value is taken by both."""
    left, right = _types(one), _types(other)
    if left is not None and right is not None and not left & right:
        return True
    if "enum" in one and "enum" in other:
        return not any(same(a, b) for a in one["enum"] for b in other["enum"])
    if left != {"object"} or right != {"object"}:
        return False
    named = set(one.get("required", ())) & set(other.get("required", ()))
    return any(_disjoint(_property(one, name), _property(other, name)) for name in named)


def _property(node: Schema, name: str) -> Schema:
    found = node.get("properties", {}).get(name)
    if not isinstance(found, dict):
        return {}
    return {**found, "enum": [found["const"]]} if "const" in found else found


def _types(node: Schema) -> set[str] | None:
    named = types_of(node)
    return None if named is None else {"number" if name == "integer" else name for name in named}
