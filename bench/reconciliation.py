"""`python -m bench.reconciliation`: what it costs two nodes to find out what one of them missed.

Both sides run in this process, over no network: bytes and round trips are those of the messages, CPU time is that of
both sides together. Ids are random, the items 50 ms apart.
"""

import json
import time
import tracemalloc
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import TypeVar

import click

from loopd.gossip.reconciliation import Initiator, Items, ItemSet, Responder

FIRST_MS = 1_800_000_000_000
STEP_MS = 50
TTL = 3

Item = tuple[int, bytes]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Case:
    """Two sets: of `items`, the numbers for which `lacks` holds are missing on the side that asks, or that answers."""

    title: str
    items: int
    lacks: Callable[[int], bool]
    asking_lacks: bool = True


@dataclass(frozen=True, slots=True)
class Cost:
    """What a case came to. The TTLs' bytes and time come on top; they are compared once the ids are known."""

    title: str
    missing: int
    round_trips: int
    sent_bytes: int
    cpu_s: float
    ttl_round_trips: int
    ttl_bytes: int
    ttl_cpu_s: float


@dataclass(frozen=True, slots=True)
class Lookups:
    """What a set of ids costs to keep: bytes at rest and while being compared, and microseconds for each operation."""

    items: int
    bytes_at_rest: int
    bytes_compared: int
    lookup_us: float
    fingerprint_us: float
    newest_us: float
    anywhere_us: float
    removal_us: float
    snapshot_us: float


def cases(items: int) -> list[Case]:
    """The figures that are wanted, and those that other implementations of the protocol are known for."""
    stretch = range(items * 43 // 100, items * 53 // 100)
    scattered = set(Random(2).sample(range(items), items // 100))
    return [
        Case("equal sets", items, lambda number: False),
        Case("a tenth missing in one stretch", items, stretch.__contains__),
        Case("the same, missing where it is answered", items, stretch.__contains__, asking_lacks=False),
        Case("a tenth missing at the recent end", items, lambda number: number >= items - items // 10),
        Case("a hundredth missing at the recent end", items, lambda number: number >= items - items // 100),
        Case("a hundredth missing here and there", items, scattered.__contains__),
        Case("one missing of ten times as many", 10 * items, lambda number: number == 4 * items + items // 3),
        Case("everything missing", items, lambda number: True),
    ]


def as_set(pairs: Iterable[Item]) -> ItemSet:
    """A snapshot, all with the same TTL."""
    return Items((timestamp_ms, item_id, TTL, 0) for timestamp_ms, item_id in pairs).snapshot()


def measure(case: Case) -> Cost:
    """Compare the case's two sets once; SystemExit where the differences found are not those that were made."""
    random = Random(1)
    pairs = [(FIRST_MS + number * STEP_MS, random.randbytes(32)) for number in range(case.items)]
    missing = {item_id for number, (_, item_id) in enumerate(pairs) if case.lacks(number)}
    whole, part = as_set(pairs), as_set(pair for pair in pairs if pair[1] not in missing)
    asking, answering = (part, whole) if case.asking_lacks else (whole, part)
    started_s = time.process_time()
    initiator, responder = Initiator(asking, need_max=case.items), Responder(answering)
    sent, trips, message = 0, 0, initiator.start()
    while True:
        answer = responder.receive(message)
        sent, trips = sent + len(message) + len(answer), trips + 1
        following = initiator.receive(answer)
        if following is None:
            break
        message = following
    cpu_s = time.process_time() - started_s
    if {*initiator.have, *initiator.need} != missing:
        raise SystemExit(f"{case.title}: the differences were not found")
    started_s = time.process_time()
    ttl_bytes, ttl_trips, offered = 0, 0, len(initiator.offers())
    while (ttls := initiator.next_ttls()) is not None:
        answer, offers = responder.receive_ttls(ttls)
        ttl_bytes, ttl_trips = ttl_bytes + len(ttls) + len(answer), ttl_trips + 1
        offered += len(offers) + len(initiator.receive_ttls(answer))
    if offered != len(missing):
        raise SystemExit(f"{case.title}: {offered} offers for {len(missing)} missing items")
    return Cost(case.title, len(missing), trips, sent, cpu_s, ttl_trips, ttl_bytes, time.process_time() - started_s)


def measure_lookups(count: int) -> Lookups:
    """The set alone: its memory, and its operations at this size."""
    random = Random(3)
    pairs = [(FIRST_MS + number * STEP_MS, random.randbytes(32)) for number in range(count)]
    tracemalloc.start()
    traced = Items((timestamp_ms, random.randbytes(32), TTL, 0) for timestamp_ms, _ in pairs)
    at_rest = tracemalloc.get_traced_memory()[0]
    snapshot = traced.snapshot()
    for index in range(0, count, 100):
        snapshot.id_sum(index, count)
    compared = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()

    items = Items((timestamp_ms, item_id, TTL, 0) for timestamp_ms, item_id in pairs)
    snapshot = items.snapshot()
    some = random.sample(pairs, min(count, 20_000))
    ranges = [sorted((random.randrange(count), random.randrange(count))) for _ in some]
    for lower, upper in ranges:
        snapshot.fingerprint(lower, upper)
    end_ms = FIRST_MS + count * STEP_MS
    new = [random.randbytes(32) for _ in some]
    return Lookups(
        count,
        at_rest,
        compared,
        _each_us(lambda pair: items.ttl(*pair), some),
        _each_us(lambda pair: snapshot.fingerprint(*pair), ranges),
        _each_us(lambda number: items.put(end_ms + number, new[number], TTL), range(len(new))),
        _each_us(lambda number: items.put(some[number][0], new[-number], TTL), range(len(new))),
        _each_us(lambda pair: items.remove(*pair), some),
        _each_us(lambda _: items.snapshot(), range(100)),
    )


def _each_us(operation: Callable[[T], object], arguments: Sequence[T]) -> float:
    started_s = time.process_time()
    for argument in arguments:
        operation(argument)
    return (time.process_time() - started_s) / len(arguments) * 1e6


def as_markdown(costs: Sequence[Cost], sets: Sequence[Lookups]) -> str:
    """Two tables."""
    lines = [
        "| what | missing | round trips | bytes | bytes an item | CPU s | TTLs: round trips | bytes | CPU s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for cost in costs:
        each = f"{cost.sent_bytes / cost.missing:.1f}" if cost.missing else ""
        lines.append(
            f"| {cost.title} | {cost.missing:,} | {cost.round_trips} | {cost.sent_bytes:,} | {each} | {cost.cpu_s:.2f} "
            f"| {cost.ttl_round_trips} | {cost.ttl_bytes:,} | {cost.ttl_cpu_s:.2f} |"
        )
    lines += [
        "",
        "| ids | MiB at rest | being compared | lookup µs | fingerprint µs | newest in µs | anywhere in µs | out µs "
        "| snapshot µs |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kept in sets:
        memory = f"{kept.bytes_at_rest / 2**20:.1f} | {kept.bytes_compared / 2**20:.1f}"
        lines.append(
            f"| {kept.items:,} | {memory} | {kept.lookup_us:.1f} | {kept.fingerprint_us:.1f} | {kept.newest_us:.1f} "
            f"| {kept.anywhere_us:.1f} | {kept.removal_us:.1f} | {kept.snapshot_us:.0f} |"
        )
    return "\n".join(lines)


@click.command()
@click.option("--items", default=100_000, show_default=True, help="How many items the two sets have between them.")
@click.option("--json", "json_wanted", is_flag=True, help="Print JSON instead of tables.")
def main(items: int, json_wanted: bool) -> None:
    """Measure what a comparison costs, and what the set costs that it compares."""
    costs = [measure(case) for case in cases(items)]
    sets = [measure_lookups(count) for count in (items // 10, items)]
    if json_wanted:
        click.echo(json.dumps({"costs": [asdict(cost) for cost in costs], "sets": [asdict(kept) for kept in sets]}))
    else:
        click.echo(as_markdown(costs, sets))


if __name__ == "__main__":
    main()
