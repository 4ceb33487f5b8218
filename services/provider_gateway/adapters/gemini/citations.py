"""What Gemini says its answer rests on, as citations of the answer's text.

Its places are counted in bytes of UTF-8 over the whole text of the answer; the contract's in characters of one part.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from provider_gateway.domain.chat import Citation

Cited = tuple[int, Citation]
"""A citation and which of the texts it belongs to."""


def citations(texts: Sequence[str], grounding: Any, sources: Sequence[Any]) -> list[Cited]:
    """The citations in grounding metadata and in citation metadata, of which there may be several; [] where there is no text."""
    if not texts:
        return []
    places = _Places(texts)
    found = [*_grounded(places, grounding), *(cited for source in sources for cited in _sourced(places, source))]
    return list(dict.fromkeys(found))


class _Places:
    """Finds the part and the characters of a place in the whole text."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._texts = texts
        self._bytes = "".join(texts).encode()

    def cited(self, source: Mapping[str, Any], start: Any, end: Any) -> Cited:
        """The citation of a source, without a place where the given one is none."""
        url, title = str(source.get("uri") or ""), str(source.get("title") or "")
        first = start if isinstance(start, int) else 0
        if not isinstance(end, int) or not 0 <= first < end <= len(self._bytes):
            return len(self._texts) - 1, Citation(url, title)
        begin = len(self._bytes[:first].decode("utf-8", "ignore"))
        stop = len(self._bytes[:end].decode("utf-8", "ignore"))
        for number, text in enumerate(self._texts):
            if begin < len(text) or number == len(self._texts) - 1:
                break
            begin, stop = begin - len(text), stop - len(text)
        return number, Citation(url, title, "", begin, min(stop, len(text)))


def _grounded(places: _Places, grounding: Any) -> Iterator[Cited]:
    chunks = [_page(chunk) for chunk in _list(grounding, "groundingChunks")]
    supports = _list(grounding, "groundingSupports")
    for support in supports:
        segment = support.get("segment")
        place = segment if isinstance(segment, dict) else {}
        indices = support.get("groundingChunkIndices")
        for index in indices if isinstance(indices, list) else ():
            if isinstance(index, int) and 0 <= index < len(chunks):
                yield places.cited(chunks[index], place.get("startIndex"), place.get("endIndex"))
    if not supports:
        yield from (places.cited(chunk, None, None) for chunk in chunks)


def _sourced(places: _Places, metadata: Any) -> Iterator[Cited]:
    """The Gemini API calls the list citationSources, Vertex AI citations."""
    for source in _list(metadata, "citationSources") or _list(metadata, "citations"):
        yield places.cited(source, source.get("startIndex"), source.get("endIndex"))


def _page(chunk: dict[str, Any]) -> dict[str, Any]:
    """The page or document of a chunk, whose kind is the chunk's only field."""
    return next((value for value in chunk.values() if isinstance(value, dict)), {})


def _list(document: Any, name: str) -> list[dict[str, Any]]:
    values = document.get(name) if isinstance(document, dict) else None
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
