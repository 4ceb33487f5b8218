"""What Claude says its text rests on, as citations of the contract.

A text block is what its citations support as a whole, so that they have no place within it; the places that they name are the document's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from provider_gateway.domain.chat import Citation


def citations(given: Iterable[Any]) -> tuple[Citation, ...]:
    """The citations, of pages found on the web, of search results and of documents of the request."""
    return tuple(_citation(one) for one in given if isinstance(one, dict))


def _citation(given: dict[str, Any]) -> Citation:
    source = _text(given, "url") or _text(given, "source")
    url = source if source.startswith(("https://", "http://")) else ""
    title = _text(given, "title") or _text(given, "document_title") or ("" if url else source)
    return Citation(url, title, _text(given, "cited_text"))


def _text(given: dict[str, Any], name: str) -> str:
    value = given.get(name)
    return value if isinstance(value, str) else ""
