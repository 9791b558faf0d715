"""The hop chain: a value proves its own TTL and every lower one's successor, and no other."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.crypto.hop_chain import decode_hop_value, hop_anchor, next_hop_value, reaches_anchor

SEEDS = st.binary(min_size=32, max_size=32)


def test_known_answer() -> None:
    # SHA-256 of 32 zero bytes, and of that.
    once = "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925"
    twice = "2b32db6c2c0a6235fb1397e8225ea85e0f0e6e8c7b126d0016ccbde0e667151e"
    assert next_hop_value(bytes(32)).hex() == once
    assert hop_anchor(bytes(32), 2).hex() == twice


@given(SEEDS, st.integers(1, 3))
@settings(max_examples=50)
def test_each_relay_proves_one_ttl_less(seed: bytes, ttl: int) -> None:
    anchor = hop_anchor(seed, ttl)
    value = seed
    for remaining in range(ttl, 0, -1):
        proved = [claimed for claimed in range(-1, 6) if reaches_anchor(value, claimed, anchor)]
        assert proved == [remaining]
        value = next_hop_value(value)
    assert value == anchor
    assert not any(reaches_anchor(anchor, claimed, anchor) for claimed in range(6))


def test_a_chain_hashes_only_32_byte_values() -> None:
    # A shorter value that hashes to the seed would prove one TTL more.
    short = b"short"
    anchor = hop_anchor(sha256(short).digest(), 2)
    assert not reaches_anchor(short, 3, anchor)
    with pytest.raises(ValueError, match="32 bytes"):
        next_hop_value(short)
    with pytest.raises(ValueError, match="TTL"):
        hop_anchor(bytes(32), 0)
    with pytest.raises(ValueError, match="TTL"):
        hop_anchor(bytes(32), 4)


@pytest.mark.parametrize(
    "text", ["", "ab", "0" * 63, "0" * 65, "A" * 64, "0x" + "0" * 62, " " + "0" * 63, "0" * 64 + "\n", "０" * 64]
)
def test_a_hop_value_is_64_lower_case_hex_digits(text: str) -> None:
    with pytest.raises(ValueError):
        decode_hop_value(text)


def test_decodes_lower_case_hex() -> None:
    assert decode_hop_value("0f" * 32) == b"\x0f" * 32
