"""The SQL of ballots: who may vote, who did, and how was voted, each apart from the others."""

from collections import Counter
from collections.abc import Iterable

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.signals.ballots import Choice, RollEntry


def enrol(tx: Tx, vote: int, entries: Iterable[RollEntry]) -> None:
    """Add voters. sqlite3.IntegrityError where a voter or a credential is on the roll already."""
    tx.executemany(
        "INSERT INTO vote_roll (vote, voter, credential) VALUES (?, ?, ?)",
        [(vote, entry.voter, entry.credential) for entry in entries],
    )


def roll_size(source: RowSource, vote: int) -> int:
    """How many may vote."""
    return _count(source, "vote_roll", vote)


def is_on_roll(source: RowSource, vote: int, credential: bytes) -> bool:
    """Whether a credential was given out for a vote."""
    return source.one("SELECT 1 FROM vote_roll WHERE vote = ? AND credential = ?", (vote, credential)) is not None


def cast(tx: Tx, vote: int, credential: bytes, ballot: bytes, choice: Choice) -> None:
    """Record that a credential voted, and apart from it a ballot. sqlite3.IntegrityError for a second one."""
    tx.execute("INSERT INTO vote_turnout (vote, credential) VALUES (?, ?)", (vote, credential))
    tx.execute("INSERT INTO ballot (vote, ballot, choice) VALUES (?, ?, ?)", (vote, ballot, choice.value))


def count(source: RowSource, vote: int) -> Counter[Choice]:
    """How was voted."""
    rows = source.all("SELECT choice, count(*) AS number FROM ballot WHERE vote = ? GROUP BY choice", (vote,))
    return Counter({Choice(row["choice"]): row["number"] for row in rows})


def turnout(source: RowSource, vote: int) -> list[str]:
    """The credentials that voted, as receipts name them, in the order of their text."""
    rows = source.all("SELECT credential FROM vote_turnout WHERE vote = ? ORDER BY credential", (vote,))
    return [row["credential"].hex() for row in rows]


def ballots(source: RowSource, vote: int) -> list[tuple[str, str]]:
    """The ballots with their random keys, in the order of those."""
    rows = source.all("SELECT ballot, choice FROM ballot WHERE vote = ? ORDER BY ballot", (vote,))
    return [(row["ballot"].hex(), row["choice"]) for row in rows]


def forget_order(tx: Tx, vote: int) -> None:
    """Write turnout and ballots anew in the order of their keys.

    A page of a B-tree holds its entries where there was room when they came: their places in the file would still tell
    which ballot came with which credential.
    """
    for table, columns in (("vote_turnout", "credential"), ("ballot", "ballot, choice")):
        rows = tx.all(f"SELECT vote, {columns} FROM {table} WHERE vote = ? ORDER BY 2", (vote,))
        tx.execute(f"DELETE FROM {table} WHERE vote = ?", (vote,))
        marks = ", ".join("?" for _ in range(len(columns.split(",")) + 1))
        tx.executemany(f"INSERT INTO {table} (vote, {columns}) VALUES ({marks})", [tuple(row) for row in rows])


def _count(source: RowSource, table: str, vote: int) -> int:
    row = source.one(f"SELECT count(*) AS number FROM {table} WHERE vote = ?", (vote,))
    return 0 if row is None else int(row["number"])
