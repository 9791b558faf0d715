"""Ed25519 keys (RFC 8032): a node's own, another node's, and how both and signatures are written down (§9.1, §9.2).

PyNaCl signs and verifies, being twice as fast at it; cryptography reads and writes PEM.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from nacl.bindings import crypto_core_ed25519_is_valid_point
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from loopd.protocol.limits import PUBLIC_KEY_PEM_MAX_CHARACTERS

SEED_BYTES: Final = 32
PUBLIC_KEY_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
KEY_ID_CHARACTERS: Final = 16

_FINGERPRINT_GROUP: Final = 4
# 64 bytes are 86 characters of base64 without padding.
_SIGNATURE_TEXT: Final = re.compile(r"[A-Za-z0-9_-]{86}", re.ASCII)
_PEM: Final = re.compile(
    r"\s*-----BEGIN PUBLIC KEY-----\s+[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----\s*",
    re.ASCII,
)


@dataclass(frozen=True, slots=True)
class PublicKey:
    """An Ed25519 public key: 32 raw bytes. ValueError for any other length."""

    raw: bytes

    def __post_init__(self) -> None:
        if len(self.raw) != PUBLIC_KEY_BYTES:
            raise ValueError(f"an Ed25519 public key has {PUBLIC_KEY_BYTES} bytes")

    def verify(self, message: bytes, signature: bytes) -> bool:
        """Whether the signature of the message is this key's. False, never an error, for bytes of any other shape."""
        if len(signature) != SIGNATURE_BYTES:
            return False
        try:
            VerifyKey(self.raw).verify(message, signature)
        except BadSignatureError:
            return False
        return True

    @property
    def key_id(self) -> str:
        """The first 16 hex digits of the SHA-256 of the raw key, as `X-Node-Key-Id` names it."""
        return hashlib.sha256(self.raw).hexdigest()[:KEY_ID_CHARACTERS]

    @property
    def fingerprint(self) -> str:
        """The whole SHA-256 of the raw key in hex, in groups of four that two people can read to each other."""
        digest = hashlib.sha256(self.raw).hexdigest()
        groups = (digest[i : i + _FINGERPRINT_GROUP] for i in range(0, len(digest), _FINGERPRINT_GROUP))
        return ":".join(groups)

    def to_pem(self) -> str:
        """PEM SubjectPublicKeyInfo (RFC 8410), as keys travel (§9.1): without a line break at its end."""
        key = Ed25519PublicKey.from_public_bytes(self.raw)
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        return pem.decode("ascii").rstrip("\n")

    @classmethod
    def from_pem(cls, text: str) -> "PublicKey":
        """The key of one PEM block. ValueError for anything but a sound Ed25519 key, and for more than one block.

        A point of small order is refused too: signatures that hold under such a key prove nothing.
        """
        if len(text) > PUBLIC_KEY_PEM_MAX_CHARACTERS or _PEM.fullmatch(text) is None:
            raise ValueError("not one PEM block of a public key")
        try:
            key = serialization.load_pem_public_key(text.strip().encode("ascii"))
        except UnsupportedAlgorithm as error:
            raise ValueError("not an Ed25519 public key") from error
        if not isinstance(key, Ed25519PublicKey):
            raise ValueError("not an Ed25519 public key")
        raw = key.public_bytes_raw()
        if not crypto_core_ed25519_is_valid_point(raw):
            raise ValueError("not a point that can be an Ed25519 public key")
        return cls(raw)


class NodeKey:
    """A node's own signing key. Its representation never shows the seed."""

    __slots__ = ("_signing_key", "public")

    public: PublicKey

    def __init__(self, signing_key: SigningKey) -> None:
        self._signing_key = signing_key
        self.public = PublicKey(bytes(signing_key.verify_key))

    @classmethod
    def from_seed(cls, seed: bytes) -> "NodeKey":
        """The key of 32 bytes, stored ones or fresh ones from a secret source. ValueError for any other length."""
        if len(seed) != SEED_BYTES:
            raise ValueError(f"the seed of an Ed25519 key has {SEED_BYTES} bytes")
        return cls(SigningKey(seed))

    @property
    def seed(self) -> bytes:
        """The secret: 32 bytes, to be stored where only the node can read them."""
        return bytes(self._signing_key)

    def sign(self, message: bytes) -> bytes:
        """The 64-byte Ed25519 signature of the message."""
        return self._signing_key.sign(message).signature

    def __repr__(self) -> str:
        return f"NodeKey({self.public.key_id})"


def encode_signature(signature: bytes) -> str:
    """Base64url without padding (RFC 4648 §5), as `X-Node-Signature` carries it."""
    return base64.urlsafe_b64encode(signature).rstrip(b"=").decode("ascii")


def decode_signature(text: str) -> bytes:
    """The 64 bytes of a signature in base64url without padding.

    ValueError for any other text: padding, another alphabet, another length, or spare bits that are not zero, so that
    a signature has one spelling only.
    """
    if _SIGNATURE_TEXT.fullmatch(text) is None:
        raise ValueError("a signature is 86 characters of base64url without padding")
    signature = base64.urlsafe_b64decode(text + "==")
    if encode_signature(signature) != text:
        raise ValueError("the last character of the signature has spare bits that are not zero")
    return signature
