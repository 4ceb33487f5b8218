"""The time, which no model knows."""

from __future__ import annotations

import difflib
from datetime import datetime
from zoneinfo import ZoneInfo, available_timezones

from tool_executor.tools import ToolFailed, tool


@tool(read_only=True, idempotent=True, open_world=False)
async def time(timezone: str = "UTC") -> dict[str, str]:
    """Get the current date and time in a time zone.

    Use it whenever an answer depends on today's date, the day of the week or the time of day.

    Args:
        timezone: An IANA time zone, such as Europe/Lisbon, America/New_York or UTC.
    """
    now = datetime.now(_zone(timezone))
    return {"time": now.isoformat(timespec="seconds"), "weekday": now.strftime("%A"), "timezone": timezone}


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError; a folder's name is an OSError
        nearest = difflib.get_close_matches(name[:64], available_timezones(), n=3, cutoff=0.5)
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else "; use an IANA name such as Europe/Lisbon"
        raise ToolFailed(f"there is no time zone {name[:64]!r}{hint}") from None
