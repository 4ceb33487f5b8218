"""How large the values of a request may be. Every check raises RequestInvalid with the field, the bound and what to do."""

from __future__ import annotations

import re
from collections.abc import Mapping

from chassis.faults import RequestInvalid, Violation

MAX_ID = 128
MAX_TITLE = 500
MAX_LABELS = 64
MAX_LABEL_KEY = 128
MAX_LABEL_VALUE = 1024

_ID = re.compile(rf"[A-Za-z0-9_.:-]{{1,{MAX_ID}}}")


def refuse(field: str, problem: str) -> RequestInvalid:
    """The fault for one wrong field."""
    return RequestInvalid(f"{field} {problem}", violations=(Violation(field, problem),))


def check_id(field: str, value: str) -> None:
    """Refuses what is not an id."""
    if _ID.fullmatch(value) is None:
        raise refuse(field, f"must be 1 to {MAX_ID} of a-z, A-Z, 0-9, _, ., : and -")


def check_request_id(value: str) -> None:
    """Refuses a request id that is too long; an empty one means not idempotent."""
    if len(value) > MAX_ID:
        raise refuse("request_id", f"has {len(value)} characters; use at most {MAX_ID}")


def check_title(field: str, value: str) -> None:
    """Refuses a title that is too long."""
    if len(value) > MAX_TITLE:
        raise refuse(field, f"has {len(value)} characters; use at most {MAX_TITLE}")


def check_labels(field: str, labels: Mapping[str, str]) -> None:
    """Refuses too many or too long labels."""
    if len(labels) > MAX_LABELS:
        raise refuse(field, f"has {len(labels)} pairs; use at most {MAX_LABELS}")
    for key, value in labels.items():
        if not 1 <= len(key) <= MAX_LABEL_KEY:
            raise refuse(f"{field}[{key[:40]!r}]", f"has a key of {len(key)} characters; use 1 to {MAX_LABEL_KEY}")
        if len(value) > MAX_LABEL_VALUE:
            raise refuse(f"{field}[{key!r}]", f"has a value of {len(value)} characters; use at most {MAX_LABEL_VALUE}")
