"""JSON Schema by jsonschema-rs: passes the official suite, survives regular-expression bombs, and is told never to fetch anything."""

from __future__ import annotations

import itertools
import json
from typing import Any

from chassis.faults import ToolInvalid, Violation
from tool_executor.domain.arguments import MAX_PROBLEMS, MAX_REASON_CHARS, Problem, deeper_than, dotted

MAX_DEPTH = 64
BACKTRACKS = 100_000
PATTERN_BYTES = 1024 * 1024


class JsonSchemas:
    """Compiles schemas. The validator's library is 15 MB, so it is loaded with the first schema."""

    def compile(self, schema: bytes, field: str) -> JsonCheck:
        """The check; raises ToolInvalid."""
        import jsonschema_rs

        document = _read(schema, field)
        patterns = jsonschema_rs.FancyRegexOptions(backtrack_limit=BACKTRACKS, size_limit=PATTERN_BYTES)
        try:
            return JsonCheck(jsonschema_rs.validator_for(document, retriever=_refuse_to_fetch, pattern_options=patterns))
        except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
            raise _invalid(field, f"is not a usable JSON Schema: {_first_line(error)}") from None


class JsonCheck:
    """A compiled schema."""

    def __init__(self, validator: Any) -> None:
        self._validator = validator

    def problems(self, value: object) -> tuple[Problem, ...]:
        """What is wrong with the value, at most ten things."""
        try:
            if self._validator.is_valid(value):
                return ()
            return tuple(_problem(error) for error in itertools.islice(self._validator.iter_errors(value), MAX_PROBLEMS))
        except ValueError as error:  # what JSON cannot hold, such as half a surrogate pair or infinity
            return (Problem("", f"they hold a value that is not JSON: {error}"[:MAX_REASON_CHARS]),)


def _problem(error: Any) -> Problem:
    return Problem(dotted(error.instance_path), str(error.message)[:MAX_REASON_CHARS])


def _read(schema: bytes, field: str) -> dict[str, Any]:
    try:
        document = json.loads(schema)
    except (ValueError, RecursionError) as error:
        raise _invalid(field, f"is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise _invalid(field, "must be a JSON object that describes the value")
    if field.endswith("parameters") and document.get("type", "object") != "object":
        raise _invalid(field, f"must describe an object, since arguments are one, not {document['type']!r}")
    if deeper_than(document, MAX_DEPTH):
        raise _invalid(field, f"is nested more than {MAX_DEPTH} levels deep")
    return document


def _refuse_to_fetch(uri: str) -> Any:
    raise ValueError(f"{uri} lies elsewhere; write the referenced schema into $defs")


def _invalid(field: str, why: str) -> ToolInvalid:
    message = f"{field} {why}"
    return ToolInvalid(message, violations=(Violation(field, why),))


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:MAX_REASON_CHARS]
