"""Writes a flattened schema keyword by keyword in a provider's part of JSON Schema."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from provider_gateway.domain.schemas.conjunction import same, types_of
from provider_gateway.domain.schemas.flattening import Flattening, describe
from provider_gateway.domain.schemas.references import Contradiction, Inexpressible, References, Schema
from provider_gateway.domain.schemas.subsets import BOUNDS, Subset, words

_LOGIC = words(
    "not if then else dependentSchemas dependentRequired patternProperties propertyNames contains minContains maxContains"
    " unevaluatedItems $dynamicRef $recursiveRef"
)
_OF_TYPE = {
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"}),
    "object": frozenset({"properties", "required", "additionalProperties", "minProperties", "maxProperties"}),
    "number": frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}),
}
_OF_TYPE["integer"] = _OF_TYPE["number"]
_ALL_TYPED: frozenset[str] = frozenset().union(*_OF_TYPE.values())
_FIRST = ("type", "title", "description")
_STRUCTURE = frozenset({"type", "enum", "properties", "required", "additionalProperties", "items", "prefixItems", "anyOf", "nullable"})


class Rewriting:
    """Writes one schema for one subset, noting in `looser` the bounds that it lost."""

    def __init__(self, root: Schema, subset: Subset, looser: list[str]) -> None:
        self._root, self._subset = root, subset
        self._flattening = Flattening(subset, References(root), looser)
        self._definitions: dict[str, Any] = {}

    def root(self) -> Schema:
        """The whole schema."""
        if self._subset.root_object:
            node = self._flattening.object_root(self._root)
            written = self._typed({key: value for key, value in node.items() if key not in ("$defs", "definitions")}, "")
        else:
            written = self._schema(self._root, "")
            if "$ref" in written:  # a root is written out
                written = self._flat_schema(self._flattening.flat(self._root, "", inline=True), "")
        return written | self._defined(written)

    def _defined(self, root: Schema) -> Schema:
        """The definitions that what was written refers to; writing one may bring up others. An alternative that was dropped needs none."""
        written: dict[str, Any] = {}
        wanted = set(self._referred(root))
        while missing := sorted(wanted - written.keys()):
            for name in missing:
                reference, definition = self._definitions[name]
                written[name] = self._schema(definition, reference.removeprefix("#").replace("/", "."))
                wanted.update(self._referred(written[name]))
        return {"$defs": {name: written[name] for name in sorted(written)}} if written else {}

    def _referred(self, node: Any) -> Iterator[str]:
        """The definitions that a written node refers to."""
        if isinstance(node, dict):
            name = str(node.get("$ref", "")).removeprefix("#/$defs/")
            if name in self._definitions:
                yield name
            node = list(node.values())
        if isinstance(node, list):
            for inner in node:
                yield from self._referred(inner)

    def _schema(self, node: Any, path: str) -> Schema:
        return self._flat_schema(self._flattening.flat(node, path), path)

    def _flat_schema(self, node: Schema, path: str) -> Schema:
        if "$ref" in node:
            return self._reference(node["$ref"], path)
        return self._any_of(node, path) if "anyOf" in node else self._typed(node, path)

    def _reference(self, reference: str, path: str) -> Schema:
        if reference == "#":
            return {"$ref": "#"}
        name = reference.rpartition("/")[2]
        known = self._definitions.setdefault(name, (reference, self._flattening.references.target(reference, path)))
        if known[0] != reference:  # $defs and definitions both have one of that name
            raise Inexpressible(f"{path}.$ref", f"two definitions are called {name}; rename one")
        return {"$ref": f"#/$defs/{name}"}

    def _any_of(self, node: Schema, path: str, *, split: bool = False) -> Schema:
        """Alternatives, which stand in the schema as given unless it was split into its types."""
        written: list[Schema] = []
        for number, branch in enumerate(node["anyOf"]):
            found = self._branch(branch, path if split else f"{path}.anyOf[{number}]")
            written += [one for one in found if not any(same(one, known) for known in written)]
        if not written:
            raise Contradiction(f"{path}.anyOf", "none of its alternatives takes any value; name one that does")
        said = {key: node[key] for key in node if key in self._subset.keywords}
        if self._subset.type_lists and len(written) > 1:
            return said | {"anyOf": written}
        if self._subset.type_lists:
            return written[0] if "$ref" in written[0] else _ordered(written[0] | said)
        return _nullable_any_of(said, written)

    def _branch(self, branch: Any, path: str) -> list[Schema]:
        """The branch, or its own branches; none when it takes nothing."""
        try:
            found = self._schema(branch, path)
        except Contradiction:
            return []
        alone = found.keys() == {"anyOf"}
        return list(found["anyOf"]) if alone else [found]

    def _typed(self, node: Schema, path: str) -> Schema:
        """A schema without composition: by type, and by alternatives of types where the provider takes one type at a time."""
        for key in node:
            if key in _LOGIC:
                raise Inexpressible(f"{path}.{key}", "say it in the description and check it where the value is used")
        types = _types(node)
        if types is None:
            raise Inexpressible(f"{path}.type", "any value is taken; say which type it has")
        if len(types) == 1 or self._subset.type_lists:
            return self._written(node, types, path)
        return self._any_of({"anyOf": [_of_type(node, name) for name in types]}, path, split=True)

    def _written(self, node: Schema, types: list[str], path: str) -> Schema:
        if "enum" in node:
            node = node | {"enum": _taken(node["enum"], types, path)}
        fresh: Schema = {"type": types[0] if len(types) == 1 else types}
        told: list[str] = []
        if "enum" in node and types != ["null"]:
            self._enum(fresh, node["enum"], told, path)
        if "object" in types:
            self._object(fresh, node, told, path)
        if "array" in types:
            self._array(fresh, node, path)
        idle = _ALL_TYPED - frozenset().union(*(_OF_TYPE.get(name, frozenset()) for name in types))
        for key, value in node.items():
            if key not in fresh and key not in _STRUCTURE and key not in idle:
                self._keyword(fresh, key, value, told, path)
        if node.get("nullable") is True and not self._subset.type_lists:
            fresh["nullable"] = True
        describe(fresh, told)
        return _ordered(fresh)

    def _keyword(self, fresh: Schema, key: str, value: Any, told: list[str], path: str) -> None:
        if key == "format":
            if value in self._subset.formats:
                fresh["format"] = value
        elif key == "minItems" and self._subset.small_items and value not in (0, 1):
            told.append(self._flattening.lose(path, key, value))
        elif key in self._subset.keywords:
            fresh[key] = value
        elif key in BOUNDS:
            told.append(self._flattening.lose(path, key, value))
        # all else is an annotation, known or not, and allows or forbids nothing

    def _enum(self, fresh: Schema, values: list[Any], told: list[str], path: str) -> None:
        nested = any(isinstance(value, dict | list) for value in values)
        if nested and self._subset.closed:
            raise Inexpressible(f"{path}.enum", "it lists objects or arrays; describe them instead")
        if nested or (self._subset.texts_only and not all(isinstance(value, str) for value in values)):
            told.append(self._flattening.lose(path, "enum", values))
        else:
            fresh["enum"] = values

    def _object(self, fresh: Schema, node: Schema, told: list[str], path: str) -> None:
        properties, rest = node.get("properties", {}), node.get("additionalProperties")
        required = list(dict.fromkeys(node.get("required", ())))
        unlisted = [name for name in required if name not in properties]
        if unlisted:
            raise Inexpressible(f"{path}.required", f"{unlisted[0]!r} is not among the properties; describe it there")
        if self._subset.complete:
            for name in properties:
                if name not in required:
                    raise Inexpressible(
                        f"{path}.properties.{name}", "strict wants it required; require it and let it be null, or do not ask for strict"
                    )
        if properties or self._subset.closed:
            fresh["properties"] = {name: self._schema(value, f"{path}.properties.{name}") for name, value in properties.items()}
        if required:
            fresh["required"] = required
        if self._subset.closed and rest is None and "properties" not in node:
            raise Inexpressible(f"{path}.additionalProperties", "any properties are taken; list them")
        self._rest(fresh, rest, told, path)

    def _rest(self, fresh: Schema, rest: Any, told: list[str], path: str) -> None:
        """What is not listed among the properties. A schema that does not say is taken to list all where the provider demands it."""
        if self._subset.closed:
            if rest not in (None, False):
                raise Inexpressible(f"{path}.additionalProperties", "the provider wants it false; list the properties")
            fresh["additionalProperties"] = False
        elif "additionalProperties" in self._subset.keywords:
            if rest is not None:
                fresh["additionalProperties"] = rest if isinstance(rest, bool) else self._schema(rest, f"{path}.additionalProperties")
        elif isinstance(rest, dict) and rest:
            told.append(self._flattening.lose(path, "additionalProperties", rest))

    def _array(self, fresh: Schema, node: Schema, path: str) -> None:
        if "prefixItems" in node and "prefixItems" in self._subset.keywords:
            self._tuple(fresh, node, path)
            return
        if "prefixItems" in node:
            raise Inexpressible(f"{path}.prefixItems", "say it by items that are all alike, or by an object")
        if node.get("items") is False:
            raise Inexpressible(f"{path}.items", "an array that is always empty says nothing; leave it out")
        if "items" in node or self._subset.array_items or not self._subset.loosens:
            fresh["items"] = self._schema(node.get("items", True), f"{path}.items")

    def _tuple(self, fresh: Schema, node: Schema, path: str) -> None:
        """The first items one by one; that there are no others is said by their number."""
        first, rest = node["prefixItems"], node.get("items")
        fresh["prefixItems"] = [self._schema(item, f"{path}.prefixItems[{number}]") for number, item in enumerate(first)]
        if rest is False:
            fresh["maxItems"] = min(len(first), node.get("maxItems", len(first)))
        elif isinstance(rest, dict):
            fresh["items"] = self._schema(rest, f"{path}.items")


def _ordered(node: Schema) -> Schema:
    """The node with what it is at the front, wherever that was found: the same node is always written alike."""
    return {key: node[key] for key in _FIRST if key in node} | node


def _nullable_any_of(said: Schema, written: list[Schema]) -> Schema:
    """Alternatives where null is not one of them but a quality of each."""
    plain = [one for one in written if one.get("type") != "null"]
    null = len(plain) < len(written)
    if not plain:
        return said | {"type": "null"}
    if len(plain) == 1:
        described = {"description": said["description"]} if "description" in said else {}
        return _ordered(plain[0] | described | ({"nullable": True} if null else {}))
    first = _ordered({"description": said["description"]} | plain[0]) if "description" in said else plain[0]
    branches = [first, *plain[1:]]
    return {"anyOf": [one | {"nullable": True} for one in branches] if null else branches}


def _types(node: Schema) -> list[str] | None:
    """The types that a value may have, from the enum where none is named; None for any."""
    named = types_of(node)
    values = node.get("enum")
    if named is not None or values is None:
        return named
    return list(dict.fromkeys(_type_of(value) for value in values))


def _type_of(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "string"
        case list():
            return "array"
    return "object"


def _takes(name: str, value: Any) -> bool:
    found = _type_of(value)
    return found == name or (name == "number" and found == "integer") or (name == "integer" and found == "number" and value == int(value))


def _taken(values: list[Any], types: list[str], path: str) -> list[Any]:
    """The values of an enum that are of one of the types."""
    taken = [value for value in values if any(_takes(name, value) for name in types)]
    if not taken:
        raise Contradiction(f"{path}.enum", "none of its values has the type; correct one of them")
    return taken


def _of_type(node: Schema, name: str) -> Schema:
    """What the node says of values of one type."""
    idle = _ALL_TYPED - _OF_TYPE.get(name, frozenset())
    return {key: value for key, value in node.items() if key not in idle} | {"type": name}
