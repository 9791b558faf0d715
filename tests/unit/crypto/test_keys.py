"""Keys and signatures, held to the vectors of RFC 8032 §7.1 and to strict decoding."""

import base64
import hashlib

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, x25519
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.crypto.keys import NodeKey, PublicKey, decode_signature, encode_signature

# RFC 8032 §7.1, TEST 1 to 3: seed, public key, message, signature.
RFC_8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]
KEY = NodeKey.from_seed(bytes(range(32)))


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032)
def test_signs_as_rfc_8032_does(seed: str, public: str, message: str, signature: str) -> None:
    key = NodeKey.from_seed(bytes.fromhex(seed))
    assert key.public.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert key.public.verify(bytes.fromhex(message), bytes.fromhex(signature))


def test_a_key_comes_back_from_its_seed() -> None:
    assert NodeKey.from_seed(KEY.seed).public == KEY.public


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_and_a_public_key_have_32_bytes(length: int) -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        NodeKey.from_seed(bytes(length))
    with pytest.raises(ValueError, match="32 bytes"):
        PublicKey(bytes(length))


def test_the_representation_of_a_key_hides_the_seed() -> None:
    for secret in (KEY.seed.hex(), repr(KEY.seed), base64.b64encode(KEY.seed).decode()):
        assert secret not in f"{KEY!r} {KEY}"


@given(message=st.binary(max_size=64), bit=st.integers(0, 511))
@settings(max_examples=60)
def test_one_flipped_bit_breaks_a_signature(message: bytes, bit: int) -> None:
    signature = bytearray(KEY.sign(message))
    signature[bit // 8] ^= 1 << bit % 8
    assert not KEY.public.verify(message, bytes(signature))
    assert not KEY.public.verify(message + b"\0", KEY.sign(message))


@given(raw=st.binary(min_size=32, max_size=32), message=st.binary(max_size=8), signature=st.binary(max_size=80))
@settings(max_examples=60)
def test_verifying_never_raises(raw: bytes, message: bytes, signature: bytes) -> None:
    assert PublicKey(raw).verify(message, signature) is False


def test_a_signature_under_a_weak_key_proves_nothing() -> None:
    # The neutral element as key and R, and s = 0, satisfy the bare equation for every message.
    neutral = b"\x01" + bytes(31)
    assert not PublicKey(neutral).verify(b"anything", neutral + bytes(32))


def test_the_key_id_and_the_fingerprint_are_of_the_raw_key() -> None:
    digest = hashlib.sha256(KEY.public.raw).hexdigest()
    assert KEY.public.key_id == digest[:16]
    assert KEY.public.fingerprint.replace(":", "") == digest
    assert {len(group) for group in KEY.public.fingerprint.split(":")} == {4}


def test_pem_is_the_subject_public_key_info_of_rfc_8410() -> None:
    # RFC 8410 §10.1 and §4: the algorithm identifier 1.3.101.112, then the 32 bytes as a bit string.
    der = bytes.fromhex("302a300506032b6570032100") + KEY.public.raw
    expected = f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----"
    assert KEY.public.to_pem() == expected
    assert PublicKey.from_pem(expected) == KEY.public
    assert PublicKey.from_pem(expected.strip()) == KEY.public
    assert PublicKey.from_pem(expected.replace("\n", "\r\n")) == KEY.public


def _pem(der: bytes) -> str:
    return f"-----BEGIN PUBLIC KEY-----\n{base64.b64encode(der).decode()}\n-----END PUBLIC KEY-----\n"


def _spki(public_key: ec.EllipticCurvePublicKey | x25519.X25519PublicKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return public_key.public_bytes(serialization.Encoding.PEM, form).decode()


GOOD_PEM = KEY.public.to_pem()
ED25519_HEAD = bytes.fromhex("302a300506032b6570032100")
BAD_PEM = {
    "empty": "",
    "placeholder": "-----BEGIN PUBLIC KEY-----...",
    "raw base64": base64.b64encode(KEY.public.raw).decode(),
    "no base64": "-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n",
    "two blocks": GOOD_PEM * 2,
    "text before": "key:\n" + GOOD_PEM,
    "text after": GOOD_PEM + "x",
    "too long": GOOD_PEM + " " * 1000,
    "lone surrogate": GOOD_PEM.replace("A", "\ud800"),
    "other letters": GOOD_PEM.replace("A", "\uff21"),
    "short point": _pem(bytes.fromhex("3029300506032b6570032000") + KEY.public.raw[:31]),
    "X25519": _spki(x25519.X25519PrivateKey.from_private_bytes(bytes(range(32))).public_key()),
    "P-256": _spki(ec.derive_private_key(7, ec.SECP256R1()).public_key()),
    "unknown algorithm": _pem(bytes.fromhex("302a300506032b6599032100") + KEY.public.raw),
    "neutral element": _pem(ED25519_HEAD + b"\x01" + bytes(31)),
    "no point": _pem(ED25519_HEAD + b"\x02" + bytes(31)),
    "private key": "-----BEGIN PRIVATE KEY-----\n"
    + base64.b64encode(bytes.fromhex("302e020100300506032b657004220420") + KEY.seed).decode()
    + "\n-----END PRIVATE KEY-----\n",
}


@pytest.mark.parametrize("text", BAD_PEM.values(), ids=BAD_PEM.keys())
def test_anything_but_one_sound_ed25519_key_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        PublicKey.from_pem(text)


@given(st.binary(min_size=64, max_size=64))
@settings(max_examples=60)
def test_a_signature_is_base64url_without_padding(signature: bytes) -> None:
    text = encode_signature(signature)
    assert text == base64.urlsafe_b64encode(signature).decode().rstrip("=")
    assert decode_signature(text) == signature


def test_a_signature_has_one_spelling() -> None:
    # The last character carries two bits of the signature and four spare ones: 4 of its 64 values are canonical.
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    canonical = {encode_signature(bytes(63) + bytes([low]))[-1] for low in range(4)}
    assert canonical == set("AQgw")
    for last in set(alphabet) - canonical:
        with pytest.raises(ValueError, match="spare bits"):
            decode_signature("A" * 85 + last)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "unsigned-lab-placeholder",
        "A" * 85,
        "A" * 87,
        "A" * 86 + "==",
        "A" * 86 + "\n",
        " " + "A" * 85,
        "+" * 86,
        "/" * 86,
        "A" * 85 + "B",
        "Ａ" * 86,
        "A" * 100_000,
    ],
)
def test_strict_base64url(text: str) -> None:
    with pytest.raises(ValueError):
        decode_signature(text)
