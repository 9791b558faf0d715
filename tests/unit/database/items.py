"""A table of numbers, as the tests of this room write and read it."""

from collections.abc import Callable
from pathlib import Path

from loopd.database import Database, Tx


def make_items(tx: Tx) -> None:
    tx.execute("CREATE TABLE item (number INTEGER PRIMARY KEY)")


def insert(number: int) -> Callable[[Tx], int]:
    def unit(tx: Tx) -> int:
        tx.execute("INSERT INTO item VALUES (?)", (number,))
        return number

    return unit


def numbers(database: Database) -> set[int]:
    return {row["number"] for row in database.points.all("SELECT number FROM item")}


def file_names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())
