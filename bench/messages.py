"""What is sent: materials to register, and announcements of a peer that signed them in advance."""

import itertools
import json
import os
from collections.abc import Iterator
from decimal import Decimal

from bench.load import http_request
from loopd.clock import SystemClock
from loopd.crypto.hop_chain import hop_anchor
from loopd.crypto.keys import SEED_BYTES, NodeKey, encode_signature
from loopd.gossip.frames import Copy
from loopd.net.link import Challenger
from loopd.protocol.announcement import build_announcement
from loopd.protocol.geo import Location
from loopd.protocol.limits import FLOOD_TTL_MAX
from loopd.protocol.signing import (
    ANNOUNCE_PATH,
    API_ROOT,
    X_LOOP_HOP,
    X_LOOP_ORIGIN,
    X_LOOP_ORIGIN_SIGNATURE,
    X_LOOP_ORIGIN_TIMESTAMP,
    X_LOOP_TTL,
    X_NODE_ID,
    X_NODE_KEY_ID,
    X_NODE_SIGNATURE,
    X_NODE_TARGET,
    X_TIMESTAMP,
    announcement_signing_string,
    request_signing_string,
)
from loopd.protocol.subjects import Subject, SubjectKind, SubjectState
from loopd.protocol.timestamps import format_timestamp
from loopd.protocol.vocabulary import Feature

CONTEXT = "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld"
MATERIAL_PATH = f"{API_ROOT}/material"
HANDSHAKE_PATH = f"{API_ROOT}/federation/handshake"
LD_JSON = "application/ld+json"
RADIUS_KM = 1000
VALIDITY_MS = 24 * 3600 * 1000

_numbers = itertools.count(1)


def material_id(number: int) -> str:
    """The id of the material with that number."""
    return f"MAT-DE-MUC-2026-FOOD-BENCH{number:08}"


def material(number: int) -> bytes:
    """A material as breweries register it, some 900 bytes."""
    return json.dumps(
        {
            "@context": CONTEXT,
            "@type": "MaterialDNA",
            "schema_version": "0.2.0",
            "id": material_id(number),
            "category": "organic-food",
            "quantity": {"value": 500.5, "unit": "kg"},
            "quality": 0.92,
            "origin_city": "Munich",
            "current_city": "Munich",
            "location": {"lat": 48.1351, "lon": 11.582},
            "available_from": "2026-01-15T08:00:00Z",
            "certifications": ["organic", "food-safe"],
            "images": ["https://example.com/spent-grain-1.jpg", "https://example.com/spent-grain-2.jpg"],
            "passport": {
                "passport_id": f"passport-{number}",
                "passport_status": "available",
                "issuer": "City of Munich",
                "access_scope": "public",
                "country_of_production": "DE",
                "carbon_footprint_kg_co2e": 12.5,
                "recycled_content_percent": 0,
                "hazardous": False,
            },
            "classification": {"ewc_code": "02 07 04", "hs_code": "230330"},
            "metadata": {"process": "brewing", "moisture_percent": 78.4, "asking_price": 25},
        },
        separators=(",", ":"),
    ).encode()


def registrations(token: str) -> Iterator[bytes]:
    """Requests that each register a material nobody has registered."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": LD_JSON}
    return (http_request("POST", MATERIAL_PATH, headers, material(number)) for number in _numbers)


class BenchPeer:
    """Another node, as far as a node that hears from it can tell."""

    node_id = "bench.loop"

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self._key = NodeKey.from_seed(os.urandom(SEED_BYTES))
        self._clock = SystemClock()

    def handshake(self, target: str) -> bytes:
        """The request by which it becomes a peer where admission is open."""
        body = {
            "@context": CONTEXT,
            "@type": "NodeHandshake",
            "schema_version": "0.2.0",
            "node_id": self.node_id,
            "name": "Bench",
            "endpoint": self._endpoint,
            "capabilities": [Feature.FLOOD, Feature.LINK],
            "public_key": self._key.public.to_pem(),
            "timestamp": format_timestamp(self._clock.now_ms()),
        }
        return self._signed_request(HANDSHAKE_PATH, json.dumps(body).encode(), target, {})

    def announcement(self, target: str) -> bytes:
        """A request that announces a material of its own, as its origin sends it to a direct peer."""
        copy = self.copy(0)
        flood_headers = {
            X_LOOP_ORIGIN: copy.origin,
            X_LOOP_ORIGIN_TIMESTAMP: copy.origin_timestamp,
            X_LOOP_ORIGIN_SIGNATURE: copy.origin_signature,
            X_LOOP_TTL: str(copy.ttl),
            X_LOOP_HOP: (copy.hop_value or b"").hex(),
        }
        return self._signed_request(ANNOUNCE_PATH, copy.body, target, flood_headers)

    def challenger(self) -> Challenger:
        """Who it is when it dials a link."""
        return Challenger(self.node_id, lambda: self._key, os.urandom)

    def copy(self, number: int) -> Copy:
        """An announcement of a material of its own, as it goes over a link under that number."""
        now_ms = self._clock.now_ms()
        seed = os.urandom(32)
        subject = Subject(
            material_id(next(_numbers)),
            SubjectKind.MATERIAL,
            "organic-food",
            Decimal("500.5"),
            "kg",
            now_ms,
            None,
            Location(48.1351, 11.582),
            SubjectState.AVAILABLE,
        )
        body = build_announcement(
            subject,
            context_url=CONTEXT,
            origin=self.node_id,
            origin_location=Location(48.1351, 11.582),
            revision=1,
            issued_at_ms=now_ms,
            valid_until_ms=now_ms + VALIDITY_MS,
            radius_km=RADIUS_KM,
            hop_anchor=hop_anchor(seed, FLOOD_TTL_MAX),
        )
        timestamp = format_timestamp(now_ms)
        origin_signature = self._key.sign(announcement_signing_string(self.node_id, timestamp, body))
        signature = encode_signature(origin_signature)
        return Copy(number, self.node_id, timestamp, signature, FLOOD_TTL_MAX, seed, body)

    def _signed_request(self, path: str, body: bytes, target: str, more_headers: dict[str, str]) -> bytes:
        timestamp = format_timestamp(self._clock.now_ms())
        signing_string = request_signing_string("POST", path, self.node_id, timestamp, target, body)
        headers = {
            "Content-Type": LD_JSON,
            X_NODE_ID: self.node_id,
            X_TIMESTAMP: timestamp,
            X_NODE_TARGET: target,
            X_NODE_KEY_ID: self._key.public.key_id,
            X_NODE_SIGNATURE: encode_signature(self._key.sign(signing_string)),
        }
        return http_request("POST", path, {**headers, **more_headers}, body)
