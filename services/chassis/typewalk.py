"""Looking into the types of settings models: what may stand at a place."""

from __future__ import annotations

import collections.abc
import enum
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from chassis.secret import Secret

_MAPPINGS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_SEQUENCES = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Set)


def members(annotation: Any) -> Iterator[Any]:
    """The types that an annotation allows, unions and aliases taken apart."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from members(get_args(annotation)[0])
    elif origin in (Union, types.UnionType):
        for member in get_args(annotation):
            yield from members(member)
    else:
        yield annotation


def below(annotation: Any, key: str | int) -> Iterator[Any]:
    """The types that may stand at a key of what the annotation allows."""
    for member in members(annotation):
        origin = get_origin(member) or member
        if isinstance(member, type) and issubclass(member, BaseModel):
            if key in member.model_fields:
                yield from members(member.model_fields[str(key)].annotation)
        elif origin in _MAPPINGS and len(get_args(member)) == 2:
            yield from members(get_args(member)[1])
        elif origin in _SEQUENCES and get_args(member) and isinstance(key, int):
            yield from members(get_args(member)[0])


def types_at(annotation: Any, place: Iterable[str | int]) -> list[Any]:
    """The types that may stand at a place, none when there is no such place."""
    found = list(members(annotation))
    for key in place:
        found = [deeper for annotation in found for deeper in below(annotation, key)]
    return found


def fields_at(annotation: Any, place: Iterable[str | int]) -> dict[str, str]:
    """The names of the fields that models at a place have, with their descriptions."""
    models = [t for t in types_at(annotation, place) if isinstance(t, type) and issubclass(t, BaseModel)]
    return {name: info.description or "" for model in models for name, info in model.model_fields.items()}


def takes_text(found: Iterable[Any]) -> bool:
    """Whether a string may stand there as it is."""
    return any(_is_text(t) for t in found)


def _is_text(kind: Any) -> bool:
    if get_origin(kind) is Literal:
        return any(isinstance(value, str) for value in get_args(kind))
    return isinstance(kind, type) and issubclass(kind, (str, Secret, Path, enum.Enum))


def takes_container(found: Iterable[Any]) -> bool:
    """Whether a mapping or list may stand there."""
    return any((get_origin(t) or t) in (*_MAPPINGS, *_SEQUENCES) or _is_model(t) for t in found)


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)
