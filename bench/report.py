"""The table, for people, for machines, and between its two marks in docs/performance.md."""

import json
import os
import platform
import sqlite3
import ssl
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.rows import Result
from loopd import __version__

MARK = "bench"


@dataclass(frozen=True, slots=True)
class Setting:
    """Under which circumstances the figures were measured."""

    command: str
    date: str
    machine: str
    system: str
    software: str
    filesystem: str


def setting(command: str, directory: Path) -> Setting:
    """This run's circumstances; `directory` holds the databases."""
    return Setting(
        command,
        datetime.now(UTC).date().isoformat(),
        f"{os.cpu_count()} × {_processor()}",
        f"{platform.system()} {platform.release()}",
        f"loopd {__version__}, Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, "
        f"{ssl.OPENSSL_VERSION.rpartition('  ')[0] or ssl.OPENSSL_VERSION}",
        _filesystem(directory),
    )


def as_json(circumstances: Setting, results: Sequence[Result]) -> str:
    """Everything, unrounded."""
    return json.dumps({"setting": asdict(circumstances), "rows": [asdict(result) for result in results]}, indent=2)


def as_markdown(circumstances: Setting, results: Sequence[Result]) -> str:
    """The circumstances, then the table with its columns aligned."""
    head = ("what", "per second", "CPU µs each", "p50 ms", "p99 ms", "of its bare parts")
    rows = [head, *(_cells(result) for result in results)]
    lines = aligned(rows, left=(0, len(head) - 1))
    return "\n".join([told(circumstances), "", *lines])


def told(circumstances: Setting) -> str:
    """The circumstances in one line."""
    return (
        f"Measured on {circumstances.date} with `{circumstances.command}`: {circumstances.machine}, "
        f"{circumstances.system}; {circumstances.software}; databases on {circumstances.filesystem}."
    )


def aligned(rows: Sequence[Sequence[str]], left: Collection[int]) -> list[str]:
    """The lines of a table in Markdown, its head first; all columns but the `left` ones are flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    rule = ["-" * width if column in left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    lines = []
    for row in (rows[0], rule, *rows[1:]):
        cells = [
            cell.ljust(width) if column in left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def write_into(document: Path, text: str, mark: str = MARK) -> None:
    """Replace what stands between the two comments of a mark. ValueError where the document lacks them."""
    begin, end = f"<!-- {mark}:begin -->", f"<!-- {mark}:end -->"
    before, found_begin, rest = document.read_text().partition(begin)
    _, found_end, after = rest.partition(end)
    if not found_begin or not found_end:
        raise ValueError(f"{document} has no place for the table: {begin} ... {end}")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def _cells(result: Result) -> tuple[str, ...]:
    bare = ""
    if result.times_bare is not None:
        bare = f"{result.times_bare:.1f} × ({' + '.join(result.parts)})"
    title = result.title if result.parts else f"{result.title} (`{result.name}`)"
    return (title, f"{result.per_s:,.0f}", _rounded(result.cpu_us), _ms(result.p50_ms), _ms(result.p99_ms), bare)


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}"


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _filesystem(directory: Path) -> str:
    """The kind of file system that a directory lies on (see proc(5), mounts)."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    resolved = directory.resolve()
    holding = [mount for mount in mounts if resolved.is_relative_to(mount[1])]
    return max(holding, key=lambda mount: len(mount[1]))[2]
