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
from rich.console import Console
from rich.table import Table
from rich.text import Text

EMPTY = "-"

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
    """Rows under their columns. On a terminal `empty` is said where there are none."""
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
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index in shown:
        table.add_column(columns[index].replace("_", " "), overflow="fold")
    for line in cells:
        table.add_row(*(Text(_TIMESTAMP.sub(r"\1 \2Z", line[index])) for index in shown))
    Console().print(table)


def print_fields(fields: Mapping[str, Any]) -> None:
    """Names and values, one a line."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        click.echo(f"{name + ':':<{width + 1}} {cell(value)}" if sys.stdout.isatty() else f"{name}\t{cell(value)}")


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
