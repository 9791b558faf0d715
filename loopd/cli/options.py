"""Arguments and options that several commands share."""

import sys
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import click

from loopd.cli.failure import Failure
from loopd.directory import NodeDirectory
from loopd.protocol.limits import DOCUMENT_MAX_BYTES, LIST_LIMIT_DEFAULT, LIST_LIMIT_MAX, LIST_LIMIT_MIN

# How a dispute about a payment ends.
DECISIONS = ("post", "void")
# Click cuts a summary that is longer.
_UNCUT = 1_000

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class CommandGroup(click.Group):
    """Commands under one name. Their help lists each with its whole first sentence, on a narrow terminal too."""

    # Groups within are of the same kind.
    group_class = type

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(name, command.get_short_help_str(_UNCUT)) for name, command in found if command is not None]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class DirectoryParameter(click.ParamType[NodeDirectory]):
    """A node's data directory."""

    name = "directory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> NodeDirectory:
        return value if isinstance(value, NodeDirectory) else NodeDirectory(Path(value))


class DecimalParameter(click.ParamType[Decimal]):
    """A plain decimal number, zero or more."""

    name = "number"

    def __init__(self, max_decimals: int) -> None:
        self._max_decimals = max_decimals

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Decimal:
        try:
            number = Decimal(value)
        except InvalidOperation:
            self.fail(f"{value!r} is not a number", param, ctx)
        if not number.is_finite() or number < 0 or number.is_signed():
            self.fail(f"{value} is not a number of zero or more", param, ctx)
        exponent = number.as_tuple().exponent
        if isinstance(exponent, int) and -exponent > self._max_decimals:
            self.fail(f"{value} has more than {self._max_decimals} decimals", param, ctx)
        return number


directory_argument: Decorator = click.argument("directory", metavar="DIR", type=DirectoryParameter())
json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
limit_option: Decorator = click.option(
    "--limit",
    type=click.IntRange(LIST_LIMIT_MIN, LIST_LIMIT_MAX),
    default=LIST_LIMIT_DEFAULT,
    show_default=True,
    help="How many at most.",
)


def read_file(file: Path) -> bytes:
    """A document from a file, or from standard input with -; Failure where it cannot be read."""
    try:
        # One byte beyond the ceiling is enough for the daemon to refuse it.
        if str(file) == "-":
            return sys.stdin.buffer.read(DOCUMENT_MAX_BYTES + 1)
        with file.open("rb") as stream:
            return stream.read(DOCUMENT_MAX_BYTES + 1)
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}") from None
