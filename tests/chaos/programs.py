"""What the scripted model says: a few programs, drawn from the seed, each a loop of turns with several calls.

A run's input names its program, so the same order gets the same answers from any gateway, before and after a crash.
"""

from __future__ import annotations

from random import Random
from typing import Any

PROGRAMS = 24
TOOLS = ("strike", "charge", "put", "look", "press")
WAITS_MS = (0, 0, 20, 80, 300, 900)


def script(rng: Random) -> dict[str, Any]:
    """The script of the scripted provider."""
    return {"rules": [{"when": {"matches": f"^p{number} "}, "turns": _turns(rng)} for number in range(PROGRAMS)], "delay_ms": 5}


def text(rng: Random, name: str) -> str:
    """An input that starts some program; the name keeps it apart from all others."""
    return f"p{rng.randrange(PROGRAMS)} {name}"


def _turns(rng: Random) -> list[dict[str, Any]]:
    loop = [{"calls": [_call(rng) for _ in range(rng.choice((1, 2, 3, 5)))], **_manner(rng)} for _ in range(rng.randrange(5))]
    return [*loop, {"text": [f"word{number} " for number in range(rng.choice((1, 4, 40)))], **_manner(rng)}]


def _call(rng: Random) -> dict[str, Any]:
    return {"name": rng.choice(TOOLS), "arguments": {"wait_ms": rng.choice(WAITS_MS)}}


def _manner(rng: Random) -> dict[str, Any]:
    manner: dict[str, Any] = {
        "delay_ms": rng.choice((0, 5, 40, 200)),
        "usage": {"input": rng.randrange(1, 500), "output": rng.randrange(1, 99)},
    }
    if rng.random() < 0.1:
        manner["fault"] = {"kind": rng.choice(("unavailable", "rate_limited", "cut")), "times": 1}
    return manner
