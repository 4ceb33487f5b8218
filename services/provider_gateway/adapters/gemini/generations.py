"""Which generation of Gemini a model belongs to: what may be said to it depends on that."""

from __future__ import annotations

import re

Generation = tuple[int, int]

NEWEST: Generation = (99, 0)
"""What models whose name has no number are taken for: aliases such as gemini-flash-latest move with the vendor's newest."""

THINKS_BY_BUDGET: Generation = (2, 5)
"""The first generation that thinks; it takes a number of tokens."""

THINKS_BY_LEVEL: Generation = (3, 0)
"""From here on a level is taken, tools and JSON answers go together, tools may give back pictures, and calls carry signatures."""

_NUMBER = re.compile(r"gemini-(\d{1,2})(?:\.(\d{1,2}))?(?![\d])")


def generation(model: str) -> Generation:
    """The generation in a model's name."""
    match = _NUMBER.search(model)
    return (int(match[1]), int(match[2] or 0)) if match else NEWEST
