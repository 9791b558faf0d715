"""What a node states about its own keys: that one replaces another, or that one counts no more (§9.2).

A statement carries its own signatures, so it does not matter who passes it on. See docs/protocol-notes.md, Keys.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from loopd.crypto.keys import NodeKey, PublicKey
from loopd.protocol.errors import Invalid, Unauthorized
from loopd.protocol.json_text import dump_json
from loopd.protocol.timestamps import format_timestamp, parse_timestamp

ROTATION: Final = "KeyRotation"
REVOCATION: Final = "KeyRevocation"
STATEMENTS: Final = frozenset({ROTATION, REVOCATION})

_SCHEMA_VERSION: Final = "0.2.0"


class _Stated(ABC):
    """What every statement has: the bytes that are signed, and a time as it was written."""

    __slots__ = ()
    issued_at: str

    @property
    @abstractmethod
    def signed_bytes(self) -> bytes: ...

    @property
    def statement_id(self) -> bytes:
        """The 32 bytes by which a repeat is known, however it is written."""
        return hashlib.sha256(self.signed_bytes).digest()

    @property
    def issued_at_ms(self) -> int:
        return parse_timestamp(self.issued_at)


@dataclass(frozen=True, slots=True)
class Rotation(_Stated):
    """The node's new key takes the place of the old one. Both are raw; the time is kept as it was written."""

    node_id: str
    sequence: int
    old_key: bytes
    new_key: bytes
    issued_at: str

    @property
    def signed_bytes(self) -> bytes:
        """What both keys sign: six lines joined by LF, UTF-8, the keys in lower-case hex."""
        return _lines(
            "loop-key-rotation-v1",
            self.node_id,
            str(self.sequence),
            self.old_key.hex(),
            self.new_key.hex(),
            self.issued_at,
        )


@dataclass(frozen=True, slots=True)
class Revocation(_Stated):
    """Nothing counts that is signed with the revoked key. `signed_by` is that key, or the node's present one."""

    node_id: str
    sequence: int
    revoked_key: bytes
    signed_by: bytes
    issued_at: str

    @property
    def signed_bytes(self) -> bytes:
        """What `signed_by` signs: six lines joined by LF, UTF-8, the keys in lower-case hex."""
        return _lines(
            "loop-key-revocation-v1",
            self.node_id,
            str(self.sequence),
            self.revoked_key.hex(),
            self.signed_by.hex(),
            self.issued_at,
        )


Statement = Rotation | Revocation


def _lines(*lines: str) -> bytes:
    if any("\n" in line for line in lines):
        raise Invalid("bad_statement", "a signed value holds a line break")
    return "\n".join(lines).encode()


def read_statement(value: Mapping[str, Any]) -> Statement:
    """The statement in a checked KeyRotation or KeyRevocation document, its signatures verified.

    Unauthorized `bad_statement` where one does not hold; Invalid `bad_statement` where it contradicts itself.
    """
    node_id, sequence, issued_at = value["node_id"], int(value["sequence"]), value["issued_at"]
    statement: Statement
    signatures: tuple[tuple[bytes, str], ...]
    if value["@type"] == ROTATION:
        old_key, new_key = _key(value, "old_key"), _key(value, "new_key")
        if old_key == new_key:
            raise Invalid("bad_statement", "a key does not replace itself", {"pointer": "/new_key"})
        statement = Rotation(node_id, sequence, old_key, new_key, issued_at)
        signatures = ((old_key, value["old_signature"]), (new_key, value["new_signature"]))
    else:
        statement = Revocation(node_id, sequence, _key(value, "revoked_key"), _key(value, "signed_by"), issued_at)
        signatures = ((statement.signed_by, value["signature"]),)
    signed = statement.signed_bytes
    if not all(PublicKey(key).verify(signed, bytes.fromhex(signature)) for key, signature in signatures):
        raise Unauthorized("bad_statement", "a signature of the statement does not hold")
    return statement


def _key(value: Mapping[str, Any], name: str) -> bytes:
    raw = bytes.fromhex(value[name])
    try:
        # Goes through the form in which keys travel, which refuses what is no key to sign with.
        return PublicKey.from_pem(PublicKey(raw).to_pem()).raw
    except ValueError as error:
        raise Invalid("bad_statement", "that is no Ed25519 key", {"pointer": f"/{name}"}) from error


def build_rotation(
    context_url: str, node_id: str, sequence: int, old: NodeKey, new: NodeKey, now_ms: int
) -> tuple[Rotation, bytes]:
    """The statement that `new` replaces `old`, signed by both, and its document."""
    rotation = Rotation(node_id, sequence, old.public.raw, new.public.raw, format_timestamp(now_ms))
    signed = rotation.signed_bytes
    document = {
        "@context": context_url,
        "@type": ROTATION,
        "schema_version": _SCHEMA_VERSION,
        "node_id": node_id,
        "sequence": sequence,
        "old_key": rotation.old_key.hex(),
        "new_key": rotation.new_key.hex(),
        "old_signature": old.sign(signed).hex(),
        "new_signature": new.sign(signed).hex(),
        "issued_at": rotation.issued_at,
    }
    return rotation, dump_json(document)


def build_revocation(
    context_url: str, node_id: str, sequence: int, revoked_key: bytes, signer: NodeKey, now_ms: int
) -> tuple[Revocation, bytes]:
    """The statement that a key counts no more, signed by that key or by the node's present one, and its document."""
    revocation = Revocation(node_id, sequence, revoked_key, signer.public.raw, format_timestamp(now_ms))
    document = {
        "@context": context_url,
        "@type": REVOCATION,
        "schema_version": _SCHEMA_VERSION,
        "node_id": node_id,
        "sequence": sequence,
        "revoked_key": revoked_key.hex(),
        "signed_by": revocation.signed_by.hex(),
        "signature": signer.sign(revocation.signed_bytes).hex(),
        "issued_at": revocation.issued_at,
    }
    return revocation, dump_json(document)
