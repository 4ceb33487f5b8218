"""A process that appends as fast as it can and says what was acknowledged and what was delivered, for tests that kill it.

`python -m kit.store_appender FOLDER WRITERS` prints lines `acked RUN SEQUENCE` and `seen RUN SEQUENCE`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from behest.session.v1 import journal_service_pb2 as pb
from kit.store import Store, appending, assistant, open_driver, open_store_on, opening, stored
from session_store.adapters.sqlite.storage import open_sqlite_storage


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


async def write(store: Store, run: str) -> None:
    session = f"s-{run}"
    await store.journal.OpenRun(opening(run, session, driver_id="d1", request_id=run))
    say("acked", run, 1)
    after = 1
    while True:
        request = appending(run, "d1", after, 2, session_id=session, messages=[stored(f"{run}-{after}", assistant("x" * 50))])
        after = (await store.journal.Append(request)).sequence
        say("acked", run, after)


async def read(store: Store) -> None:
    async for response in store.journal.Follow(pb.FollowRequest(tenant=True)):
        for event in response.events:
            say("seen", event.run_id, event.sequence)


async def main(folder: str, writers: str) -> None:
    path = str(Path(folder) / "store.db")
    async with open_sqlite_storage(path, "full") as storage, open_store_on(storage) as store, open_driver(store):
        await asyncio.gather(read(store), *(write(store, f"r{number}") for number in range(int(writers))))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:3]))
