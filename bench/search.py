"""`python -m bench.search`: what a search costs among ten thousand, a hundred thousand and a million materials.

The materials lie anywhere in Europe, in 30 categories, and are put there by the registry's own SQL and the catalogue.
Radii are chosen so that as many match in each table. A search is timed from its query to its answer as JSON, in this
process, one after the other: first page of 20, with the exact total.
"""

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import asin, degrees, pi, radians, sin, sqrt
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import click

from bench.report import Setting, aligned, setting, told, write_into
from loopd.audit.service import AuditLog
from loopd.catalogue.query import read_query
from loopd.catalogue.search import Search
from loopd.catalogue.service import Catalogue
from loopd.clock import SystemClock
from loopd.database import Database, DatabaseSettings, Tx
from loopd.events.service import EventLog
from loopd.federation import nodes
from loopd.protocol.documents import check_document
from loopd.protocol.geo import MEAN_EARTH_RADIUS_KM, Location
from loopd.protocol.json_text import dump_json, read_json
from loopd.protocol.subjects import Subject, SubjectKind
from loopd.protocol.vocabulary import MATERIAL_CATEGORIES
from loopd.registry import tables
from loopd.registry.rules import facts_of
from loopd.registry.service import Registry
from loopd.signals.service import Signals
from loopd.signals.settings import SignalsSettings

SIZES = (10_000, 100_000, 1_000_000)
SOUTH, NORTH, WEST, EAST = 36.0, 65.0, -10.0, 30.0
MUNICH = Location(48.1351, 11.5820)
RARE = "ewaste-batteries"
# One material in so many is of the rare category, and as many have the rare word in their notes.
RARE_SHARE = 1_000
COMMON = tuple(category for category in MATERIAL_CATEGORIES if category != RARE)
WRITTEN_AT_ONCE = 500
CONTEXT = "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld"

MARK = "bench-search"


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of search: its title, and its body, made anew for each run."""

    title: str
    body: Callable[[Random], dict[str, Any]]
    following: bool = False


@dataclass(frozen=True, slots=True)
class Cost:
    """What a case came to in one table."""

    title: str
    matches: float
    cpu_ms: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Table:
    """A table of so many materials: what a registration's SQL took, what the index took beside it, and the searches."""

    rows: int
    record_us: float
    index_us: float
    costs: Sequence[Cost]


class Silent:
    """An announcer that has nobody to tell."""

    def record_changed(self, tx: Tx, subject: Subject) -> bytes | None:
        return None

    def announce(self, tx: Tx, subject: Subject) -> bytes | None:
        return None


def cases(rows: int) -> list[Case]:
    """The searches, each with about as many matches in every table but for the last two."""

    def around(matches: int, of: int, **filters: Any) -> Callable[[Random], dict[str, Any]]:
        radius_km = round(_radius_km(matches / of), 3)
        return lambda random: {**filters, "near": _near(random, 5.0), "radius_km": radius_km}

    def widely(**filters: Any) -> Callable[[Random], dict[str, Any]]:
        return lambda random: {**filters, "near": _near(random), "radius_km": 1_500}

    each = rows // len(COMMON)
    plastics = sum(category.startswith("plastic-") for category in COMMON)
    many = around(min(1_000, each // 2), each, category="organic-food")
    return [
        Case("a category in a radius, 20 match", around(20, each, category="organic-food")),
        Case("a category in a radius, 1,000 match", many),
        Case("the same, the page after", many, following=True),
        Case("`plastic-*` in a radius, 1,000 match", around(1_000, each * plastics, category="plastic-*")),
        Case("all categories in a radius, 1,000 match", around(1_000, rows)),
        Case("the same, with at least 400 kg", around(1_000, rows, min_quantity=400)),
        Case("a rare category within 1,500 km", widely(category=RARE)),
        Case("a rare word within 1,500 km", widely(text="rare")),
    ]


async def measure(root: Path, rows: int, searches: int) -> Table:
    """Fill a table and search it."""
    clock = SystemClock()
    home = SimpleNamespace(node_id="munich.loop", city="Munich", location=MUNICH, context_url=CONTEXT)
    events = EventLog(clock)
    registry = Registry(home, clock, AuditLog(clock), events, Silent())
    signals = Signals("munich.loop", CONTEXT, SignalsSettings(), clock, events)
    catalogue = Catalogue(home, clock, nodes)
    path = root / f"{rows}.db"
    async with await Database.create(path, DatabaseSettings(synchronous="NORMAL"), clock) as database:
        record_us, index_us = await _fill(database, catalogue, rows)
        search = Search(home, database, clock, registry, signals, nodes)
        costs = [await _cost(search, case, searches) for case in cases(rows)]
    path.unlink()
    return Table(rows, record_us, index_us, costs)


async def _fill(database: Database, catalogue: Catalogue, rows: int) -> tuple[float, float]:
    spent_s = [0.0, 0.0]

    def write(tx: Tx, bodies: Sequence[bytes]) -> None:
        for body in bodies:
            document = check_document(body, "MaterialDNA")
            facts = facts_of("MaterialDNA", document.value)
            begun = time.thread_time()
            record = tables.insert_record(tx, facts, body, None, 0)
            inserted = time.thread_time()
            if record is None:
                raise RuntimeError("an id came twice")
            catalogue.record_changed(tx, record)
            spent_s[0] += inserted - begun
            spent_s[1] += time.thread_time() - inserted

    for bodies in _batches(rows):
        await database.write(lambda tx, bodies=bodies: write(tx, bodies))  # type: ignore[misc]
    return spent_s[0] / rows * 1e6, spent_s[1] / rows * 1e6


def _batches(rows: int) -> Iterator[list[bytes]]:
    random = Random(7)
    for first in range(0, rows, WRITTEN_AT_ONCE):
        yield [material(random, number) for number in range(first, min(rows, first + WRITTEN_AT_ONCE))]


def material(random: Random, number: int) -> bytes:
    """A MaterialDNA that lies anywhere in Europe."""
    rare = number % RARE_SHARE == 0
    place = anywhere(random)
    return dump_json(
        {
            "@context": CONTEXT,
            "@type": "MaterialDNA",
            "schema_version": "0.2.0",
            "id": f"MAT-DE-MUC-2026-BATCH-{number:08d}",
            "category": RARE if rare else random.choice(COMMON),
            "quantity": {"value": random.randrange(1, 1_000), "unit": "kg"},
            "origin_city": "Munich",
            "current_city": "Munich",
            "location": {"lat": place.lat, "lon": place.lon},
            "available_from": "2026-01-01T00:00:00Z",
            "metadata": {"source": "bench", "batch_number": str(number), "notes": "rare" if rare else "baled and dry"},
        }
    )


async def _cost(search: Search, case: Case, searches: int) -> Cost:
    random = Random(11)
    spent_ms: list[float] = []
    matches, cpu_s = 0, 0.0
    for _ in range(searches):
        body = dump_json(case.body(random))
        query = read_query(SubjectKind.MATERIAL, read_json(body), MUNICH)
        cursor = (await search.page(query)).following if case.following else None
        begun, cpu_begun = time.perf_counter(), time.process_time()
        page = await search.page(read_query(SubjectKind.MATERIAL, read_json(body), MUNICH), cursor)
        dump_json(page.results)
        spent_ms.append((time.perf_counter() - begun) * 1e3)
        cpu_s += time.process_time() - cpu_begun
        matches += page.total
    spent_ms.sort()
    p50_ms, p99_ms = spent_ms[searches // 2], spent_ms[-1 - searches // 100]
    return Cost(case.title, matches / searches, cpu_s / searches * 1e3, p50_ms, p99_ms)


def anywhere(random: Random, margin_degrees: float = 0.0) -> Location:
    """A place in Europe, as likely in one square kilometre as in another."""
    low, high = sin(radians(SOUTH + margin_degrees)), sin(radians(NORTH - margin_degrees))
    lat = degrees(asin(random.uniform(low, high)))
    return Location(round(lat, 5), round(random.uniform(WEST + margin_degrees, EAST - margin_degrees), 5))


def _near(random: Random, margin_degrees: float = 0.0) -> dict[str, float]:
    place = anywhere(random, margin_degrees)
    return {"lat": place.lat, "lon": place.lon}


def _radius_km(share: float) -> float:
    """The radius of a circle that has this share of the area."""
    area = radians(EAST - WEST) * (sin(radians(NORTH)) - sin(radians(SOUTH))) * MEAN_EARTH_RADIUS_KM**2
    return sqrt(share * area / pi)


def as_markdown(circumstances: Setting, measured: Sequence[Table]) -> str:
    """The circumstances, then the searches, the tables side by side."""
    head = ["among"]
    registering = [["registering: the record's SQL, µs"], ["registering: the index beside it, µs"]]
    for table in measured:
        head += [f"{table.rows:,}: found", "CPU ms", "p50 ms", "p99 ms"]
        for line, spent_us in zip(registering, (table.record_us, table.index_us), strict=True):
            line += ["", f"{spent_us:.0f}", "", ""]
    rows = []
    for position, case in enumerate(measured[0].costs):
        row = [case.title]
        for table in measured:
            cost = table.costs[position]
            row.append(f"{cost.matches:,.0f}")
            row += [f"{figure:.1f}" for figure in (cost.cpu_ms, cost.p50_ms, cost.p99_ms)]
        rows.append(row)
    return "\n".join([told(circumstances), "", *aligned([head, *rows, *registering], left=(0,))])


@click.command()
@click.option("--searches", default=300, show_default=True, help="How many searches of each kind are timed.")
@click.option("--rows", "sizes", type=int, multiple=True, default=SIZES, show_default=True, help="How many materials.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build"),
    show_default=True,
    help="Where the databases are made.",
)
@click.option("--write", type=click.Path(path_type=Path, exists=True), help="Also write the table into this document.")
def main(searches: int, sizes: Sequence[int], directory: Path, write: Path | None) -> None:
    """Measure searches in tables of different sizes."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as root:
        measured = [asyncio.run(measure(Path(root), rows, searches)) for rows in sizes]
        circumstances = setting(f"python -m bench.search --searches {searches}", Path(root))
    table = as_markdown(circumstances, measured)
    click.echo(table)
    if write is not None:
        write_into(write, table, MARK)


if __name__ == "__main__":
    main()
