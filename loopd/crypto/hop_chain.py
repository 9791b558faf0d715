"""The hash chain that keeps a relay from raising a message's TTL (see docs/protocol-notes.md, Hop chain).

The origin draws a random seed, hashes it `ttl` times and signs the result, the anchor. The seed travels beside the
message as its hop value; each relay hashes it once. Hashing cannot be undone, so nobody can show a TTL above that of
the value which reached it. A relay can pass on its own value unhashed, and so add one hop.
"""

import hashlib
import re
from typing import Final

from loopd.protocol.limits import FLOOD_TTL_MAX

HOP_VALUE_BYTES: Final = 32

_HOP_VALUE_TEXT: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)


def hop_anchor(seed: bytes, ttl: int) -> bytes:
    """SHA-256 applied `ttl` times to a secret random seed of 32 bytes. ValueError for another length or TTL."""
    if not 1 <= ttl <= FLOOD_TTL_MAX:
        raise ValueError(f"a TTL is 1 to {FLOOD_TTL_MAX}")
    value = seed
    for _ in range(ttl):
        value = next_hop_value(value)
    return value


def next_hop_value(value: bytes) -> bytes:
    """What a relay passes on in place of the value it received. ValueError where that is not 32 bytes."""
    if len(value) != HOP_VALUE_BYTES:
        raise ValueError(f"a hop value has {HOP_VALUE_BYTES} bytes")
    return hashlib.sha256(value).digest()


def reaches_anchor(value: bytes, ttl: int, anchor: bytes) -> bool:
    """Whether hashing the value `ttl` times gives the anchor, that is: whether the value proves this TTL.

    False, never an error, for a TTL out of bounds and for a value of another length.
    """
    if len(value) != HOP_VALUE_BYTES or not 1 <= ttl <= FLOOD_TTL_MAX:
        return False
    return hop_anchor(value, ttl) == anchor


def decode_hop_value(text: str) -> bytes:
    """The bytes of a hop value or anchor in lower-case hex. ValueError for any other text."""
    if _HOP_VALUE_TEXT.fullmatch(text) is None:
        raise ValueError("a hop value is 64 lower-case hexadecimal digits")
    return bytes.fromhex(text)
