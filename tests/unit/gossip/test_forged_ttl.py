"""A million attempts to show a higher TTL than the value that reached a relay can prove."""

from random import Random

from loopd.crypto.hop_chain import hop_anchor, next_hop_value, reaches_anchor
from loopd.protocol.limits import FLOOD_TTL_MAX

ATTEMPTS = 1_000_000


def test_no_forged_ttl_is_believed() -> None:
    random = Random(11)
    believed = honest = attempts = 0
    while attempts < ATTEMPTS:
        seed = random.randbytes(32)
        anchor = hop_anchor(seed, FLOOD_TTL_MAX)
        # A relay was sent TTL 2 or 1; what it knows are that value and its hashes, up to the anchor.
        received = next_hop_value(seed)
        for ttl in (2, 1):
            honest += reaches_anchor(received, ttl, anchor)
            known = [received, next_hop_value(received), next_hop_value(next_hop_value(received)), anchor, bytes(32)]
            flipped = bytearray(received)
            flipped[random.randrange(32)] ^= 1 << random.randrange(8)
            known += [bytes(flipped), received[::-1], received[:31], received + b"\0"]
            known += [random.randbytes(32) for _ in range(40)]
            for value in known:
                for claimed in range(ttl + 1, FLOOD_TTL_MAX + 2):
                    believed += reaches_anchor(value, claimed, anchor)
                    attempts += 1
            received = next_hop_value(received)
    assert believed == 0
    assert honest > 0
