import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.protocol.ids import (
    NODE_ID_MAX_CHARACTERS,
    SUBJECT_ID_MAX_CHARACTERS,
    MaterialId,
    account_node,
    is_exchange_id,
    is_material_id,
    is_node_id,
    is_product_id,
    parse_material_id,
)

UPPER, UNIQUE = string.ascii_uppercase, string.ascii_uppercase + string.digits
PARTS = st.builds(
    MaterialId,
    st.text(UPPER, min_size=2, max_size=2),
    st.text(UPPER, min_size=3, max_size=3),
    st.integers(1000, 9999),
    st.text(UPPER, min_size=1, max_size=20),
    st.text(UNIQUE, min_size=6, max_size=20),
)


@given(PARTS)
def test_the_parts_of_a_material_id_are_read_back(parts: MaterialId) -> None:
    text = f"MAT-{parts.country}-{parts.city}-{parts.year}-{parts.category}-{parts.unique}"
    assert is_material_id(text)
    assert parse_material_id(text) == parts


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MAT-DE-MUC-2025-PLASTIC-B847F",
        "MAT-de-MUC-2025-PLASTIC-B847F3",
        "MAT-DE-MUC-25-PLASTIC-B847F3",
        "MAT-DE-MUC-2025-PLASTIC-PET-B847F3",
        "MAT-DE-MUC-2025-PLASTIC-B847F3\n",
        " MAT-DE-MUC-2025-PLASTIC-B847F3",
        "MAT-DE-MUC-٢٠٢٥-PLASTIC-B847F3",
        "MAT-DE-MÜC-2025-PLASTIC-B847F3",
        "PRD-DE-MUC-2025-PLASTIC-B847F3",
    ],
)
def test_what_is_no_material_id(text: str) -> None:
    assert not is_material_id(text)
    with pytest.raises(ValueError, match="MaterialDNA"):
        parse_material_id(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("PRD-12345678", True),
        ("PRD-DE-MUC-2026-CHAIR-0001", True),
        ("PRD-1234567", False),
        ("PRD-abcdefgh", False),
        ("PRD-12345678\n", False),
        ("PRD-" + "A" * SUBJECT_ID_MAX_CHARACTERS, False),
    ],
)
def test_product_ids(text: str, holds: bool) -> None:
    assert is_product_id(text) is holds


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        ("munich.loop", True),
        ("new-york-2.loop", True),
        ("Munich.loop", False),
        ("munich.loop.example", False),
        (".loop", False),
        ("mu_nich.loop", False),
        ("munich.loop\n", False),
        ("m" * NODE_ID_MAX_CHARACTERS + ".loop", False),
    ],
)
def test_node_ids(text: str, holds: bool) -> None:
    assert is_node_id(text) is holds


@pytest.mark.parametrize(
    ("text", "holds"), [("OFR-2026-0001", True), ("OFR-1", False), ("ofr-2026-0001", False), ("A" * 201, False)]
)
def test_exchange_ids(text: str, holds: bool) -> None:
    assert is_exchange_id(text) is holds


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("user:maria@munich.loop", "munich.loop"),
        ("business:green-foods@vienna.loop", "vienna.loop"),
        ("node:clearing.vienna.loop@munich.loop", "munich.loop"),
        ("maria@munich.loop", None),
        ("user:@munich.loop", None),
        ("user:a@b@munich.loop", None),
        ("user:maria@munich.example", None),
    ],
)
def test_the_node_of_an_account(text: str, node: str | None) -> None:
    assert account_node(text) == node
