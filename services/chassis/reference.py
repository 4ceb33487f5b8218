"""The reference page of settings, made from the models themselves."""

from __future__ import annotations

import collections.abc
import enum
import json
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from chassis.secret import Secret
from chassis.typewalk import members

_NAMES = {str: "text", int: "whole number", float: "number", bool: "true or false", Path: "path", type(None): "null", Any: "anything"}


def settings_reference(section: str, model: type[BaseModel]) -> str:
    """A Markdown table of all keys below a section: key, type, default, description. `<name>` stands for a name of the user's choice."""
    rows = [f"| `{key}` | {kind} | {default} | {text} |" for key, kind, default, text in _rows(section, model)]
    return "\n".join(["| key | type | default | description |", "|---|---|---|---|", *rows]) + "\n"


Row = tuple[str, str, str, str]
Models = tuple[type[BaseModel], ...]


def _rows(prefix: str, model: type[BaseModel], inside: Models = ()) -> Iterator[Row]:
    for name, info in model.model_fields.items():
        key = f"{prefix}.{info.alias or name}"
        yield key, _cell(type_name(info.annotation)), _cell(_default(info)), _cell(info.description or "")
        by_key: dict[str, list[type[BaseModel]]] = {}
        for below, nested in _nested(info.annotation, key):
            if nested not in inside:
                by_key.setdefault(below, []).append(nested)
        for below, variants in by_key.items():
            yield from _variant_rows(below, variants, (*inside, model))


def _variant_rows(prefix: str, variants: list[type[BaseModel]], inside: Models) -> Iterator[Row]:
    """The rows of all variants: what they share once, then what each has of its own, with the tag that chooses it."""
    rows = [list(_rows(prefix, variant, inside)) for variant in variants]
    shared = [row for row in rows[0] if all(row in others for others in rows)]
    yield from shared
    for variant, own in zip(variants, rows, strict=True):
        for key, kind, default, text in own:
            if (key, kind, default, text) not in shared:
                yield key, kind, default, f"{_tag(variant)}{text}"


def _tag(variant: type[BaseModel]) -> str:
    for name, info in variant.model_fields.items():
        if get_origin(info.annotation) is Literal and len(get_args(info.annotation)) == 1:
            return f"({name} `{get_args(info.annotation)[0]}`) "
    return ""


def _nested(annotation: Any, key: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """The models below an annotation, each with the key that leads into it."""
    for member in members(annotation):
        arguments = get_args(member)
        if _is(member, BaseModel):
            yield key, member
        elif _is(get_origin(member), collections.abc.Mapping) and len(arguments) == 2:
            yield from _nested(arguments[1], f"{key}.<name>")
        elif _is(get_origin(member), collections.abc.Collection) and arguments:
            yield from _nested(arguments[0], f"{key}[]")


def _is(kind: Any, parent: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, parent)


def type_name(annotation: Any) -> str:
    """A type as a user of YAML would call it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_name(argument) for argument in arguments))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if _is(origin, collections.abc.Mapping):
        return f"{type_name(arguments[1])} by name"
    if _is(origin, collections.abc.Collection):
        return f"list of {type_name(arguments[0])}"
    return _simple_name(annotation)


def _simple_name(kind: Any) -> str:
    if _is(kind, Secret):
        return str(kind.described)
    if _is(kind, enum.Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    if _is(kind, BaseModel):
        return "section"
    return _NAMES.get(kind) or str(getattr(kind, "__name__", kind))


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True, validated_data={})
    if isinstance(value, BaseModel):
        return ""
    return f"`{json.dumps(value, default=_plain, ensure_ascii=False)}`"


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    if isinstance(value, enum.Enum):
        return value.value
    return sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
