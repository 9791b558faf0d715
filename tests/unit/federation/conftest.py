"""The cities that this room's tests call."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.federation_support import BERLIN, MUNICH, VIENNA, City, federation_of, identity_of


@pytest.fixture
async def cities(tmp_path: Path) -> AsyncIterator[list[City]]:
    """Munich, Vienna and Berlin, at work, none a peer of another; they admit anybody."""
    identities = (
        identity_of("munich.loop", MUNICH),
        identity_of("vienna.loop", VIENNA),
        identity_of("berlin.loop", BERLIN),
    )
    async with federation_of(tmp_path, *identities) as opened:
        yield opened


@pytest.fixture
async def munich(tmp_path: Path) -> AsyncIterator[City]:
    """Munich alone, with nothing at work in the background."""
    async with federation_of(tmp_path, identity_of("munich.loop", MUNICH), started=False) as (city,):
        yield city
