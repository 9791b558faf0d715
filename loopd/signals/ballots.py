"""Ballots on the node, pure: what a credential, a roll's entry and a receipt are (docs/signals.md).

The city prints a credential for each voter and gives the node hashes only: of the voter's name, with a salt that the
node never sees, and of the credential. Who holds a credential casts one ballot. What was chosen is kept under a random
key that nobody is told; the receipt says that a ballot was recorded for the credential, and not which.
"""

import base64
import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from loopd.crypto.keys import NodeKey, PublicKey, decode_signature, encode_signature

CREDENTIAL_BYTES: Final = 15
SALT_BYTES: Final = 32
BALLOT_KEY_BYTES: Final = 16
HASH_BYTES: Final = 32

_GROUP = 6


class Choice(StrEnum):
    """What a ballot says."""

    FOR = "for"
    AGAINST = "against"
    ABSTAIN = "abstain"


@dataclass(frozen=True, slots=True)
class RollEntry:
    """One eligible voter: the salted hash of who it is, and the hash of the credential."""

    voter: bytes
    credential: bytes


@dataclass(frozen=True, slots=True)
class Receipt:
    """The node's word that a ballot was recorded for a credential: its hash, and a signature."""

    credential: str
    signature: str


def print_credential(random_bytes: bytes) -> str:
    """A credential as it is printed: 24 capital letters and digits in groups of six."""
    if len(random_bytes) != CREDENTIAL_BYTES:
        raise ValueError(f"a credential has {CREDENTIAL_BYTES} random bytes")
    text = base64.b32encode(random_bytes).decode("ascii")
    return "-".join(text[start : start + _GROUP] for start in range(0, len(text), _GROUP))


def credential_hash(vote_id: str, credential: str) -> bytes:
    """The hash under which a roll has a credential. Case, hyphens and spaces are not part of it."""
    plain = "".join(credential.split()).replace("-", "").upper()
    return hashlib.sha256(f"loopd-vote-credential-v1\n{vote_id}\n{plain}".encode()).digest()


def voter_hash(vote_id: str, salt: bytes, voter: str) -> bytes:
    """The hash under which a roll has a voter. Names are guessed easily: who has the salt can read the roll."""
    return hashlib.sha256(b"loopd-vote-voter-v1\n" + salt + f"{vote_id}\n{voter}".encode()).digest()


def make_receipt(key: NodeKey, node_id: str, vote_id: str, credential: bytes) -> Receipt:
    """The receipt for a credential: the same each time, without a time, and nothing of the choice."""
    signature = key.sign(_receipt_text(node_id, vote_id, credential.hex()))
    return Receipt(credential.hex(), encode_signature(signature))


def receipt_holds(key: PublicKey, node_id: str, vote_id: str, receipt: Receipt) -> bool:
    """Whether a receipt was given by the node with that key."""
    try:
        signature = decode_signature(receipt.signature)
    except ValueError:
        return False
    return key.verify(_receipt_text(node_id, vote_id, receipt.credential), signature)


def _receipt_text(node_id: str, vote_id: str, credential: str) -> bytes:
    return f"loopd-vote-receipt-v1\n{node_id}\n{vote_id}\n{credential}".encode()
