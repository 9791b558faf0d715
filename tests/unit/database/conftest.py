"""A fresh database for each test, and a table to write into."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loopd.database import Database, DatabaseSettings
from tests.support import ManualClock
from tests.unit.database.items import make_items


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "loopd.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[Database]:
    async with await Database.create(path, DatabaseSettings(readers=2), ManualClock()) as opened:
        await opened.write(make_items)
        yield opened
