import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.protocol.vocabulary import (
    DEFAULT_SIGNAL,
    LOOPD_FEATURES,
    MATERIAL_CATEGORIES,
    NODE_CAPABILITIES,
    PRODUCT_CATEGORIES,
    SIGNAL_KEYS,
    UNITS,
    Feature,
    category_matches,
)


@pytest.mark.parametrize(
    ("words", "count"), [(MATERIAL_CATEGORIES, 30), (PRODUCT_CATEGORIES, 17), (UNITS, 8), (NODE_CAPABILITIES, 7)]
)
def test_the_published_lists_are_whole(words: tuple[str, ...], count: int) -> None:
    assert len(words) == len(set(words)) == count


def test_a_signal_is_set_for_a_material_category_or_for_all_others() -> None:
    assert frozenset({*MATERIAL_CATEGORIES, DEFAULT_SIGNAL}) == SIGNAL_KEYS
    assert not SIGNAL_KEYS & set(PRODUCT_CATEGORIES)


def test_what_only_this_project_speaks_is_no_published_capability() -> None:
    assert Feature.INTEROP not in LOOPD_FEATURES
    assert not LOOPD_FEATURES & set(NODE_CAPABILITIES)


@pytest.mark.parametrize(
    ("category", "pattern", "fits"),
    [
        ("plastic-pet", "plastic-pet", True),
        ("plastic-pet", "plastic-*", True),
        ("plastic-pet", "*", True),
        ("plastic-pet", "metal-*", False),
        ("plastic-pet", "plastic", False),
        ("plastic-pet", "*-pet", False),
        ("plastic-pet", "plastic-pet-*", False),
    ],
)
def test_patterns(category: str, pattern: str, fits: bool) -> None:
    assert category_matches(category, pattern) is fits


@given(st.sampled_from(MATERIAL_CATEGORIES), st.integers(0, 20))
def test_every_prefix_with_a_star_fits(category: str, length: int) -> None:
    assert category_matches(category, category[:length] + "*")
