"""What a transaction notifies: who wrote, and hints of what. Past what a notification holds it says that there was more."""

from __future__ import annotations

import json
from collections.abc import Sequence

from session_store.operations.ports import Heard, Hint, News

CHANNEL = "session_store"
MAX_BYTES = 7900  # PostgreSQL takes less than 8000
_write = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


def write_hints(writer_id: str, hints: Sequence[Hint], last_number: int) -> str:
    """A notification. Numbers are written relative to a last number, which comes first, so that who commits can move all of them."""
    rows = [[h.news.value, h.tenant, h.session_id, h.run_id, h.number and h.number - last_number, h.driver_id, h.epoch] for h in hints]
    text = _write([writer_id, rows])
    return text if len(text.encode()) <= MAX_BYTES else _write([writer_id, None])


def read_hints(payload: str, own: str) -> Heard | None:
    """What was heard; None when it was said by this process itself. What cannot be read may have been anything."""
    try:
        number, _, text = payload.partition(" ")
        if own and text.startswith(f'["{own}"'):
            return None
        _, rows = json.loads(text)
        if rows is None:
            return Heard(missed=True)
        return Heard(tuple(_hint(int(number), *row) for row in rows))
    except (ValueError, TypeError):
        return Heard(missed=True)


def _hint(last_number: int, news: str, tenant: str, session_id: str, run_id: str, number: int, driver_id: str, epoch: int) -> Hint:
    return Hint(News(news), tenant, session_id, run_id, number and last_number + number, driver_id, epoch)  # type: ignore[arg-type]
