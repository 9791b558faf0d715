"""Announcements as they are stored: this node's own, and those that it heard."""

from dataclasses import dataclass

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.gossip.flood import HopState
from loopd.gossip.share import Held
from loopd.protocol.geo import Location
from loopd.protocol.subjects import SubjectKind


@dataclass(frozen=True, slots=True)
class Message:
    """What its origin signed, and what is asked of it beside its text.

    `relayable`: the origin's signature holds for others too. One that names its receiver does not, nor one of a node
    that signs nothing: such a message is never passed on.
    """

    message_id: bytes
    origin: str
    origin_timestamp: str
    origin_signature: str
    body: bytes
    subject: str
    subject_kind: SubjectKind
    anchored: bool
    relayable: bool
    radius_km: float | None
    origin_location: Location | None
    valid_until_ms: int


_HELD = """
SELECT (SELECT messages FROM message_count) AS messages,
       coalesce((SELECT messages FROM message_share WHERE role = 'origin' AND node_id = ?), 0) AS of_origin,
       coalesce((SELECT messages FROM message_share WHERE role = 'sender' AND node_id = ?), 0) AS from_sender
"""


def count_held(source: RowSource, origin: str, sender: str) -> Held:
    """How many messages there are, how many of that origin, and how many that sender was the first to bring."""
    row = source.one(_HELD, (origin, sender))
    if row is None:
        raise RuntimeError("a query of one row has none")
    return Held(row["messages"], row["of_origin"], row["from_sender"])


def store(tx: Tx, message: Message, held: HopState, received_at_ms: int, came_from: str | None = None) -> None:
    """Store a message that is not held yet; `held` is the best copy of it so far, None in `came_from` an own one."""
    place = message.origin_location
    tx.execute(
        "INSERT INTO message (message_id, origin, origin_timestamp, origin_signature, body, subject, subject_kind,"
        " anchored, relayable, radius_km, origin_lat, origin_lon, valid_until_ms, best_ttl, hop_value, received_at_ms,"
        " came_from)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            message.message_id,
            message.origin,
            message.origin_timestamp,
            message.origin_signature,
            message.body,
            message.subject,
            message.subject_kind.value,
            message.anchored,
            message.relayable,
            message.radius_km,
            None if place is None else place.lat,
            None if place is None else place.lon,
            message.valid_until_ms,
            held.ttl,
            held.hop_value,
            received_at_ms,
            came_from,
        ),
    )
