"""Controlled flooding (§9.3): what to do with one received copy of an announcement, and which peers to pass it to.

Both are pure functions of values. The caller loads a `View` of what is stored, asks `decide`, and applies the decision
in the same transaction: store and engine cannot disagree, and two copies of one message cannot race. See
docs/protocol-notes.md, Flooding.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from loopd.crypto.hop_chain import decode_hop_value, next_hop_value, reaches_anchor
from loopd.protocol.announcement import Announcement, times_are_sound
from loopd.protocol.errors import Invalid
from loopd.protocol.geo import Location, within_radius
from loopd.protocol.limits import FLOOD_TTL_MAX
from loopd.protocol.nodes import KnownNode, Standing
from loopd.protocol.signing import X_LOOP_HOP, X_LOOP_TTL
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import Feature

# The TTL that counts for a full-form copy without a hop value: its holder could prove nothing to others.
_UNPROVED_TTL: Final = 1
_TTL_TEXT: Final = re.compile(rf"[1-{FLOOD_TTL_MAX}]", re.ASCII)


class Reason(StrEnum):
    """What was decided for a copy: one code each. The order is the order of the checks; the first that holds rules."""

    ORIGIN_MISMATCH = "origin_mismatch"  # the body's origin did not sign it, or a short form came from another sender
    BAD_HOP = "bad_hop"  # the TTL is not one this copy can have, or its hop value does not prove it
    BAD_TIMES = "bad_times"  # its times contradict each other, or lie ahead of this node's clock
    DUPLICATE = "duplicate"  # known with this TTL or a higher one, or this node's own
    EXPIRED = "expired"
    OUT_OF_SCOPE = "out_of_scope"  # this node lies outside the radius
    SUPERSEDED = "superseded"  # a newer state of the subject is known
    UPGRADED = "upgraded"  # known, but with a lower TTL: passed on again, not delivered again
    ACCEPTED = "accepted"  # new: delivered

    @property
    def is_refusal(self) -> bool:
        """Whether the sender is at fault and is answered 400. Every other reason is answered 202."""
        return self in _REFUSALS


_REFUSALS: Final = {
    Reason.ORIGIN_MISMATCH: "The origin in the body is not the node that signed the announcement.",
    Reason.BAD_HOP: "The TTL is not one that this copy can have, or the hop value does not prove it.",
    Reason.BAD_TIMES: "The announcement's times contradict each other or lie ahead of this node's clock.",
}


class Relay(StrEnum):
    """Whether a copy is passed on, and if not, why: one code each."""

    FORWARDED = "forwarded"
    NOT_ACCEPTED = "not_accepted"  # the decision's reason says why
    UNVERIFIED = "unverified"  # from a node without signatures: nobody else could check it
    NO_HOP_PROOF = "no_hop_proof"  # a full form without a hop value
    LAST_HOP = "last_hop"  # received with TTL 1


@dataclass(frozen=True, slots=True)
class HopState:
    """How far a copy may still travel, and the hop value that proves it (None in the plain form)."""

    ttl: int
    hop_value: bytes | None


@dataclass(frozen=True, slots=True)
class Copy:
    """One received copy.

    `sender` sent it and is authenticated, `origin` signed it: the same in the short form. `ttl` and `hop_value` are
    those of its headers, `ttl` None where the short form has none. `verified` is false only for a node that the
    operator admitted without signatures.
    """

    announcement: Announcement
    message_id: bytes
    sender: str
    origin: str
    origin_timestamp_ms: int
    ttl: int | None
    hop_value: bytes | None
    verified: bool = True

    @property
    def is_direct(self) -> bool:
        """Whether the origin itself sent it."""
        return self.sender == self.origin


@dataclass(frozen=True, slots=True)
class Newest:
    """The newest known state of a subject of an origin."""

    revision: int
    issued_at_ms: int
    message_id: bytes
    verified: bool = True


@dataclass(frozen=True, slots=True)
class View:
    """What this node knows that bears on a copy.

    `seen` is the best copy of this message held so far, `newest` the newest state of the copy's (origin, subject);
    None where there is none.
    """

    node_id: str
    location: Location
    seen: HopState | None
    newest: Newest | None


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a copy.

    `deliver`: hand it to the modules; it is now the newest state of its subject. `held`: store this as the best
    copy. `forward`: pass the message on like this. Both None where nothing changes.
    """

    reason: Reason
    deliver: bool
    held: HopState | None
    forward: HopState | None
    relay: Relay

    def refusal(self) -> Invalid | None:
        """The answer to a sender at fault; None where the answer is 202."""
        return Invalid(self.reason.value, _REFUSALS[self.reason]) if self.reason.is_refusal else None


def read_hop_headers(ttl_text: str | None, hop_text: str | None) -> tuple[int | None, bytes | None]:
    """`X-Loop-TTL` and `X-Loop-Hop` as values: one decimal digit 1 to 3, and 32 bytes in lower-case hex.

    Raises Invalid `bad_hop` for any other text, and for a hop value without a TTL.
    """
    if ttl_text is None and hop_text is not None:
        raise Invalid(Reason.BAD_HOP, f"{X_LOOP_HOP} needs {X_LOOP_TTL} beside it.")
    if ttl_text is not None and _TTL_TEXT.fullmatch(ttl_text) is None:
        raise Invalid(Reason.BAD_HOP, f"{X_LOOP_TTL} is one digit, 1 to {FLOOD_TTL_MAX}.")
    try:
        hop_value = None if hop_text is None else decode_hop_value(hop_text)
    except ValueError as error:
        raise Invalid(Reason.BAD_HOP, f"{X_LOOP_HOP} is 64 lower-case hexadecimal digits.") from error
    return None if ttl_text is None else int(ttl_text), hop_value


def decide(copy: Copy, view: View, now_ms: int) -> Decision:
    """What becomes of a copy, by the first check of `Reason` that holds.

    Only a decision that delivers or holds something rests on the origin's signature, so a caller may ask first and
    verify after: a known message then costs no verification.
    """
    announcement = copy.announcement
    if announcement.origin != copy.origin or (copy.sender != copy.origin and not _may_relay(copy)):
        return _nothing(Reason.ORIGIN_MISMATCH)
    received = _received(copy)
    if received is None:
        return _nothing(Reason.BAD_HOP)
    if not times_are_sound(announcement, copy.origin_timestamp_ms, now_ms):
        return _nothing(Reason.BAD_TIMES)
    if copy.origin == view.node_id or (view.seen is not None and received.ttl <= view.seen.ttl):
        return _nothing(Reason.DUPLICATE)
    if announcement.valid_until_ms <= now_ms:
        return _nothing(Reason.EXPIRED)
    if not _in_scope(announcement.origin_location, announcement.radius_km, view.location):
        return _nothing(Reason.OUT_OF_SCOPE)
    if _is_superseded(copy, view.newest):
        return _nothing(Reason.SUPERSEDED)
    forward, relay = _onward(copy, received)
    if view.seen is not None:
        return Decision(Reason.UPGRADED, False, received, forward, relay)
    return Decision(Reason.ACCEPTED, True, received, forward, relay)


def _nothing(reason: Reason) -> Decision:
    return Decision(reason, False, None, None, Relay.NOT_ACCEPTED)


def _may_relay(copy: Copy) -> bool:
    """Whether a sender that is not the origin may have sent this: not the short form, and not unverified."""
    return copy.ttl is not None and copy.verified


def _received(copy: Copy) -> HopState | None:
    """The TTL that counts for this copy, with its proof; None where it cannot have the TTL that it claims."""
    announcement = copy.announcement
    if copy.ttl is None:
        # The sender is the origin. A plain form starts here like any flood.
        return HopState(_UNPROVED_TTL if announcement.anchored else announcement.ttl, None)
    allowed = copy.ttl == announcement.ttl if copy.is_direct else 1 <= copy.ttl < announcement.ttl
    if not allowed:
        return None
    if announcement.hop_anchor is None:
        return HopState(copy.ttl, None)
    if copy.hop_value is None or not reaches_anchor(copy.hop_value, copy.ttl, announcement.hop_anchor):
        return None
    return HopState(copy.ttl, copy.hop_value)


def _onward(copy: Copy, received: HopState) -> tuple[HopState | None, Relay]:
    """The copy to pass on: one TTL less, the hop value hashed once. None with the reason where there is none."""
    if not copy.verified:
        return None, Relay.UNVERIFIED
    if copy.announcement.anchored and received.hop_value is None:
        return None, Relay.NO_HOP_PROOF
    if received.ttl == 1:
        return None, Relay.LAST_HOP
    hop_value = None if received.hop_value is None else next_hop_value(received.hop_value)
    return HopState(received.ttl - 1, hop_value), Relay.FORWARDED


def _is_superseded(copy: Copy, newest: Newest | None) -> bool:
    """Whether a newer state is known: by revision, then by time, then by id, so that all nodes end with the same one.

    What is verified stands above what is not: nobody can silence an origin by naming it without a signature.
    """
    if newest is None:
        return False
    announcement = copy.announcement
    rank = (copy.verified, announcement.revision, announcement.issued_at_ms, copy.message_id)
    return rank < (newest.verified, newest.revision, newest.issued_at_ms, newest.message_id)


def _in_scope(origin_location: Location | None, radius_km: float | None, place: Location) -> bool:
    return origin_location is None or within_radius(origin_location, place, radius_km)


class Route(StrEnum):
    """Whether a peer is sent a message, and if not, why: one code each. The first that holds rules."""

    NOT_A_PEER = "not_a_peer"
    CAME_FROM = "came_from"  # the peer that sent it here
    ORIGIN = "origin"
    PLAIN_PEER = "plain_peer"  # speaks only §8.2, which has no form for what another node originated
    NO_PRODUCTS = "no_products"  # a product, and the peer does not know them
    OUTSIDE_RADIUS = "outside_radius"
    OUTDATED = "outdated"  # a better copy of it, or a newer state of its subject, goes out instead
    SEND = "send"


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What routing must know of a message. `came_from` is the peer that sent it here, None for this node's own."""

    origin: str
    subject_kind: SubjectKind
    origin_location: Location | None
    radius_km: float | None
    came_from: str | None

    @classmethod
    def of(cls, announcement: Announcement, came_from: str | None) -> "Outgoing":
        """The routing part of an announcement."""
        return cls(
            announcement.origin,
            announcement.subject_kind,
            announcement.origin_location,
            announcement.radius_km,
            came_from,
        )


def route(message: Outgoing, peer: KnownNode) -> Route:
    """Whether to send the message to the peer."""
    if peer.standing is not Standing.PEER:
        return Route.NOT_A_PEER
    if peer.node_id == message.came_from:
        return Route.CAME_FROM
    if peer.node_id == message.origin:
        return Route.ORIGIN
    if message.came_from is not None and not peer.is_loopd:
        return Route.PLAIN_PEER
    if message.subject_kind is SubjectKind.PRODUCT and Feature.PRODUCTS not in peer.features:
        return Route.NO_PRODUCTS
    if peer.location is not None and not _in_scope(message.origin_location, message.radius_km, peer.location):
        return Route.OUTSIDE_RADIUS
    return Route.SEND


def forward_targets(
    message: Announcement, neighbours: Iterable[KnownNode], came_from: str | None
) -> list[tuple[str, Route]]:
    """Each neighbour's id with what `route` says of it, in the given order; `came_from` None for one's own message."""
    outgoing = Outgoing.of(message, came_from)
    return [(peer.node_id, route(outgoing, peer)) for peer in neighbours]
