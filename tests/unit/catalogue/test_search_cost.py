"""A search costs what it finds: counted in steps of the database, so that no clock is asked."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from loopd.catalogue.finding import Selection
from loopd.catalogue.query import read_query
from loopd.database.rows import Parameters
from loopd.protocol.json_text import dump_json, read_json
from loopd.protocol.subjects import SubjectKind
from tests.exchange_support import BERLIN, MUNICH, NOW_MS
from tests.search_support import SearchNode

NEAR, OTHERS = 20, 400


class CountingReader:
    """Reads a database file and counts the steps that this takes."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path)
        self._connection.row_factory = sqlite3.Row
        self.steps = 0

    async def all(self, sql: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        self._connection.set_progress_handler(self._step, 1)
        rows: Sequence[sqlite3.Row] = self._connection.execute(sql, parameters).fetchall()
        self._connection.set_progress_handler(None, 1)
        return list(rows)

    async def one(self, sql: str, parameters: Parameters = ()) -> sqlite3.Row | None:
        raise AssertionError(f"a first page reads all its rows at once: {sql}")

    def close(self) -> None:
        self._connection.close()

    def _step(self) -> int:
        self.steps += 1
        return 0


async def steps(path: Path, **body: Any) -> tuple[int, int]:
    """How many match, and how many steps the first page takes."""
    query = read_query(SubjectKind.MATERIAL, read_json(dump_json(body)), MUNICH)
    reader = CountingReader(path)
    try:
        counted, _ = await Selection(query, NOW_MS, None).first_page(reader, 21)
    finally:
        reader.close()
    return counted.total, reader.steps


@pytest.mark.parametrize(
    ("others", "filters"),
    [
        # One category everywhere and a small radius; a rare category and a large radius; a rare word; no place at all.
        ({"location": {"lat": BERLIN.lat, "lon": BERLIN.lon}}, {"category": "paper-mixed", "radius_km": 10}),
        ({"category": "paper-clean"}, {"category": "paper-mixed", "radius_km": 2_000}),
        ({"metadata": {"notes": "wet"}}, {"text": "dry", "radius_km": 2_000}),
        ({"category": "paper-clean"}, {"category": "paper-mixed"}),
        ({"location": {"lat": BERLIN.lat, "lon": BERLIN.lon}}, {"radius_km": 10}),
    ],
)
async def test_what_does_not_match_costs_nothing(
    node: SearchNode, tmp_path: Path, others: dict[str, Any], filters: dict[str, Any]
) -> None:
    matching: dict[str, Any] = {"category": "paper-mixed", "metadata": {"notes": "dry"}}
    for number in range(NEAR):
        await node.material(number, **matching)
    path = tmp_path / "munich.db"
    alone = await steps(path, **filters)
    for number in range(OTHERS):
        await node.material(NEAR + number, **{**matching, **others})
    total, among_others = await steps(path, **filters)
    assert total == alone[0] == NEAR
    assert among_others < alone[1] + OTHERS
