"""Where a page begins, as text that whoever searches hands back. It is nobody's secret, and believed by nobody.

A search sees the index as it was at its first page: entries are numbered, and those numbered later do not count. The
check holds a cursor to its search, and shows what was changed on the way.
"""

import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from dataclasses import dataclass
from hashlib import sha256
from math import isfinite
from typing import Final

from loopd.protocol.errors import Invalid

_FORM: Final = struct.Struct(">qqqqd")
_CHECK_BYTES: Final = 8
CURSOR_CHARACTERS: Final = (_FORM.size + _CHECK_BYTES) * 4 // 3


@dataclass(frozen=True, slots=True)
class Position:
    """The place of a result in the order: its chord from `near`, squared (0 where newest come first), and number."""

    chord: float
    number: int


@dataclass(frozen=True, slots=True)
class Cursor:
    """What a later page must know of the first: how far the index went then, what was counted; and the last result."""

    snapshot: int
    total: int
    omitted: int
    after: Position


def write_cursor(cursor: Cursor, search: bytes) -> str:
    """The cursor of a search, which is known by its request in one and the same form of bytes."""
    packed = _FORM.pack(cursor.snapshot, cursor.total, cursor.omitted, cursor.after.number, cursor.after.chord)
    return urlsafe_b64encode(packed + _check(packed, search)).decode()


def read_cursor(text: str, search: bytes) -> Cursor:
    """The cursor as it was written for the same search; Invalid (400) `bad_cursor` for anything else."""
    try:
        given = urlsafe_b64decode(text.encode("ascii"))
    except (Error, ValueError):
        raise _bad_cursor() from None
    # Decoding passes over what is no letter of the alphabet: then the text is not the one that was written.
    if len(given) != _FORM.size + _CHECK_BYTES or urlsafe_b64encode(given).decode() != text:
        raise _bad_cursor()
    packed, check = given[: _FORM.size], given[_FORM.size :]
    if check != _check(packed, search):
        raise _bad_cursor()
    snapshot, total, omitted, number, chord = _FORM.unpack(packed)
    if min(snapshot, total, omitted, number) < 0 or not isfinite(chord):
        raise _bad_cursor()
    return Cursor(snapshot, total, omitted, Position(chord, number))


def _check(packed: bytes, search: bytes) -> bytes:
    return sha256(packed + search).digest()[:_CHECK_BYTES]


def _bad_cursor() -> Invalid:
    return Invalid("bad_cursor", "The cursor is not one of this search: post the same body to `next`, as it came.")
