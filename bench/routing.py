"""`python -m bench.routing`: ranking 5,000 destinations, planning 500 against 500, registering beside 10,000 demands.

Everything lies anywhere in Europe. Each figure is that of one question, from its arguments to its answer, in this
process and one after the other; a plan's is that of the process that makes it.
"""

import asyncio
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from random import Random
from statistics import median
from types import SimpleNamespace

import click

from bench.report import Setting, setting, write_into
from bench.search import CONTEXT, MUNICH, Silent, anywhere, material
from loopd.audit.service import AuditLog
from loopd.clock import SystemClock
from loopd.database import Database, DatabaseSettings, Tx
from loopd.events.service import EventLog
from loopd.federation import nodes
from loopd.federation.heard import HeardSubjects
from loopd.gossip.rings import Ring
from loopd.protocol.documents import Document, check_document
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import MATERIAL_CATEGORIES
from loopd.registry import offered
from loopd.registry.service import Registry
from loopd.routing.atlas import Atlas, Departure, Place
from loopd.routing.matching import Matching
from loopd.routing.planner import Planner
from loopd.routing.planning import Batch, Need, parts_of, price_of_whole
from loopd.routing.ports import Outbox
from loopd.routing.route import Question, page_of
from loopd.routing.wanted import Wanted
from loopd.signals.rules import SignalConfiguration, SignalReading

DESTINATIONS = 5_000
SIDE = 500
DEMANDS = 10_000
WRITTEN_AT_ONCE = 500
HOUR_MS = 3_600_000
RINGS = (Ring(50, 0), Ring(200, 6 * HOUR_MS), Ring(1_000, 24 * HOUR_MS), Ring(None, 72 * HOUR_MS))
MARK = "bench-routing"


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured, in milliseconds: the CPU time of the least disturbed round, the medians; and the target."""

    title: str
    cpu_least_ms: float
    cpu_ms: float
    wall_ms: float
    target_ms: float | None


class NobodyListens:
    """An outbox for a node without peers."""

    def enqueue(self, tx: Tx, target: str, path: str, body: bytes, expires_at_ms: int, reference: str) -> None:
        raise RuntimeError("there is no peer")


def atlas(random: Random) -> Atlas:
    """So many destinations, each with a signal for every category."""
    return Atlas(
        Place(
            f"n{number}.loop",
            anywhere(random),
            SignalConfiguration(
                f"n{number}.loop", {each: random.randrange(5_000) for each in MATERIAL_CATEGORIES}, 0, 2**60
            ),
        )
        for number in range(DESTINATIONS)
    )


def question(random: Random) -> Question:
    """Something in one of the destinations."""
    place = anywhere(random)
    departure = Departure("n0.loop", place, 4_000)
    return Question(
        "MAT-DE-MUC-2026-FOOD-B847F3",
        SubjectKind.MATERIAL,
        "organic-food",
        6_000,
        departure,
        SignalReading(4_000, False),
        {},
        RINGS,
        None,
        True,
        False,
    )


def rank(rounds: int) -> list[Figures]:
    """Rankings from a place that was asked for before, and from new ones."""
    random = Random(7)
    known = atlas(random)
    usual = question(random)
    page_of(usual, known, None, 100, 0)
    return [
        _timed(
            f"{DESTINATIONS:,} destinations ranked, the first 100 shown",
            rounds,
            lambda: page_of(usual, known, None, 100, 0),
            10,
        ),
        _timed(
            "the same, from a place not asked for before",
            rounds,
            lambda: page_of(question(random), known, None, 100, 0),
            None,
        ),
    ]


def _timed(title: str, rounds: int, ask: Callable[[], object], target_ms: float | None) -> Figures:
    spent: list[tuple[float, float]] = []
    for _ in range(rounds):
        begun, cpu_begun = time.perf_counter(), time.thread_time()
        ask()
        spent.append((time.thread_time() - cpu_begun, time.perf_counter() - begun))
    return _figures(title, spent, target_ms)


def _figures(title: str, spent_s: Sequence[tuple[float, float]], target_ms: float | None) -> Figures:
    cpu_s, wall_s = [each for each, _ in spent_s], [each for _, each in spent_s]
    return Figures(title, min(cpu_s) * 1e3, median(cpu_s) * 1e3, median(wall_s) * 1e3, target_ms)


async def plan(rounds: int) -> Figures:
    """Plans of batches and demands of three categories, all of other cities."""
    random = Random(7)
    categories = MATERIAL_CATEGORIES[:3]
    batches = [
        Batch(
            "munich.loop",
            "material",
            random.choice(categories),
            "default",
            "mass",
            parts_of(Quantity(Decimal(random.randrange(100, 1_000)), "kg")),
            parts_of(Quantity(Decimal(1_000), "kg")),
            price_of_whole(Decimal(random.randrange(1_000))),
            (place.lat, place.lon),
            4_000,
        )
        for place in (anywhere(random) for _ in range(SIDE))
    ]
    needs = [
        Need(
            f"n{number}.loop",
            "material",
            categories,
            "mass",
            parts_of(Quantity(Decimal(random.randrange(100, 900)), "kg")),
            random.randrange(1_000, 100_000),
            random.randrange(200_000, 2_000_000),
            (place.lat, place.lon),
            (place.lat, place.lon),
            {"default": random.randrange(5_000)},
        )
        for number, place in enumerate(anywhere(random) for _ in range(SIDE))
    ]
    planner = Planner()
    spent = []
    for _ in range(rounds):
        begun, cpu_begun = time.perf_counter(), _children_cpu_s()
        await planner.plan(batches, needs)
        spent.append((_children_cpu_s() - cpu_begun, time.perf_counter() - begun))
    return _figures(f"{SIDE} batches planned against {SIDE} demands, with the start of the process", spent, 2_000)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def register(root: Path, rounds: int) -> list[Figures]:
    """Registrations at a node where nothing is looked for, and where much is, within 100 km each."""
    return [
        _figures("a registration, nothing looked for", await _registrations(root / "none.db", 0, rounds), None),
        _figures(
            f"a registration beside {DEMANDS:,} demands",
            await _registrations(root / "many.db", DEMANDS, rounds),
            None,
        ),
    ]


async def _registrations(path: Path, demands: int, rounds: int) -> list[tuple[float, float]]:
    random, clock = Random(7), SystemClock()
    home = SimpleNamespace(node_id="munich.loop", city="Munich", location=MUNICH, context_url=CONTEXT)
    events, audit = EventLog(clock), AuditLog(clock)
    outbox: Outbox = NobodyListens()
    async with await Database.create(path, DatabaseSettings(synchronous="NORMAL"), clock) as database:
        matching = Matching(home, clock, offered, HeardSubjects(clock), nodes, events)
        wanted = Wanted(home, clock, audit, events, matching, nodes, outbox, lambda size: random.randbytes(size).hex())
        registry = Registry(home, clock, audit, events, Silent(), [wanted])

        def look_for(tx: Tx) -> None:
            for _ in range(WRITTEN_AT_ONCE):
                place = anywhere(random)
                wanted.register(
                    tx,
                    {
                        "category": random.choice(MATERIAL_CATEGORIES),
                        "quantity": random.randrange(1, 500),
                        "unit": "kg",
                        "radius_km": 100,
                        "location": {"lat": place.lat, "lon": place.lon},
                    },
                )

        for _ in range(demands // WRITTEN_AT_ONCE):
            await database.write(look_for)
        spent: list[tuple[float, float]] = []
        for number in range(rounds):
            document = check_document(material(random, number * 1_000 + 1), "MaterialDNA")
            begun = time.perf_counter()
            cpu_s = await database.write(lambda tx, document=document: _register(registry, tx, document))  # type: ignore[misc]
            spent.append((cpu_s, time.perf_counter() - begun))
    return spent


def _register(registry: Registry, tx: Tx, document: Document) -> float:
    """The CPU time of a registration on the writer's thread."""
    begun = time.thread_time()
    registry.register(tx, document)
    return time.thread_time() - begun


def as_markdown(circumstances: Setting, measured: Sequence[Figures]) -> str:
    """The circumstances, then the figures."""
    rows = [
        ("what", "CPU ms, least", "CPU ms", "ms", "target"),
        ("---", "---:", "---:", "---:", "---:"),
        *(
            (
                each.title,
                *(f"{figure:,.1f}" for figure in (each.cpu_least_ms, each.cpu_ms, each.wall_ms)),
                "" if each.target_ms is None else f"{each.target_ms:,.0f} ms",
            )
            for each in measured
        ),
    ]
    said = (
        f"Measured on {circumstances.date} with `{circumstances.command}`: {circumstances.machine}, "
        f"{circumstances.system}; {circumstances.software}."
    )
    return "\n".join([said, "", *(f"| {' | '.join(row)} |" for row in rows)])


async def measure(root: Path, rounds: int) -> list[Figures]:
    """Every figure."""
    return [*rank(rounds), await plan(max(3, rounds // 20)), *await register(root, rounds)]


@click.command()
@click.option("--rounds", default=200, show_default=True, help="How often each question is asked; plans less often.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("build"),
    show_default=True,
    help="Where the databases are made.",
)
@click.option("--write", type=click.Path(path_type=Path, exists=True), help="Also write the table into this document.")
def main(rounds: int, directory: Path, write: Path | None) -> None:
    """Measure rankings, plans and what demand adds to a registration."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-", dir=directory) as root:
        measured = asyncio.run(measure(Path(root), rounds))
        circumstances = setting(f"python -m bench.routing --rounds {rounds}", Path(root))
    table = as_markdown(circumstances, measured)
    click.echo(table)
    if write is not None:
        write_into(write, table, MARK)


if __name__ == "__main__":
    main()
