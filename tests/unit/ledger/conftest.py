"""What tests of more than one room between cities need."""

from collections.abc import Iterator

import pytest

from tests.netting_support import NettingPair


@pytest.fixture
def pair() -> Iterator[NettingPair]:
    """Munich and Vienna, whose books hold at the end."""
    made = NettingPair()
    yield made
    made.check()
    made.close()
