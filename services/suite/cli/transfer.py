"""Sessions out, in and away: `behest export`, `behest import`, `behest delete`."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

from chassis.faults import SettingsInvalid
from suite.cli.listing import with_client
from suite.cli.outcome import Exit
from suite.cli.output import Output
from suite.cli.reach import Where
from suite.client import Behest

PIECE = 64 * 1024


def run_export(where: Where, session: str, file: Path | None, json: bool | None) -> Exit:
    """`behest export`: the file is there under its name only when it is whole."""
    target = file or Path(f"{session.replace(':', '_')}.behest")

    async def show(client: Behest, output: Output) -> Exit:
        size = await _write(client.export_session(session), target)
        if output.json:
            output.object({"session_id": session, "file": str(target), "bytes": size})
        else:
            output.note(f"{session} → {target} ({size / 1e6:.1f} MB)")
        return Exit.OK

    return with_client(where, show, json)


def run_import(where: Where, file: Path, session: str, json: bool | None) -> Exit:
    """`behest import`."""

    async def show(client: Behest, output: Output) -> Exit:
        with _opened(file) as source:
            answer = await client.import_session(_pieces(source), session)
        if output.json:
            output.message(answer)
        else:
            counts = answer.counts
            output.note(f"{answer.session.id}: {counts.messages} messages, {counts.runs} runs, {counts.events} events")
        return Exit.OK

    return with_client(where, show, json)


def run_delete(where: Where, session: str, json: bool | None) -> Exit:
    """`behest delete`."""

    async def show(client: Behest, output: Output) -> Exit:
        await client.delete_session(session)
        if output.json:
            output.object({"session_id": session, "deleted": True})
        else:
            output.line(f"{session} is deleted")
        return Exit.OK

    return with_client(where, show, json)


async def _write(pieces: AsyncIterator[bytes], target: Path) -> int:
    part = _part(target)
    try:
        with part.open("wb") as file:
            async for piece in pieces:
                await asyncio.to_thread(file.write, piece)
        return _put(part, target)
    finally:
        part.unlink(missing_ok=True)


def _part(target: Path) -> Path:
    """A new file beside the target."""
    number, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    os.close(number)
    return Path(name)


def _put(part: Path, target: Path) -> int:
    return part.replace(target).stat().st_size


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise SettingsInvalid(f"{file} cannot be read: {error.strerror}; name a file that `behest export` wrote") from error


async def _pieces(source: BinaryIO) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(source.read, PIECE):
        yield piece
