"""`/api/v1/federation`: the registry of nodes, handshakes, and what was heard announced (§9.1, §9.3)."""

from typing import Any

from loopd.api.answers import LD_JSON, Answer, entity_answer, json_answer
from loopd.api.node_effects import DOCUMENT_REFUSALS
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Body, QueryParameter, RateClass, Route, Success
from loopd.clock import Clock
from loopd.crypto.keys import PublicKey
from loopd.database.database import Database
from loopd.federation import heard, nodes
from loopd.federation.service import Federation
from loopd.gossip.health import PeerHealth
from loopd.identity import Identity
from loopd.protocol.limits import HANDSHAKE_MAX_BYTES
from loopd.protocol.nodes import KnownNode, Standing
from loopd.protocol.signing import signed_path
from loopd.protocol.timestamps import format_timestamp

_ENTRY_NUMBER_MAX = 2**62

_CURSOR = QueryParameter(
    name="cursor",
    description="Where the page begins; taken from `next` of the page before.",
    kind=int,
    default=_ENTRY_NUMBER_MAX,
    minimum=1,
    maximum=_ENTRY_NUMBER_MAX,
    reason="bad_cursor",
)

# Peers, and the origins whose messages this node holds and so may relay, whether or not they are to become peers. A
# node's place is what it said of itself, else what its newest announcement says. Where neither is known it is listed at
# this node's own place: who relays an origin lists its key, and the registry has no form for a node without a place.
_LISTED = """
SELECT n.*, m.origin_lat, m.origin_lon FROM node n
LEFT JOIN message m ON m.message_number = (SELECT max(message_number) FROM message WHERE origin = n.node_id)
WHERE n.standing IN ('peer', 'suspended') OR (n.standing IN ('introduced', 'pending') AND m.message_number IS NOT NULL)
ORDER BY n.standing = 'introduced', n.node_id LIMIT :limit
"""


class FederationRoutes:
    """The open side of the federation."""

    def __init__(self, identity: Identity, federation: Federation, database: Database, clock: Clock) -> None:
        self._identity = identity
        self._federation = federation
        self._database = database
        self._clock = clock

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/api/v1/federation/nodes",
                handler=self._nodes,
                noun="Federation",
                summary="The nodes that this one knows",
                description="Its peers, and every origin whose announcements it relays, each with its key.",
                rate=RateClass.NODE,
                successes={
                    200: Success(description="The registry", schema="NodeRegistry", content_type=LD_JSON),
                },
            ),
            Route(
                method="POST",
                path="/api/v1/federation/handshake",
                handler=self._handshake,
                noun="Federation",
                summary="Ask to become a peer",
                description="Signed like every node request, with the key that stands in the document.",
                rate=RateClass.NODE,
                body=Body.REQUIRED,
                body_max_bytes=HANDSHAKE_MAX_BYTES,
                request_schema="NodeHandshake",
                successes={
                    202: Success(
                        description="Accepted, or rejected with a message; `pending` waits for the operator",
                        schema="NodeHandshakeResponse",
                        content_type=LD_JSON,
                    ),
                },
                refusals={
                    400: (*DOCUMENT_REFUSALS, "origin_mismatch", "bad_endpoint", "bad_public_key"),
                    401: ("missing_header", "bad_timestamp", "clock_skew", "bad_signature", "wrong_target"),
                    409: ("own_node",),
                },
            ),
            Route(
                method="GET",
                path="/api/v1/federation/announcements",
                handler=self._announcements,
                noun="Federation",
                summary="What this node heard announced",
                description="One entry for each origin and subject, its newest valid state, newest first. "
                "`next` is the path of the page that follows, null on the last one.",
                query=(LIMIT, _CURSOR),
                successes={200: Success(description="A page of the list", schema=_HEARD_SCHEMA)},
            ),
        ]

    async def _nodes(self, request: Request) -> Answer:
        now_ms = self._clock.now_ms()
        rows = await self._database.all(_LISTED, {"limit": nodes.INTRODUCED_NODES_MAX})
        return entity_answer(
            {
                "@context": self._identity.context_url,
                "@type": "NodeRegistry",
                "schema_version": "0.2.0",
                "version": format_timestamp(now_ms)[:10],
                "nodes": [self._listed(nodes.known_node(row), row["origin_lat"], row["origin_lon"]) for row in rows],
            }
        )

    def _listed(self, node: KnownNode, lat: float | None, lon: float | None) -> dict[str, Any]:
        if node.location is not None:
            lat, lon = node.location.lat, node.location.lon
        if lat is None or lon is None:
            lat, lon = self._identity.location.lat, self._identity.location.lon
        health = self._federation.health_of(node.node_id)
        entry: dict[str, Any] = {
            "id": node.node_id,
            "endpoint": node.endpoint,
            "location": {"lat": lat, "lon": lon},
            "status": _status(node, health),
            "capabilities": sorted(node.features),
        }
        if node.public_key is not None:
            entry["public_key"] = PublicKey(node.public_key).to_pem()
        if health is not None and health.last_success_ms is not None:
            entry["last_seen"] = format_timestamp(health.last_success_ms)
        return entry

    async def _handshake(self, request: Request) -> Answer:
        response = await self._federation.receive_handshake(signed_path(request.target), request.headers, request.body)
        return entity_answer(response, 202)

    async def _announcements(self, request: Request) -> Answer:
        query = {"now_ms": self._clock.now_ms(), "before": request.integer("cursor"), "limit": request.limit + 1}
        rows = await self._database.all(heard.PAGE, query)
        page = rows[: request.limit]
        following = None
        if len(rows) > len(page):
            last = page[-1]["heard_number"]
            following = f"/api/v1/federation/announcements?limit={request.limit}&cursor={last}"
        return json_answer({"results": [heard.listed(row) for row in page], "next": following})


def _status(node: KnownNode, health: PeerHealth | None) -> str:
    """A new peer is believed to be there here, but nobody else has to believe it before it answered once."""
    if node.standing is Standing.SUSPENDED:
        return "suspended"
    if node.standing is not Standing.PEER:
        return "active"
    return "inactive" if health is None or health.last_success_ms is None else health.registry_status


_HEARD_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["results", "next"],
    "properties": {
        "next": {"type": ["string", "null"], "description": "The path of the page that follows."},
        "results": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["message_id", "subject", "origin", "ttl", "received_at", "verified", "via", "available"],
                "properties": {
                    "message_id": {"type": "string", "description": "Hex SHA-256 that names the announcement."},
                    "subject": {"type": "string", "description": "Id of the material or product."},
                    "kind": {"type": "string", "enum": ["material", "product"]},
                    "origin": {"type": "string", "description": "The announcing node."},
                    "available": {"type": "boolean"},
                    "ttl": {"type": "integer", "description": "Best TTL received."},
                    "via": {"type": "string", "description": "The peer whose copy was delivered."},
                    "verified": {"type": "boolean", "description": "Whether the origin's signature held."},
                    "received_at": {"type": "string", "format": "date-time"},
                    "valid_until": {"type": "string", "format": "date-time"},
                    "category": {"type": "string"},
                    "quantity": {"type": "number"},
                    "unit": {"type": "string"},
                    "location": {"type": "object", "description": "Rounded to 0.01°."},
                },
            },
        },
    },
}
