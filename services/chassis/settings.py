"""Settings: one YAML file and the environment, checked against typed models; every mistake is named at once with its remedy."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import yaml
from pydantic import BaseModel, ValidationError

from chassis.faults import SettingsInvalid, Violation
from chassis.secret import Secret
from chassis.typewalk import fields_at, takes_container, takes_text, types_at

__all__ = ["SECTIONS", "Secret", "load", "load_sections"]

SECTIONS = ("orchestrator", "provider_gateway", "tool_executor", "session_store", "kafka", "log", "telemetry", "data")
PREFIX = "BEHEST__"

M = TypeVar("M", bound=BaseModel)
Path_ = tuple[str | int, ...]

_SECRET = re.compile(r"keys?$|token$|secret|password|credential|authorization", re.IGNORECASE)
_PASSWORD = re.compile(r"(:/*[^\s:@/]*:)\S*@")  # in URLs, misspelt ones too


def load(section: str, model: type[M], file: Path | str | None = None, env: Mapping[str, str] = os.environ) -> M:
    """The settings of one section, from the file and the environment, which wins. Raises SettingsInvalid naming every mistake."""
    return cast(M, load_sections({section: model}, file, env)[section])


def load_sections(
    models: Mapping[str, type[BaseModel]], file: Path | str | None = None, env: Mapping[str, str] = os.environ
) -> dict[str, BaseModel]:
    """The settings of several sections. Other known sections are somebody else's and not looked into."""
    tree = _Tree(dict(models))
    if file is not None:
        tree.read_file(Path(file))
    tree.read_env(env)
    loaded = {section: tree.validated(section, model) for section, model in models.items()}
    if tree.mistakes:
        raise _invalid(tree.mistakes)
    return cast(dict[str, BaseModel], loaded)


@dataclass(frozen=True, slots=True)
class _Mistake:
    path: str
    text: str
    source: str

    def __str__(self) -> str:
        return f"{self.path}: {self.text}" + (f" ({self.source})" if self.source else "")


def _invalid(mistakes: list[_Mistake]) -> SettingsInvalid:
    title = "a setting is wrong" if len(mistakes) == 1 else f"{len(mistakes)} settings are wrong"
    lines = "".join(f"\n  {mistake}" for mistake in mistakes)
    return SettingsInvalid(title + ":" + lines, violations=tuple(Violation(m.path, m.text) for m in mistakes))


@dataclass(slots=True)
class _Tree:
    """The settings as written, with the place each came from, and what is wrong so far."""

    models: dict[str, type[BaseModel]]
    data: dict[str, Any] = field(default_factory=dict)
    sources: dict[Path_, str] = field(default_factory=dict)
    mistakes: list[_Mistake] = field(default_factory=list)

    def read_file(self, path: Path) -> None:
        """Takes the file in."""
        data, lines, repeated = _read_yaml(path)
        self.data = data
        self.sources.update({place: f"{path.name} line {line}" for place, line in lines.items()})
        for place, line in repeated:
            self._wrong(place, f"given twice; the first is in line {lines[place]}; remove one", f"{path.name} line {line}")
        for section in data:
            if section not in SECTIONS:
                self._wrong((section,), f"unknown section{nearest(str(section), SECTIONS)}")

    def read_env(self, env: Mapping[str, str]) -> None:
        """Takes the variables in that begin with BEHEST__."""
        for name in sorted(env):
            if name.startswith(PREFIX):
                self._read_variable(name, env[name])

    def _read_variable(self, name: str, raw: str) -> None:
        section, *keys = name.removeprefix(PREFIX).lower().split("__")
        if section not in SECTIONS:
            self.mistakes.append(_Mistake(name, f"unknown section {section}{nearest(section, SECTIONS)}", "environment"))
        elif section in self.models:
            self._put(name, raw, (section, *keys))

    def _put(self, name: str, raw: str, path: tuple[str, ...]) -> None:
        node: Any = self.data
        place: Path_ = ()
        for key in path[:-1]:
            key = _existing(node, key)
            place = (*place, key)
            node[key] = node.get(key) if node.get(key) is not None else {}
            node = node[key]
            if not isinstance(node, dict):
                return self._wrong(place, f"holds a value, so {name} cannot set a key below it; remove one of them", "environment")
        place = (*place, _existing(node, path[-1]))
        self.sources[place] = name
        try:
            node[place[-1]] = _from_variable(raw, types_at(self.models[path[0]], place[1:]))
        except yaml.YAMLError:
            self._wrong(place, "is not valid YAML; quote it or write JSON", name)
        return None

    def validated(self, section: str, model: type[BaseModel]) -> BaseModel | None:
        """The section as its model, None when it has mistakes."""
        given = self.data.get(section)
        try:
            return model.model_validate({} if given is None else given)
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                self._explain(section, model, cast(dict[str, Any], detail))
            return None

    def _explain(self, section: str, model: type[BaseModel], detail: dict[str, Any]) -> None:
        place = _without_tags(self.data.get(section), detail["loc"], keep_last=detail["type"] in ("missing", "extra_forbidden"))
        self._wrong((section, *place), _text(model, place, detail))

    def _wrong(self, place: Path_, text: str, source: str = "") -> None:
        self.mistakes.append(_Mistake(".".join(map(str, place)), text, source or self._source(place)))

    def _source(self, place: Path_) -> str:
        for end in range(len(place), 0, -1):
            if place[:end] in self.sources:
                return self.sources[place[:end]]
        return ""


def _text(model: type[BaseModel], place: Path_, detail: dict[str, Any]) -> str:
    names = fields_at(model, place[:-1])
    if detail["type"] == "extra_forbidden":
        return f"unknown key{nearest(str(place[-1]), names)}"
    if detail["type"] == "missing":
        description = names.get(str(place[-1]), "")
        return f"missing; set it{': ' + description if description else ''}"
    return f"{_shown(place, detail['input'])} is wrong: {_demand(detail)}"


def _demand(detail: dict[str, Any]) -> str:
    """What has to stand there, in the words of a settings file instead of those of Python."""
    match detail["type"]:
        case "union_tag_not_found":
            return f"it needs the key {detail['ctx']['discriminator']}"
        case "union_tag_invalid":
            return f"{detail['ctx']['discriminator'].strip(chr(39))} must be one of {detail['ctx']['expected_tags']}"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "it must be a mapping of keys to values"
        case "list_type" | "tuple_type" | "set_type" | "frozen_set_type":
            return "it must be a list, such as [a, b]"
    return _lower_first(detail["msg"].removeprefix("Value error, "))


def _shown(place: Path_, value: Any) -> str:
    if any(_SECRET.search(str(key)) for key in place):
        return "the value"
    if isinstance(value, (dict, list)):
        return f"a {'mapping' if isinstance(value, dict) else 'list'}"
    text = _PASSWORD.sub(r"\1…@", repr(value))
    return text if len(text) <= 80 else text[:77] + "…"


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def nearest(name: str, known: Iterable[str]) -> str:
    """What to say after an unknown name: the nearest right one, or all of them when none is near."""
    names = sorted(known)
    close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.6)
    if close:
        return f"; did you mean {close[0]}?"
    return f"; known are {', '.join(names)}" if names else ""


def _existing(node: dict[Any, Any], key: str) -> str:
    """The key of the file that a variable means by its lower-case name with underscores."""
    return next((k for k in node if isinstance(k, str) and k.lower().replace("-", "_") == key), key)


def _from_variable(raw: str, types: list[Any]) -> Any:
    """The value of a variable: itself where text is wanted, else read as YAML, of which JSON is a part."""
    if takes_text(types) and not (takes_container(types) and raw.lstrip()[:1] in ("[", "{")):
        return raw
    return yaml.safe_load(raw) if types else raw


def _without_tags(data: Any, loc: Iterable[str | int], *, keep_last: bool) -> Path_:
    """The place of a mistake in the data: pydantic's, without the names it adds for the members of unions."""
    steps, place = list(loc), []
    for index, step in enumerate(steps):
        if _holds(data, step):
            data = data[step]
        elif not (keep_last and index == len(steps) - 1):
            continue
        place.append(step)
    return tuple(place)


def _holds(data: Any, step: str | int) -> bool:
    if isinstance(data, list):
        return isinstance(step, int) and step < len(data)
    return isinstance(data, dict) and step in data


def _read_yaml(path: Path) -> tuple[dict[str, Any], dict[Path_, int], list[tuple[Path_, int]]]:
    """The file's mapping, the line of each key, and the keys that come twice."""
    try:
        loader = yaml.SafeLoader(path.read_text(encoding="utf-8"))
        node = loader.get_single_node()
        data = {} if node is None else loader.construct_document(node)
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise SettingsInvalid(f"the settings file {path} cannot be read: {why}; name one that can") from None
    except yaml.YAMLError as error:
        raise SettingsInvalid(f"the settings file {path} is not valid YAML: {_problem(error)}") from None
    if not isinstance(data, dict):
        raise SettingsInvalid(f"the settings file {path} must hold sections ({', '.join(SECTIONS)}), not a {type(data).__name__}")
    lines: dict[Path_, int] = {}
    repeated = [] if node is None else list(_walk(node, (), lines))
    return data, lines, repeated


def _problem(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return f"{place}{getattr(error, 'problem', None) or error}; mend it there"


def _walk(node: yaml.Node, place: Path_, lines: dict[Path_, int]) -> Iterable[tuple[Path_, int]]:
    """Notes the line of every key below node; yields the keys that were there already."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            below, line = (*place, key.value), key.start_mark.line + 1
            if below in lines:
                yield below, line
            lines.setdefault(below, line)
            yield from _walk(value, below, lines)
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _walk(value, (*place, index), lines)
