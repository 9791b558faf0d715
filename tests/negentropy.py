"""A negentropy v1 peer of the tests' own: plain lists and loops, slow, sharing nothing with the node's.

It is written after the protocol's description alone, and serves as the other side and as the oracle for the bytes.
"""

from hashlib import sha256

END = (float("inf"), b"")
Item = tuple[float, bytes]


def digits(number: int) -> bytes:
    text = [number % 128]
    while number >= 128:
        number //= 128
        text.insert(0, number % 128 + 128)
    return bytes(text)


def digest(ids: list[bytes]) -> bytes:
    total = sum(sum(byte * 256**place for place, byte in enumerate(item_id)) for item_id in ids) % 2**256
    little = bytes(total // 256**place % 256 for place in range(32))
    return sha256(little + digits(len(ids))).digest()[:16]


def boundary(before: Item, after: Item) -> Item:
    if before[0] != after[0]:
        return after[0], b""
    length = 1
    while before[1][:length] == after[1][:length]:
        length += 1
    return after[0], after[1][:length]


class Peer:
    """One side; `limit` is its frame size limit, None for none."""

    def __init__(self, items: list[tuple[int, bytes]], limit: int | None = None) -> None:
        self.items: list[Item] = sorted(items)
        self.limit = limit
        self.asks = False
        self.have: set[bytes] = set()
        self.need: set[bytes] = set()

    def first(self) -> bytes:
        self.asks = True
        return self._text(self._split(self.items, END))

    def next(self, message: bytes) -> bytes | None:
        """The answer; None where the asking side has no more questions."""
        if message[0] != 0x61:
            return b"\x61"
        ranges: list[tuple[Item, int, bytes | list[bytes]]] = []
        begin: Item = (0, b"")
        for end, mode, payload in self._parse(message):
            mine = self._between(begin, end)
            answer: list[tuple[Item, int, bytes | list[bytes]]] = [(end, 0, b"")]
            if mode == 1 and payload != digest([item[1] for item in mine]):
                answer = self._split(mine, end)
            elif mode == 2 and self.asks:
                self.have |= {item[1] for item in mine} - set(payload)
                self.need |= set(payload) - {item[1] for item in mine}
            elif mode == 2:
                answer = [(end, 2, [item[1] for item in mine])]
            if self.limit is not None and len(self._text(ranges + answer)) > self.limit - 100:
                rest = begin
                if mode == 2 and not self.asks:
                    kept = list(mine)
                    while kept and len(self._text([*ranges, (end, 2, [item[1] for item in kept])])) > self.limit - 150:
                        kept.pop()
                    if kept:
                        rest = mine[len(kept)]
                        ranges.append((rest, 2, [item[1] for item in kept]))
                ranges.append((END, 1, digest([item[1] for item in self._between(rest, END)])))
                break
            ranges += answer
            begin = end
        text = self._text(ranges)
        return None if self.asks and text == b"\x61" else text

    def _between(self, begin: Item, end: Item) -> list[Item]:
        return [item for item in self.items if begin <= item < end]

    def _split(self, mine: list[Item], end: Item) -> list[tuple[Item, int, bytes | list[bytes]]]:
        if len(mine) < 32:
            return [(end, 2, [item[1] for item in mine])]
        ranges: list[tuple[Item, int, bytes | list[bytes]]] = []
        for part in range(16):
            size = len(mine) // 16 + (1 if part < len(mine) % 16 else 0)
            start = sum(len(mine) // 16 + (1 if earlier < len(mine) % 16 else 0) for earlier in range(part))
            upper = end if part == 15 else boundary(mine[start + size - 1], mine[start + size])
            ranges.append((upper, 1, digest([item[1] for item in mine[start : start + size]])))
        return ranges

    def _text(self, ranges: list[tuple[Item, int, bytes | list[bytes]]]) -> bytes:
        joined = [
            entry
            for number, entry in enumerate(ranges)
            if entry[1] or (number + 1 < len(ranges) and ranges[number + 1][1])
        ]
        text, time = b"\x61", 0
        for (timestamp, prefix), mode, payload in joined:
            if timestamp == float("inf"):
                text += b"\x00"
            else:
                text += digits(int(timestamp) - time + 1)
                time = int(timestamp)
            text += digits(len(prefix)) + prefix + digits(mode)
            text += payload if isinstance(payload, bytes) else digits(len(payload)) + b"".join(payload)
        return text

    def _parse(self, message: bytes) -> list[tuple[Item, int, bytes | list[bytes]]]:
        rest = list(message[1:])
        time = 0

        def number() -> int:
            value = 0
            while rest[0] >= 128:
                value = value * 128 + rest.pop(0) - 128
            return value * 128 + rest.pop(0)

        def chunk(length: int) -> bytes:
            taken = bytes(rest[:length])
            del rest[:length]
            return taken

        ranges: list[tuple[Item, int, bytes | list[bytes]]] = []
        while rest:
            step = number()
            prefix = chunk(number())
            time += max(step - 1, 0)
            upper: Item = END if step == 0 else (time, prefix)
            mode = number()
            if mode == 2:
                ranges.append((upper, 2, [chunk(32) for _ in range(number())]))
            else:
                ranges.append((upper, mode, chunk(16 if mode == 1 else 0)))
        return ranges
