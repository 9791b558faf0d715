"""What a command prints: a table on a terminal, tab-separated text in a pipe, JSON for machines."""

import re
import sys
from collections.abc import Mapping, Sequence
from decimal import Decimal
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

import click
import orjson
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

EMPTY = "-"
# Between two columns of a table, and what the one that is folded keeps at least.
_GAP = 2
_LEAST_FOLDED = 30

_TIMESTAMP = re.compile(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d):\d\d(?:\.\d+)?Z")


def json_bytes(value: Any, *, indented: bool = False) -> bytes:
    """The value as JSON; decimals keep their digits."""
    return orjson.dumps(value, default=_exact, option=orjson.OPT_INDENT_2 if indented else 0)


def _exact(value: Any) -> Any:
    if isinstance(value, Decimal):
        return orjson.Fragment(format(value, "f"))
    if isinstance(value, IPv4Network | IPv6Network | Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def print_json(value: Any) -> None:
    """The value as one JSON document: a line in a pipe, indented on a terminal."""
    click.echo(json_bytes(value, indented=sys.stdout.isatty()).decode())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[Any]], empty: str) -> None:
    """Rows under their columns, numbers to the right. On a terminal `empty` is said where there are none."""
    cells = [[cell(value) for value in row] for row in rows]
    if not sys.stdout.isatty():
        for line in [list(columns), *cells]:
            click.echo("\t".join(line))
        return
    if not cells:
        click.echo(empty)
        return
    # A terminal is narrow: columns without any value are left out, times are shown to the minute.
    shown = [index for index in range(len(columns)) if any(line[index] != EMPTY for line in cells)]
    names = [columns[index].replace("_", " ") for index in shown]
    lines = [[_TIMESTAMP.sub(r"\1 \2Z", line[index]) for index in shown] for line in cells]
    numeric = [all(_is_number(row[index]) for row in rows) for index in shown]
    console = Console()
    folding = _folding_column([[len(name) for name in names], *_widths(lines)], console.width)
    if folding is None:
        _print_records(names, lines)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, name in enumerate(names):
        justify: JustifyMethod = "right" if numeric[index] else "left"
        table.add_column(name, overflow="fold", no_wrap=index != folding, justify=justify)
    for line in lines:
        table.add_row(*map(Text, line))
    console.print(table)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, int | float | Decimal) and not isinstance(value, bool))


def _widths(lines: Sequence[Sequence[str]]) -> list[list[int]]:
    return [[cell_len(text) for text in line] for line in lines]


def _folding_column(widths: Sequence[Sequence[int]], console_width: int) -> int | None:
    """The column that may be folded where a table is too wide: its widest. None where too little would be left of it,
    so that lines beneath each other are no table any more.
    """
    widest = [max(column) for column in zip(*widths, strict=True)]
    index = widest.index(max(widest))
    left = console_width - sum(widest) + widest[index] - _GAP * (len(widest) - 1)
    return index if left >= min(widest[index], _LEAST_FOLDED) else None


def _print_records(names: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    """Each row as names and values, one a line, and an empty line between two. What has no value is left out."""
    for number, line in enumerate(lines):
        if number:
            click.echo()
        _print_named({name: value for name, value in zip(names, line, strict=True) if value != EMPTY})


def _print_named(values: Mapping[str, str]) -> None:
    width = max(map(len, values), default=0) + 1
    for name, value in values.items():
        click.echo(f"{name + ':':<{width}} {value}")


def print_fields(fields: Mapping[str, Any]) -> None:
    """Names and values, one a line."""
    if not sys.stdout.isatty():
        for name, value in fields.items():
            click.echo(f"{name}\t{cell(value)}")
        return
    _print_named({name.replace("_", " "): cell(value) for name, value in fields.items()})


def print_gap() -> None:
    """Sets what follows apart, on a terminal."""
    if sys.stdout.isatty():
        click.echo()


def flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested objects as one level of dotted names."""
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            flat |= flatten(item, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = item
    return flat


def cell(value: Any) -> str:
    """A value as one line of text. What other nodes sent must not steer the terminal, so control characters go."""
    if value is None or value in ("", [], {}):
        return EMPTY
    match value:
        case bool():
            return "yes" if value else "no"
        case str() | int() | float() | Decimal():
            text = str(value)
        case list() | tuple():
            text = ", ".join(map(cell, value))
        case _:
            text = json_bytes(value).decode()
    return "".join(character if character.isprintable() else "�" for character in text)
