import json
import re
from pathlib import Path

import pytest

from bench.report import as_json, as_markdown, setting, write_into
from bench.rows import Row, Sample, spin, summarise

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"


async def _never(_: float) -> Sample:
    raise AssertionError("not sampled here")


def test_the_median_round_counts_and_parts_are_added_up() -> None:
    waits = [0.001] * 98 + [0.2, 0.4]
    samples = [Sample(100, 1.0, 0.01, waits), Sample(100, 10.0, 0.9), Sample(100, 2.0, 0.02)]
    result = summarise(
        Row("reads", "reads", _never, ("hello", "verify", "verify")), samples, {"hello": 20, "verify": 40}
    )
    assert result.per_s == 50
    assert result.cpu_us == pytest.approx(200)
    assert result.times_bare == pytest.approx(2.0)
    assert (result.p50_ms, result.p99_ms) == (1.0, 400.0)


def test_a_row_without_parts_or_waits_leaves_their_columns_empty(tmp_path: Path) -> None:
    result = summarise(Row("verify", "verification", _never), [Sample(10_000, 1.0, 0.5)], {})
    assert (result.times_bare, result.p50_ms) == (None, None)
    table = as_markdown(setting("make bench", tmp_path), [result])
    assert "| verification (`verify`) |     10,000 |          50 |        |        |" in table
    rows = json.loads(as_json(setting("make bench", tmp_path), [result]))["rows"]
    assert rows[0]["per_s"] == 10_000


async def test_spinning_counts_calls_until_the_time_is_over() -> None:
    calls: list[int] = []
    sample = await spin(lambda: calls.append(1), operations_per_call=100)(0.02)
    assert sample.operations == (len(calls) - 1) * 100
    assert sample.elapsed_s >= 0.02


def test_the_table_replaces_the_last_one_and_nothing_else(tmp_path: Path) -> None:
    document = tmp_path / "performance.md"
    other = "<!-- bench-other:begin -->\nother\n<!-- bench-other:end -->\n"
    document.write_text(f"{other}before\n{BEGIN}\nold\n{END}\nafter\n")
    write_into(document, "new")
    write_into(document, "newer")
    assert document.read_text() == f"{other}before\n{BEGIN}\nnewer\n{END}\nafter\n"
    write_into(document, "fresh", "bench-other")
    fresh = "<!-- bench-other:begin -->\nfresh\n<!-- bench-other:end -->\n"
    assert document.read_text() == f"{fresh}before\n{BEGIN}\nnewer\n{END}\nafter\n"


def test_a_document_without_a_place_for_the_table_is_left_alone(tmp_path: Path) -> None:
    document = tmp_path / "other.md"
    document.write_text(f"{END} {BEGIN}")
    with pytest.raises(ValueError, match="no place"):
        write_into(document, "new")
    assert document.read_text() == f"{END} {BEGIN}"


def test_the_documentation_has_the_place_that_make_bench_writes_to(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    copy = tmp_path / "performance.md"
    copy.write_text((root / "docs/performance.md").read_text())
    marks = re.findall("<!-- (bench[a-z-]*):begin -->", copy.read_text())
    assert len(marks) == (root / "Makefile").read_text().count("--write docs/performance.md")
    for mark in marks:
        write_into(copy, f"a table of {mark}", mark)
        assert f"a table of {mark}" in copy.read_text()
