"""The small node that this room's tests call."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.unit.api.harness import Harness, serve


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Harness]:
    async with serve(tmp_path) as harness:
        yield harness
