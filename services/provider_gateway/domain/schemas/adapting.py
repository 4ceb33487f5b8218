"""Says a JSON Schema in a provider's part of it, or says where that cannot be done.

A schema that needs no change comes back byte for byte, so that adapting twice is adapting once and prompts stay cacheable.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

from provider_gateway.domain.schemas.flattening import Flattening
from provider_gateway.domain.schemas.modern import modern, within
from provider_gateway.domain.schemas.references import Inexpressible, References, Schema
from provider_gateway.domain.schemas.rewriting import Rewriting
from provider_gateway.domain.schemas.subsets import Subset

CACHED_BYTES = 32 * 1024
"""Larger schemas are adapted anew each time, so that the cache of 512 holds some ten megabytes at most."""


@dataclass(frozen=True, slots=True)
class Adapted:
    """The schema as the provider takes it. `loosened` names the bounds that it lost, as paths relative to the schema."""

    schema: bytes
    loosened: tuple[str, ...] = ()


def adapt(schema: bytes, subset: Subset) -> Adapted:
    """The schema in the words of the subset. Raises Inexpressible; schema must be a JSON object."""
    return _cached(schema, subset) if len(schema) <= CACHED_BYTES else _adapted(schema, subset)


def _adapted(schema: bytes, subset: Subset) -> Adapted:
    try:
        root = json.loads(schema)
        return _rewritten(root, schema, subset)
    except RecursionError:
        raise Inexpressible("", "it is nested too deeply; flatten it") from None
    except (AttributeError, KeyError, TypeError, ValueError):  # a keyword whose value no schema has, as a number of properties
        raise Inexpressible("", "it is not a JSON Schema; mend its keywords") from None


_cached = functools.lru_cache(maxsize=512)(_adapted)  # tool schemas come again with every turn


def _rewritten(root: Schema, schema: bytes, subset: Subset) -> Adapted:
    fresh = modern(root)
    looser: list[str] = []
    if subset.everything:
        fresh = _with_items(fresh) if subset.array_items else fresh
        fresh = _rooted(fresh, subset, looser)
    else:
        fresh = Rewriting(fresh, subset, looser).root()
    return Adapted(schema if fresh == root and _same_order(fresh, root) else _written(fresh), tuple(looser))


def _written(schema: Schema) -> bytes:
    try:
        return json.dumps(schema, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:  # half a character, which JSON can say and UTF-8 cannot
        return json.dumps(schema, allow_nan=False, separators=(",", ":")).encode()


def _same_order(one: Any, other: Any) -> bool:
    """Whether equal values were written in the same order: models see the order, and 1 equals true in Python."""
    return json.dumps(one) == json.dumps(other)


def _with_items(node: Schema) -> Schema:
    """Arrays that say what their items are, for servers that insist: anything."""
    found = within(node, _with_items)
    return found | {"items": {}} if found.get("type") == "array" and "items" not in found else found


def _rooted(root: Schema, subset: Subset, looser: list[str]) -> Schema:
    """The root as an object, which arguments always are; all else as it stands."""
    if not subset.root_object:
        return root
    if not {"anyOf", "oneOf", "allOf", "$ref", "enum", "not"} & root.keys():
        if root.get("type") == "object":
            return root
        if "type" not in root:
            return {"type": "object"} | root
    return Flattening(subset, References(root), looser).object_root(root)
