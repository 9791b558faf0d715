from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.search_support import SearchNode, search_node


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[SearchNode]:
    async with search_node(tmp_path) as found:
        yield found
