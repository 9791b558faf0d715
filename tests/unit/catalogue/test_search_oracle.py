"""Searches beside a reckoning that goes through all records, with whatever filters, while others register."""

import asyncio
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from loopd.protocol.geo import Location, between_km
from loopd.protocol.quantity import parse_quantity
from loopd.protocol.subjects import SubjectState
from loopd.protocol.timestamps import format_timestamp
from loopd.protocol.vocabulary import category_matches
from tests.exchange_support import MUNICH, NOW_MS
from tests.registry_support import material_id
from tests.search_support import SearchNode, search_node

HOUR_MS = 3_600_000
CATEGORIES = ("plastic-pet", "plastic-mixed", "paper-clean", "organic-food", "cardboard")
WORDS = ("grain", "grainy", "desk", "wet")
UNITS = ("kg", "g", "t", "l", "piece")
# A place is on the edge of a radius where the reckoning could go either way.
EDGE_KM = 1e-6

Stated = Mapping[str, Any]

CITIES = ((48.14, 11.58), (48.2, 16.37), (52.52, 13.4), (48.26, 11.67), (-17.0, -179.95), (-17.0, 179.95))
CORNERS = ((0.0, 0.0), (90.0, 5.0), (90.0, -120.0), (-90.0, 0.0), (0.0, 180.0), (0.0, -180.0))
AMOUNTS = (0, 1, 999, 1000, 1001, 500_000)


def some_place(random: Random) -> tuple[float, float]:
    anywhere = (random.randint(-9000, 9000) / 100, random.randint(-18000, 18000) / 100)
    return random.choice((*CITIES, *CITIES, *CORNERS, anywhere))


def some_record(random: Random) -> Stated:
    return {
        "category": random.choice(CATEGORIES),
        "quantity": (random.choice(AMOUNTS), random.choice(UNITS)),
        "place": random.choice((None, some_place(random), some_place(random))),
        "from": random.randint(-3, 3),
        "lasts": random.choice((None, None, random.randint(1, 6))),
        "asking": random.choice((None, random.randint(0, 5), random.randint(0, 5))),
        "words": random.choices(WORDS, k=random.randint(0, 3)),
        "state": random.choice((*[SubjectState.AVAILABLE] * 8, SubjectState.RESERVED, SubjectState.WITHDRAWN)),
    }


def some_query(random: Random) -> Stated:
    """A query of at most three filters, most of which find more than one page."""
    filters: dict[str, Any] = {
        "category": random.choice((*CATEGORIES, "plastic-*", "p*", "*")),
        "radius_km": random.choice((0, 30, 400, random.randint(0, 20_000), 20_016)),
        "near": some_place(random),
        "minimum": (random.choice(AMOUNTS), random.choice(UNITS)),
        "available_from": random.randint(-3, 3),
        "available_until": random.randint(-3, 3),
        "max_loop_cost": random.randint(0, 5),
        "text": random.choices(("grain", "des", "wet"), k=random.randint(1, 2)),
    }
    chosen = random.sample(sorted(filters), random.randint(0, 3))
    return {"limit": random.randint(1, 4), **{key: filters[key] for key in chosen}}


def document_of(record: Stated) -> dict[str, Any]:
    begins_ms = NOW_MS + record["from"] * HOUR_MS
    value, unit = record["quantity"]
    document: dict[str, Any] = {
        "category": record["category"],
        "quantity": {"value": value, "unit": unit},
        "available_from": format_timestamp(begins_ms),
        "metadata": {"notes": " ".join(record["words"])},
    }
    if record["place"] is not None:
        document["location"] = dict(zip(("lat", "lon"), record["place"], strict=True))
    if record["lasts"] is not None:
        document["expires"] = format_timestamp(begins_ms + record["lasts"] * HOUR_MS)
    if record["asking"] is not None:
        document["metadata"]["asking_price"] = record["asking"]
    return document


def body_of(query: Stated) -> dict[str, Any]:
    body: dict[str, Any] = {
        key: query[key] for key in ("limit", "category", "radius_km", "max_loop_cost") if key in query
    }
    if "near" in query:
        body["near"] = dict(zip(("lat", "lon"), query["near"], strict=True))
    if "minimum" in query:
        body["min_quantity"], body["unit"] = query["minimum"]
    if "text" in query:
        body["text"] = " ".join(query["text"])
    first, last = query.get("available_from"), query.get("available_until")
    if first is not None:
        body["available_from"] = format_timestamp(NOW_MS + first * HOUR_MS)
    if last is not None:
        body["available_until"] = format_timestamp(NOW_MS + (last if first is None else max(first, last)) * HOUR_MS)
    return body


def distance_km(record: Stated, query: Stated) -> float:
    near = Location(*query["near"]) if "near" in query else MUNICH
    return between_km(near, Location(*record["place"]) if record["place"] is not None else MUNICH)


def on_the_edge(record: Stated, query: Stated) -> bool:
    return "radius_km" in query and abs(distance_km(record, query) - query["radius_km"]) < EDGE_KM


def fits(record: Stated, query: Stated) -> bool:
    """Whether a search must find a record, its price aside."""
    begins, body = record["from"], query
    ends = float("inf") if record["lasts"] is None else begins + record["lasts"]
    value, unit = record["quantity"]
    here = parse_quantity(value, unit)
    if record["state"] is not SubjectState.AVAILABLE or ends <= 0 or value == 0:
        return False
    if not category_matches(record["category"], body.get("category", "*")):
        return False
    if "radius_km" in body and distance_km(record, query) > body["radius_km"]:
        return False
    if "minimum" in body:
        wanted = parse_quantity(*body["minimum"])
        if wanted.dimension is not here.dimension or wanted.is_more_than(here):
            return False
    first, last = body.get("available_from"), body.get("available_until")
    if first is not None and ends <= first:
        return False
    if last is not None and begins > (last if first is None else max(first, last)):
        return False
    return all(any(word.startswith(beginning) for word in record["words"]) for beginning in body.get("text", ()))


async def settle(node: SearchNode, number: int, record: Stated) -> None:
    await node.material(number, **document_of(record))
    if record["state"] is not SubjectState.AVAILABLE:
        await node.change(number, record["state"])


async def check(node: SearchNode, known: dict[str, Stated], query: Stated, newcomers: Sequence[Stated]) -> None:
    found: list[dict[str, Any]] = []
    totals: set[tuple[int, int | None]] = set()
    came = list(newcomers)
    later: dict[str, Stated] = {}
    async for page in node.pages(**body_of(query)):
        found += page["results"]
        totals.add((page["total"], page.get("omitted")))
        assert len(page["results"]) <= query["limit"]
        if came:
            number = len(known) + len(later)
            later[material_id(number)] = came.pop()
            await settle(node, number, later[material_id(number)])
    ids = [result["id"] for result in found]
    assert len(set(ids)) == len(ids)
    matching = {subject_id for subject_id, record in known.items() if fits(record, query)}
    priced = {subject_id for subject_id in matching if known[subject_id]["asking"] is not None}
    expected, omitted = matching, None
    if "max_loop_cost" in query:
        expected = {subject_id for subject_id in priced if known[subject_id]["asking"] <= query["max_loop_cost"]}
        omitted = len(matching - priced)
    edge = {subject_id for subject_id, record in known.items() if on_the_edge(record, query)}
    assert set(ids) - edge == expected - edge
    ((total, counted_out),) = totals
    assert total == len(ids)
    assert edge or counted_out == omitted
    distances = [result["distance_km"] for result in found if "distance_km" in result]
    assert distances == sorted(distances)
    assert bool(distances) == bool(found and ("near" in query or "radius_km" in query))
    known.update(later)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_a_search_finds_what_going_through_all_records_finds(seed: int) -> None:
    random = Random(seed)

    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            async with search_node(Path(directory)) as node:
                known: dict[str, Stated] = {}
                for number in range(40):
                    known[material_id(number)] = some_record(random)
                    await settle(node, number, known[material_id(number)])
                for _ in range(20):
                    newcomers = [some_record(random) for _ in range(random.randint(0, 2))]
                    await check(node, known, some_query(random), newcomers)

    asyncio.run(run())
