"""Nodes that are or ask to be peers, as the operator sees them."""

from typing import Any

from loopd.crypto.keys import PublicKey
from loopd.federation import nodes
from loopd.federation.nodes import AddedBy
from loopd.gossip.health import PeerHealth
from loopd.gossip.membership import PeerStatus, Why
from loopd.gossip.reputation import Reputation
from loopd.protocol.timestamps import format_timestamp


def show_peer(
    record: nodes.NodeRecord,
    health: PeerHealth | None,
    watched: PeerStatus | None,
    why: Why | None,
    reputation: Reputation,
    *,
    linked: bool,
    waiting: int,
) -> dict[str, Any]:
    """A node that stands in some way. `why`: what was observed of it last; `waiting`: how much waits for it."""
    node = record.known
    return {
        "id": node.node_id,
        "name": record.name,
        "endpoint": node.endpoint,
        "status": node.standing.value,
        "auth": node.auth.value,
        "admission": record.added_by.value,
        "fingerprint": _fingerprint(node.public_key),
        "features": sorted(node.features),
        "location": None if node.location is None else {"lat": node.location.lat, "lon": node.location.lon},
        "health": None if health is None else health.state.value,
        "why": None if why is None else why.value,
        "suspected_by": [] if watched is None else sorted(watched.suspected_by),
        "round_trip_ms": None if watched is None else watched.round_trip_ms,
        "last_success": _moment(None if health is None else health.last_success_ms),
        "last_failure": _moment(None if health is None else health.last_failure_ms),
        "next_attempt": _moment(None if health is None else health.next_attempt_at_ms),
        "linked": linked,
        "queue": waiting,
        "conduct": reputation.conduct.value,
        "score": round(reputation.points, 1),
    }


def show_claim(claim: nodes.HandshakeClaim) -> dict[str, Any]:
    """A node that asks to be a peer, and is none yet."""
    return {
        "id": claim.node_id,
        "name": claim.name,
        "endpoint": claim.endpoint,
        "status": "waiting",
        "auth": None,
        "admission": AddedBy.HANDSHAKE.value,
        "fingerprint": _fingerprint(claim.public_key),
        "features": sorted(claim.features),
        "location": None,
        "health": None,
        "why": None,
        "suspected_by": [],
        "round_trip_ms": None,
        "last_success": None,
        "last_failure": None,
        "next_attempt": None,
        "linked": False,
        "queue": 0,
        "conduct": None,
        "score": None,
    }


def _fingerprint(public_key: bytes | None) -> str | None:
    return None if public_key is None else PublicKey(public_key).fingerprint


def _moment(timestamp_ms: int | None) -> str | None:
    return None if timestamp_ms is None else format_timestamp(timestamp_ms)
