"""`python -m bench.ledger`: payments a second with group commit as the books grow, and how long a check takes.

The books are filled to each size; then single payments are written as the API writes them, many callers at once, each
answered after its commit.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import click

from bench.ledger_api import measure_api
from bench.report import Setting, setting, write_into
from loopd.audit.service import AuditLog
from loopd.clock import SystemClock
from loopd.database import Database, DatabaseSettings, Tx
from loopd.events.service import EventLog
from loopd.ledger import checks
from loopd.ledger.authority import Authority
from loopd.ledger.issuance import Issuance, Issue
from loopd.ledger.orders import Order
from loopd.ledger.service import Ledger
from loopd.ledger.settings import LedgerSettings
from loopd.protocol.contexts import context_url
from loopd.protocol.json_text import dump_json

NODE = "munich.loop"
ACCOUNTS = tuple(f"user:holder-{number}@{NODE}" for number in range(200))
CALLERS = 64
CONNECTIONS = 32
MARK = "bench-ledger"
# A few in a unit: what one unit may have to undo is kept in memory, and a long list of it is slow.
FILLED_AT_ONCE = 10
# The one in the middle counts: whoever else writes to the disk disturbs some of them.
ROUNDS = 3


class Home:
    """The node as the ledger knows it."""

    node_id = NODE
    context_url = context_url("local-loop-io.github.io")


class Books:
    """A ledger with holders who pay each other in turn."""

    def __init__(self, database: Database, clock: SystemClock) -> None:
        self._database = database
        self._clock = clock
        audit, events = AuditLog(clock), EventLog(clock)
        self._ledger = Ledger(Home(), LedgerSettings(currency_code="LC-MUC"), audit, clock, events)
        self._numbers: Iterator[int] = itertools.count()

    async def open(self) -> None:
        """Accounts with money on them."""
        await self._database.write(self._ledger.begin)
        issuance = Issuance(self._ledger)

        def unit(tx: Tx) -> None:
            for number, account in enumerate(ACCOUNTS):
                self._ledger.open_account(tx, account, None)
                issuance.issue(tx, Issue(f"00000000-0000-4000-8001-{number:012x}", account, 10_000_000, 10_000_000))

        await self._database.write(unit)

    async def entries(self) -> int:
        """How many entries there are."""
        row = await self._database.one("SELECT count(*) AS count FROM ledger_entry")
        return 0 if row is None else int(row["count"])

    async def fill(self, entries: int) -> None:
        """Payments until there are so many entries."""

        def unit(tx: Tx) -> None:
            for _ in range(FILLED_AT_ONCE):
                self._pay(tx)

        async def caller(units: int) -> None:
            for _ in range(units):
                await self._database.write(unit)

        # Each payment has two entries at least; counting them takes longer the more there are.
        while (missing := entries - await self.entries()) > 0:
            units = max(missing // (2 * FILLED_AT_ONCE * CALLERS), 1)
            await asyncio.gather(*(caller(units) for _ in range(CALLERS)))

    async def payments(self, seconds: float) -> tuple[float, float]:
        """Single payments, each a write of its own, so many callers at once: how many a second, and µs of CPU each."""
        ends_s, done = time.monotonic() + seconds, 0

        async def caller() -> None:
            nonlocal done
            while time.monotonic() < ends_s:
                await self._database.write(self._pay)
                done += 1

        started_s, cpu_s = time.monotonic(), time.process_time()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        return done / (time.monotonic() - started_s), (time.process_time() - cpu_s) / done * 1e6

    def check_s(self) -> float:
        """How long all invariants take."""
        started_s = time.monotonic()
        if not all(finding.holds for finding in checks.check(self._database.points)):
            raise RuntimeError("the books are broken")
        return time.monotonic() - started_s

    def _pay(self, tx: Tx) -> None:
        number = next(self._numbers)
        payer, payee = ACCOUNTS[number % len(ACCOUNTS)], ACCOUNTS[(number * 7 + 1) % len(ACCOUNTS)]
        if payer == payee:
            return
        transfer_id = f"00000000-0000-4000-8000-{number:012x}"
        received = dump_json(
            {"id": transfer_id, "from": payer, "to": payee, "amount": Decimal("0.01"), "currency": "LC-MUC"}
        )
        order = Order(
            transfer_id, payer, payee, 1, "LC-MUC", self._clock.now_ms(), None, None, transfer_id.encode(), received
        )
        self._ledger.submit(tx, [order], Authority(account=payer))


@dataclass(frozen=True)
class Figures:
    """A line of the table."""

    what: str
    per_s: float
    cpu_us: float
    check_s: float | None


async def measure(directory: Path, sizes: Sequence[int], seconds: float) -> list[Figures]:
    """A line for each size of the books, and one for payments through the API."""
    clock, found = SystemClock(), []
    async with await Database.create(directory / "books.db", DatabaseSettings(), clock) as database:
        books = Books(database, clock)
        await books.open()
        for size in sizes:
            await books.fill(size)
            per_s, cpu_us = sorted([await books.payments(seconds / ROUNDS) for _ in range(ROUNDS)])[ROUNDS // 2]
            found.append(Figures(f"payments written, {size:,} entries in the books", per_s, cpu_us, books.check_s()))
    sample = await measure_api(directory, seconds, CONNECTIONS)
    per_s = sample.operations / sample.elapsed_s
    found.append(Figures("payments over the API", per_s, sample.cpu_s / sample.operations * 1e6, None))
    return found


def as_markdown(circumstances: Setting, measured: Sequence[Figures]) -> str:
    """The table with what it was measured on."""
    said = (
        f"Measured on {circumstances.date} with `{circumstances.command}`: {circumstances.machine}, "
        f"{circumstances.system}; {circumstances.software}."
    )
    rows = ["| what | per second | CPU µs each | check of all invariants, s |", "| --- | ---: | ---: | ---: |"]
    for each in measured:
        check = "" if each.check_s is None else f"{each.check_s:.1f}"
        rows.append(f"| {each.what} | {each.per_s:,.0f} | {each.cpu_us:,.0f} | {check} |")
    return "\n".join([said, "", *rows])


@click.command()
@click.option("--seconds", default=3.0, show_default=True, help="How long payments are counted at each size.")
@click.option("--sizes", default="10000,100000,1000000", show_default=True, help="Entries in the books, rising.")
@click.option("--directory", type=click.Path(path_type=Path, file_okay=False), default=Path("build"), show_default=True)
@click.option("--write", type=click.Path(path_type=Path, exists=True), help="Also write the table into this document.")
def main(seconds: float, sizes: str, directory: Path, write: Path | None) -> None:
    """Measure the ledger as its books grow."""
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="bench-ledger-", dir=directory) as root:
        measured = asyncio.run(measure(Path(root), [int(size) for size in sizes.split(",")], seconds))
        circumstances = setting(f"python -m bench.ledger --seconds {seconds:g} --sizes {sizes}", Path(root))
    table = as_markdown(circumstances, measured)
    click.echo(table)
    if write is not None:
        write_into(write, table, MARK)


if __name__ == "__main__":
    main()
