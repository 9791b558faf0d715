"""The set that is compared: items in order, kept so that the fingerprint of any range costs two lookups.

The items lie in chunks that never change; a change makes a new chunk. So a snapshot costs a list of references, a
session compares what stood when it began, and the newest item, which is the usual one, costs one chunk's copying.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Container, Iterable, Iterator
from itertools import accumulate
from typing import Final

from loopd.gossip.reconciliation.wire import (
    ID_BYTES,
    KEY_BYTES,
    SUM_MASK,
    TIMESTAMP_BYTES,
    fingerprint,
    item_key,
)
from loopd.protocol.limits import FLOOD_TTL_MAX

# Small enough that copying one is a matter of microseconds, large enough that there are few.
CHUNK_ITEMS_MAX: Final = 512

# An item's mark: its TTL below, its scope above.
_TTL_BITS: Final = 3
_TTL_MASK: Final = (1 << _TTL_BITS) - 1
_SCOPE_MAX: Final = (1 << (32 - _TTL_BITS)) - 1
HELD_TTL_MAX: Final = FLOOD_TTL_MAX + 1


class _Chunk:
    """Up to `CHUNK_ITEMS_MAX` items in order: their keys in one string of bytes, a mark each, the sum of their ids."""

    __slots__ = ("_prefix_sums", "id_sum", "keys", "marks")

    def __init__(self, keys: bytes, marks: "array[int]", id_sum: int) -> None:
        self.keys = keys
        self.marks = marks
        self.id_sum = id_sum
        self._prefix_sums: bytes | None = None

    @classmethod
    def of(cls, keys: bytes, marks: "array[int]") -> "_Chunk":
        return cls(keys, marks, sum(_ids(keys)) & SUM_MASK)

    def __len__(self) -> int:
        return len(self.marks)

    def key(self, place: int) -> bytes:
        return self.keys[place * KEY_BYTES : (place + 1) * KEY_BYTES]

    def place_of(self, key: bytes) -> int:
        """How many items lie below the key."""
        return bisect_left(range(len(self)), key, key=self.key)

    def sum_below(self, place: int) -> int:
        """The sum of the first ids; kept from the first time that a place inside is asked for."""
        if place == len(self):
            return self.id_sum
        if self._prefix_sums is None:
            sums = accumulate(_ids(self.keys), lambda total, number: (total + number) & SUM_MASK, initial=0)
            self._prefix_sums = b"".join(value.to_bytes(ID_BYTES, "little") for value in sums)
        return int.from_bytes(self._prefix_sums[place * ID_BYTES : (place + 1) * ID_BYTES], "little")

    def with_item(self, place: int, key: bytes, mark: int) -> "_Chunk":
        at = place * KEY_BYTES
        marks = self.marks[:]
        marks.insert(place, mark)
        return _Chunk(self.keys[:at] + key + self.keys[at:], marks, (self.id_sum + _id_number(key)) & SUM_MASK)

    def with_mark(self, place: int, mark: int) -> "_Chunk":
        marks = self.marks[:]
        marks[place] = mark
        chunk = _Chunk(self.keys, marks, self.id_sum)
        chunk._prefix_sums = self._prefix_sums
        return chunk

    def without(self, place: int) -> "_Chunk":
        at = place * KEY_BYTES
        marks = self.marks[:]
        del marks[place]
        id_sum = (self.id_sum - _id_number(self.key(place))) & SUM_MASK
        return _Chunk(self.keys[:at] + self.keys[at + KEY_BYTES :], marks, id_sum)

    def halves(self) -> "tuple[_Chunk, _Chunk]":
        middle = len(self) // 2
        at = middle * KEY_BYTES
        return _Chunk.of(self.keys[:at], self.marks[:middle]), _Chunk.of(self.keys[at:], self.marks[middle:])

    def joined(self, other: "_Chunk") -> "_Chunk":
        return _Chunk(self.keys + other.keys, self.marks + other.marks, (self.id_sum + other.id_sum) & SUM_MASK)

    def within(self, scopes: Container[int]) -> "_Chunk":
        """The items of these scopes; itself where that is all of them."""
        kept = [place for place, mark in enumerate(self.marks) if mark >> _TTL_BITS in scopes]
        if len(kept) == len(self):
            return self
        return _Chunk.of(b"".join(map(self.key, kept)), array("I", (self.marks[place] for place in kept)))


class ItemSet:
    """Items that do not change, by index in their order. Ranges are half open: `lower` to below `upper`."""

    __slots__ = ("_chunks", "_firsts", "_starts", "_sums")

    def __init__(self, chunks: Iterable[_Chunk]) -> None:
        self._chunks = [chunk for chunk in chunks if len(chunk)]
        self._firsts = [chunk.key(0) for chunk in self._chunks]
        self._starts = list(accumulate(map(len, self._chunks), initial=0))
        self._sums = list(accumulate((chunk.id_sum for chunk in self._chunks), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def key(self, index: int) -> bytes:
        """The key of the item at an index; IndexError beyond the last."""
        chunk, place = self._locate(index)
        return chunk.key(place)

    def message_id(self, index: int) -> bytes:
        """The id of the item at an index."""
        return self.key(index)[TIMESTAMP_BYTES:]

    def ttl(self, index: int) -> int:
        """The TTL held of the item at an index."""
        chunk, place = self._locate(index)
        return chunk.marks[place] & _TTL_MASK

    def find(self, key: bytes) -> int:
        """How many items lie below the key."""
        number = bisect_right(self._firsts, key) - 1
        return 0 if number < 0 else self._starts[number] + self._chunks[number].place_of(key)

    def id_sum(self, lower: int, upper: int) -> int:
        """The sum of the ids in a range, as little-endian integers, modulo 2²⁵⁶."""
        return (self._sum_below(upper) - self._sum_below(lower)) & SUM_MASK

    def fingerprint(self, lower: int, upper: int) -> bytes:
        """16 bytes that are equal for equal sets."""
        return fingerprint(self.id_sum(lower, upper), upper - lower)

    def ids(self, lower: int, upper: int) -> Iterator[bytes]:
        """The ids of a range, in order."""
        for chunk, first, end in self._pieces(lower, upper):
            for at in range(first * KEY_BYTES + TIMESTAMP_BYTES, end * KEY_BYTES, KEY_BYTES):
                yield chunk.keys[at : at + ID_BYTES]

    def ttls(self, lower: int, upper: int) -> Iterator[int]:
        """The TTLs of a range, in order."""
        for chunk, first, end in self._pieces(lower, upper):
            yield from (mark & _TTL_MASK for mark in chunk.marks[first:end])

    def _locate(self, index: int) -> tuple[_Chunk, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = bisect_right(self._starts, index) - 1
        return self._chunks[number], index - self._starts[number]

    def _sum_below(self, index: int) -> int:
        if index == len(self):
            return self._sums[-1]
        number = bisect_right(self._starts, index) - 1
        return self._sums[number] + self._chunks[number].sum_below(index - self._starts[number])

    def _pieces(self, lower: int, upper: int) -> Iterator[tuple[_Chunk, int, int]]:
        number = bisect_right(self._starts, lower) - 1
        while lower < upper:
            chunk, start = self._chunks[number], self._starts[number]
            end = min(upper, start + len(chunk))
            yield chunk, lower - start, end - start
            lower = end
            number += 1


class Items:
    """The items of this node as they come and go: (issued_at in ms, message id), a TTL and a scope each.

    `ttl` is the best held, 1 to 3; a message of the node's own counts as its TTL plus one, since the origin gives it
    out undiminished. `scope` is a number that the caller gives to each pair of origin location and radius, so that
    what lies inside the radius for a peer is a set of numbers, found once.

    At the full 100,000 items this takes 5 MB, and 3 more while all of its ranges are being compared.
    """

    def __init__(self, items: Iterable[tuple[int, bytes, int, int]] = ()) -> None:
        """From (issued_at_ms, message_id, ttl, scope) in any order, each item once. ValueError as in `put`."""
        ordered = sorted(
            (item_key(issued_at_ms, item_id), _mark(ttl, scope)) for issued_at_ms, item_id, ttl, scope in items
        )
        self._chunks = []
        for at in range(0, len(ordered), CHUNK_ITEMS_MAX):
            keys, marks = zip(*ordered[at : at + CHUNK_ITEMS_MAX], strict=True)
            self._chunks.append(_Chunk.of(b"".join(keys), array("I", marks)))
        self._firsts = [chunk.key(0) for chunk in self._chunks]
        self._count = len(ordered)

    def __len__(self) -> int:
        return self._count

    def ttl(self, issued_at_ms: int, message_id: bytes) -> int | None:
        """The TTL held of a message; None where it is not held."""
        key = item_key(issued_at_ms, message_id)
        chunk, place = self._find(key)
        return chunk.marks[place] & _TTL_MASK if chunk is not None and chunk.key(place) == key else None

    def put(self, issued_at_ms: int, message_id: bytes, ttl: int, scope: int = 0) -> None:
        """Add an item, or give the one that is there another TTL and scope. ValueError for what no item can have."""
        key, mark = item_key(issued_at_ms, message_id), _mark(ttl, scope)
        number = max(0, bisect_right(self._firsts, key) - 1)
        if not self._chunks:
            self._insert(0, _Chunk.of(key, array("I", (mark,))))
            self._count = 1
            return
        chunk = self._chunks[number]
        place = chunk.place_of(key)
        if chunk.key(place) == key:
            self._chunks[number] = chunk.with_mark(place, mark)
            return
        self._count += 1
        if len(chunk) < CHUNK_ITEMS_MAX:
            self._replace(number, chunk.with_item(place, key, mark))
        elif place == len(chunk) and number == len(self._chunks) - 1:
            # Time goes on: what is full stays full.
            self._insert(number + 1, _Chunk.of(key, array("I", (mark,))))
        else:
            low, high = chunk.halves()
            self._replace(number, low)
            self._insert(number + 1, high)
            number, place = (number, place) if place <= len(low) else (number + 1, place - len(low))
            self._replace(number, self._chunks[number].with_item(place, key, mark))

    def remove(self, issued_at_ms: int, message_id: bytes) -> bool:
        """Take an item out; whether it was there."""
        key = item_key(issued_at_ms, message_id)
        number = bisect_right(self._firsts, key) - 1
        if number < 0:
            return False
        place = self._chunks[number].place_of(key)
        if self._chunks[number].key(place) != key:
            return False
        self._count -= 1
        smaller = self._chunks[number].without(place)
        if not len(smaller):
            self._delete(number)
            return True
        self._replace(number, smaller)
        for first in (number - 1, number):
            # Items end in another order than they came: what is left of neighbours moves together.
            if 0 <= first < len(self._chunks) - 1:
                joined_count = len(self._chunks[first]) + len(self._chunks[first + 1])
                if joined_count <= CHUNK_ITEMS_MAX // 2:
                    self._replace(first, self._chunks[first].joined(self._chunks[first + 1]))
                    self._delete(first + 1)
                    break
        return True

    def snapshot(self, scopes: Container[int] | None = None) -> ItemSet:
        """The items as they stand, of these scopes only where they are given."""
        if scopes is None:
            return ItemSet(self._chunks)
        return ItemSet(chunk.within(scopes) for chunk in self._chunks)

    def _find(self, key: bytes) -> tuple[_Chunk | None, int]:
        number = bisect_right(self._firsts, key) - 1
        return (None, 0) if number < 0 else (self._chunks[number], self._chunks[number].place_of(key))

    def _replace(self, number: int, chunk: _Chunk) -> None:
        self._chunks[number] = chunk
        self._firsts[number] = chunk.key(0)

    def _insert(self, number: int, chunk: _Chunk) -> None:
        self._chunks.insert(number, chunk)
        self._firsts.insert(number, chunk.key(0))

    def _delete(self, number: int) -> None:
        del self._chunks[number]
        del self._firsts[number]


def _mark(ttl: int, scope: int) -> int:
    if not 1 <= ttl <= HELD_TTL_MAX:
        raise ValueError(f"a TTL held is 1 to {HELD_TTL_MAX}")
    if not 0 <= scope <= _SCOPE_MAX:
        raise ValueError(f"a scope is a number up to {_SCOPE_MAX}")
    return scope << _TTL_BITS | ttl


def _id_number(key: bytes) -> int:
    return int.from_bytes(key[TIMESTAMP_BYTES:], "little")


def _ids(keys: bytes) -> Iterator[int]:
    return (int.from_bytes(keys[at : at + ID_BYTES], "little") for at in range(TIMESTAMP_BYTES, len(keys), KEY_BYTES))
