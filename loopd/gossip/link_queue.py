"""What waits to go over one link, and the credit both ways; sans I/O.

    SendQueue(dialect):  put(frame) -> bool, granted(credit), next_batch() -> bytes | None, waiting
    ReceiveWindow():     opening() -> Credit, arrived(frame), finished(frame) -> Credit | None

Frames that take credit (`takes_credit`) are new work for the receiver: it grants room for them, in bytes and in frames,
and grants more as it finishes them. One that grants nothing stops these alone; health, answers and credit itself still
go. The sender never goes beyond what was granted; a receiver that finds otherwise ends the link, as does a sender that
is granted more than `LINK_CREDIT_MAX_*`. A queue that is full takes no more: the link is too slow for what it must
carry, and its owner closes it; nothing is lost, for the log has it.

What a frame costs is `cost_bytes`, which both sides compute alike, whatever the packing.
"""

from collections import deque
from typing import Final

from loopd.gossip.errors import ProtocolError
from loopd.gossip.frames import (
    Copy,
    Credit,
    Dialect,
    Frame,
    Priority,
    Reconcile,
    ReconcileTtls,
    Request,
    Response,
    encode_frame,
    fits,
    join_batch,
    priority,
    takes_credit,
)
from loopd.protocol.limits import (
    LINK_BODY_MAX_BYTES,
    LINK_CREDIT_MAX_BYTES,
    LINK_CREDIT_MAX_FRAMES,
    LINK_QUEUE_MAX_BYTES,
    LINK_QUEUE_MAX_FRAMES,
)

# What a frame costs beside its body, whatever its other fields take.
_FRAME_COST_BYTES: Final = 256
# A receiver grants again once this share of its window is free, so that grants are few.
_GRANTED_AGAIN_SHARE: Final = 4


def cost_bytes(frame: Frame) -> int:
    """What a frame takes of a link's credit."""
    if isinstance(frame, Copy | Request | Response):
        return _FRAME_COST_BYTES + len(frame.body)
    if isinstance(frame, Reconcile | ReconcileTtls):
        return _FRAME_COST_BYTES + len(frame.payload)
    return _FRAME_COST_BYTES


class SendQueue:
    """Frames by urgency, in their order within each, and the credit that the peer granted."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        # Those that need credit wait beside the others of their urgency, which so can pass them.
        self._lanes: dict[tuple[Priority, bool], deque[tuple[bytes, int]]] = {
            (urgency, charged): deque() for urgency in Priority for charged in (False, True)
        }
        self._frames = 0
        self._bytes = 0
        self._credit_bytes = 0
        self._credit_frames = 0

    @property
    def waiting(self) -> int:
        """Frames that wait."""
        return self._frames

    def put(self, frame: Frame) -> bool:
        """Queue a frame. False where the queue is full: the link is to be closed."""
        packed = encode_frame(frame)
        if self._frames >= LINK_QUEUE_MAX_FRAMES or self._bytes + len(packed) > LINK_QUEUE_MAX_BYTES:
            return False
        self._lanes[(priority(frame), takes_credit(frame))].append((packed, cost_bytes(frame)))
        self._frames += 1
        self._bytes += len(packed)
        return True

    def granted(self, credit: Credit) -> None:
        """The peer has room for more. ProtocolError beyond what anybody may grant."""
        self._credit_bytes += credit.bytes
        self._credit_frames += credit.frames
        if self._credit_bytes > LINK_CREDIT_MAX_BYTES or self._credit_frames > LINK_CREDIT_MAX_FRAMES:
            raise ProtocolError("too_much_credit", "More credit was granted than a link may have.")

    def next_batch(self) -> bytes | None:
        """The next batch to send, the most urgent first and within the credit; None where nothing can go."""
        packed: list[bytes] = []
        size_bytes = 0
        for (_, charged), lane in self._lanes.items():
            while lane:
                frame, cost = lane[0]
                if charged and not self._affords(cost):
                    break
                if not fits(len(packed) + 1, size_bytes + len(frame)):
                    return self._batch(packed, size_bytes)
                lane.popleft()
                packed.append(frame)
                size_bytes += len(frame)
                if charged:
                    self._credit_bytes -= cost
                    self._credit_frames -= 1
        return self._batch(packed, size_bytes)

    def _affords(self, cost: int) -> bool:
        return self._credit_frames > 0 and cost <= self._credit_bytes

    def _batch(self, packed: list[bytes], size_bytes: int) -> bytes | None:
        if not packed:
            return None
        self._frames -= len(packed)
        self._bytes -= size_bytes
        return join_batch(packed, self._dialect)


class ReceiveWindow:
    """The credit that this side grants: what may be under way towards it, or in its hands and unfinished."""

    def __init__(self, size_bytes: int = LINK_CREDIT_MAX_BYTES, frames: int = LINK_CREDIT_MAX_FRAMES) -> None:
        # Room for the longest frame is left even where the rest is free but not yet granted again.
        if size_bytes - size_bytes // _GRANTED_AGAIN_SHARE < _FRAME_COST_BYTES + LINK_BODY_MAX_BYTES or frames < 1:
            raise ValueError("a window this small would never let the longest frame through")
        self._size_bytes, self._size_frames = size_bytes, frames
        self._granted_bytes = self._granted_frames = 0
        self._free_bytes, self._free_frames = size_bytes, frames

    def opening(self) -> Credit:
        """What is granted when the link is made."""
        return self._grant()

    def arrived(self, frame: Frame) -> None:
        """A frame came. ProtocolError where nothing was granted for it."""
        if not takes_credit(frame):
            return
        self._granted_bytes -= cost_bytes(frame)
        self._granted_frames -= 1
        if self._granted_bytes < 0 or self._granted_frames < 0:
            raise ProtocolError("beyond_credit", "More came than was granted.")

    def finished(self, frame: Frame) -> Credit | None:
        """A frame is dealt with. What to grant now; None where too little is free to be worth a frame."""
        if not takes_credit(frame):
            return None
        self._free_bytes += cost_bytes(frame)
        self._free_frames += 1
        if (
            self._free_bytes * _GRANTED_AGAIN_SHARE >= self._size_bytes
            or self._free_frames * _GRANTED_AGAIN_SHARE >= self._size_frames
        ):
            return self._grant()
        return None

    def _grant(self) -> Credit:
        credit = Credit(self._free_bytes, self._free_frames)
        self._granted_bytes += credit.bytes
        self._granted_frames += credit.frames
        self._free_bytes = self._free_frames = 0
        return credit
