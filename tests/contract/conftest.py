"""What the contract tests of the store share: a store on each backend, and a driver at it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kit.store import BACKENDS, Driver, Store, open_driver, open_store


@pytest.fixture(params=sorted(BACKENDS))
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(request.param, tmp_path) as opened:
        yield opened


@pytest.fixture
async def driver(store: Store) -> AsyncIterator[Driver]:
    async with open_driver(store) as opened:
        yield opened
