"""kill -9 at every write of a settlement between two cities, on both sides: never lost, never twice, never half.

Each side's unit of work is begun in a process of its own and killed at its first write, then at its second, and so on
through the commit, and once more after it, before the other side is told. In between, the log that the commit wrote is
cut off after each of its pages, as a kill in the middle of the commit would leave it.
"""

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loopd.database.rows import ConnectionRows
from loopd.ledger import checks
from tests.settlement_city import BUYER, BUYER_ACCOUNT, SALE, SELLER, SELLER_ACCOUNT

ROOT = Path(__file__).parents[2]
# sqlite.org/fileformat.html: the log's header, and that of each of its pages.
WAL_HEADER, FRAME_HEADER = 32, 24


class City:
    """One side: a process that forks for each unit of work, and its database."""

    def __init__(self, directory: Path, node_id: str, peer: str) -> None:
        directory.mkdir()
        self.node_id = node_id
        self.file = directory / "loopd.db"
        command = [sys.executable, "-m", "tests.settlement_city", str(directory), node_id, peer]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.kills = 0
        self.order(do="open")

    def close(self) -> None:
        self._process.communicate()

    def order(self, **order: Any) -> dict[str, Any]:
        """Have a unit of work done, or killed."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert answer.get("error") is None, (order, answer)
        assert answer["killed"]
        return answer

    def killed_everywhere(self, **order: Any) -> None:
        """Have a unit of work killed at each of its writes, and done in the end."""
        before, writes = self.dump(), 0
        while not (answer := self.order(kill_at=writes, **order))["done"]:
            assert self.dump(keep_log=True) == before, f"killed at write {writes} of {order['do']}"
            writes += 1
        assert writes == answer["writes"]
        self.kills += writes + self._cut_off(before)

    def hear_again(self, told: dict[str, Any]) -> None:
        """It was killed after its commit and before its answer, so that it is told once more: nothing comes of it."""
        before, waiting = self.balances(), {number for number, _ in self.sent()}
        self.order(**told)
        assert self.balances() == before
        for number, _ in self.sent():
            if number not in waiting:
                self.forget(number)

    def _cut_off(self, before: list[str]) -> int:
        """The log cut off after each page: nothing of the unit is there, or, after the last page, all of it."""
        log = self.file.with_name(self.file.name + "-wal")
        whole = log.read_bytes()
        page_bytes = int.from_bytes(whole[8:12])
        after = self.dump(keep_log=True)
        lengths = range(WAL_HEADER, len(whole) + 1, FRAME_HEADER + page_bytes)
        for length in lengths:
            copy = self.file.with_name("cut.db")
            shutil.copy(self.file, copy)
            copy.with_name("cut.db-wal").write_bytes(whole[:length])
            assert dump(copy) == (after if length == lengths[-1] else before), f"cut off at {length} of {len(whole)}"
        return len(lengths)

    def dump(self, *, keep_log: bool = False) -> list[str]:
        """Everything durable. With `keep_log` the files stay as the killed process left them."""
        if not keep_log:
            return dump(self.file)
        copy = self.file.with_name("copy.db")
        for suffix in ("", "-wal"):
            source = self.file.with_name(self.file.name + suffix)
            target = copy.with_name(copy.name + suffix)
            target.unlink(missing_ok=True)
            if source.exists():
                shutil.copy(source, target)
        return dump(copy)

    def sent(self) -> list[tuple[int, str]]:
        return self._all("SELECT entry, body FROM outbox ORDER BY entry")

    def forget(self, entry: int) -> None:
        self._all("DELETE FROM outbox WHERE entry = ? RETURNING entry", entry)

    def _all(self, sql: str, *parameters: Any) -> list[Any]:
        connection = sqlite3.connect(self.file, isolation_level=None)
        connection.execute("PRAGMA synchronous=OFF")
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()

    def stands(self) -> tuple[str, int]:
        """The settlement's state, and how often the exchange was told of the sale."""
        [(state,)] = self._all("SELECT state FROM clearing_settlement")
        [(told,)] = self._all("SELECT count(*) FROM told")
        return state, told

    def settlement_id(self) -> str:
        [(settlement_id,)] = self._all("SELECT id FROM clearing_settlement WHERE transaction_id = ?", SALE)
        return str(settlement_id)

    def balances(self) -> dict[str, tuple[int, int]]:
        """What is there and what of it is held, by account; of the LoopCoins alone."""
        rows = self._all("SELECT id, balance_minor, held_minor FROM ledger_account WHERE currency LIKE 'LC-%'")
        return {account.partition("@")[0]: (balance, held) for account, balance, held in rows}

    def check(self) -> None:
        connection = sqlite3.connect(self.file)
        connection.row_factory = sqlite3.Row
        try:
            assert [each for each in checks.check(ConnectionRows(connection)) if not each.holds] == []
        finally:
            connection.close()


def dump(file: Path) -> list[str]:
    """Everything in a database file and its log, which is made one with it."""
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA synchronous=OFF")
    try:
        return list(connection.iterdump())
    finally:
        connection.close()


class Pair:
    """Both sides, and the network between them, which repeats what was not acknowledged."""

    def __init__(self, directory: Path) -> None:
        self.munich = City(directory / "munich", SELLER, BUYER)
        self.vienna = City(directory / "vienna", BUYER, SELLER)

    def close(self) -> None:
        self.munich.close()
        self.vienna.close()

    def do(self, city: City, *, killed: bool = True, **order: Any) -> None:
        """Have a city do something, and deliver all that follows from it.

        With `killed` whoever works is killed at each of its writes, and told again what it has done.
        """
        city.killed_everywhere(**order) if killed else city.order(**order)
        ways = ((self.munich, self.vienna), (self.vienna, self.munich))
        while any(sender.sent() for sender, _ in ways):
            for sender, receiver in ways:
                for entry, body in sender.sent():
                    told = {"do": "hear", "sender": sender.node_id, "body": bytes(body).decode()}
                    receiver.killed_everywhere(**told) if killed else receiver.order(**told)
                    if killed:
                        receiver.hear_again(told)
                    sender.forget(entry)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize(("ends", "state"), [(("post",), "posted"), (("release",), "voided"), (("freeze",), "posted")])
def test_whoever_is_killed_wherever_it_is_paid_once_or_not_at_all(
    pair: Pair, ends: tuple[str, ...], state: str
) -> None:
    munich, vienna = pair.munich, pair.vienna
    pair.do(munich, do="hold", killed=ends == ("post",))
    for city in (munich, vienna):
        assert city.stands() == ("prepared", 0)
        city.check()
    assert munich.balances()["node:clearing.vienna.loop"] == (0, 9_200)
    assert vienna.balances()["user:maria"] == (300_000, 13_520)
    for each in ends:
        pair.do(munich, do=each)
    if "freeze" in ends:
        assert vienna.stands() == ("prepared", 0)
        pair.do(vienna, do="resolve", id=vienna.settlement_id(), decision="post")
    assert (vienna.stands(), munich.stands()) == ((state, 0), (state, 1))
    for city in (munich, vienna):
        city.check()
    paid = state == "posted"
    seller, buyer = SELLER_ACCOUNT.partition("@")[0], BUYER_ACCOUNT.partition("@")[0]
    assert munich.balances()[seller] == ((3_600, 0) if paid else (0, 0))
    assert munich.balances()["node:clearing.vienna.loop"] == ((-9_200, 0) if paid else (0, 0))
    assert vienna.balances()["node:clearing.munich.loop"] == ((11_960, 0) if paid else (0, 0))
    assert vienna.balances()[buyer] == ((300_000 - 13_520, 0) if paid else (300_000, 0))
    assert munich.kills > 60
    assert vienna.kills > 60
