"""The database as a process meets it: killed at any moment, and let go without a word."""

import asyncio
import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loopd.database import Database, DatabaseSettings, Tx
from tests.support import ManualClock
from tests.unit.database.items import file_names

WRITING = """
import asyncio, sys
from pathlib import Path
from loopd.clock import SystemClock
from loopd.database import Database, DatabaseSettings

async def main():
    database = await Database.open(Path(sys.argv[1]), DatabaseSettings(readers=1), SystemClock())

    async def client(first):
        for number in range(first, 1_000_000, 20):
            def unit(tx):
                tx.execute("INSERT INTO debit VALUES (?)", (number,))
                tx.execute("INSERT INTO credit VALUES (?)", (number,))
            await database.write(unit)
            sys.stdout.write(f"{number}\\n")
            sys.stdout.flush()

    await asyncio.gather(*(client(first) for first in range(20)))

asyncio.run(main())
"""

LEAVING = """
import asyncio, sys
from pathlib import Path
from loopd.clock import SystemClock
from loopd.database import Database, DatabaseSettings

async def main():
    async with await Database.open(Path(sys.argv[1]), DatabaseSettings(), SystemClock()) as database:
        await database.one("SELECT 1")
        {ending}

asyncio.run(main())
"""


async def make_file(path: Path) -> None:
    async with await Database.create(path, DatabaseSettings(), ManualClock()) as database:

        def make(tx: Tx) -> None:
            for table in ("debit", "credit"):
                tx.execute(f"CREATE TABLE {table} (number INTEGER PRIMARY KEY)")

        await database.write(make)


async def both_sides(path: Path) -> tuple[set[int], set[int]]:
    async with await Database.open(path, DatabaseSettings(), ManualClock()) as database:
        verdict = await database.one("PRAGMA integrity_check")
        assert verdict is not None
        assert verdict[0] == "ok"
        debits = await database.all("SELECT number FROM debit")
        credits_ = await database.all("SELECT number FROM credit")
    return {row["number"] for row in debits}, {row["number"] for row in credits_}


@pytest.mark.parametrize("seed", range(6))
def test_killed_while_writing_what_was_acknowledged_is_there_and_nothing_half(path: Path, seed: int) -> None:
    asyncio.run(make_file(path))
    child = subprocess.Popen([sys.executable, "-c", WRITING, str(path)], stdout=subprocess.PIPE)
    assert child.stdout is not None
    first = child.stdout.readline()
    time.sleep(random.Random(seed).uniform(0.0, 0.3))
    child.kill()
    rest = child.stdout.read()
    child.stdout.close()
    child.wait()
    # The last line may have been cut by the kill.
    acknowledged = {int(line) for line in (first + rest).split(b"\n")[:-1]}
    debits, credits_ = asyncio.run(both_sides(path))
    assert acknowledged
    assert acknowledged <= debits
    assert debits == credits_


@pytest.mark.parametrize(
    ("ending", "status"),
    [("pass", 0), ("raise SystemExit(3)", 3), ("asyncio.current_task().cancel(); await asyncio.sleep(1)", 1)],
)
def test_a_process_that_closes_ends(path: Path, ending: str, status: int) -> None:
    asyncio.run(make_file(path))
    script = LEAVING.replace("{ending}", ending)
    done = subprocess.run([sys.executable, "-c", script, str(path)], timeout=10, capture_output=True, check=False)
    assert done.returncode == status
    assert file_names(path.parent) == [path.name]


def test_a_process_whose_database_cannot_be_opened_ends(path: Path) -> None:
    asyncio.run(make_file(path))
    foreign = sqlite3.connect(path)
    foreign.execute("INSERT INTO migration VALUES (9999, 'later', '', 0)")
    foreign.commit()
    foreign.close()
    script = LEAVING.replace("{ending}", "pass")
    done = subprocess.run([sys.executable, "-c", script, str(path)], timeout=10, capture_output=True, check=False)
    assert done.returncode == 1
    assert b"newer than this loopd" in done.stderr
