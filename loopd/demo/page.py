"""What an act is shown on: sentences, commands, requests and tables, in colour on a terminal, plain in a pipe."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from loopd.demo.failure import DemoFailed

WIDTH_MAX: Final = 100
_INDENT: Final = 3
_SHOWN_FINGERPRINT_GROUPS: Final = 4

Cell = str | Text


class _Console(Console):
    """A console that fails as the rest of the demonstration does when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        try:
            super().on_broken_pipe()
        except SystemExit:
            raise DemoFailed("nobody reads on, so the nodes have been ended") from None


class Page:
    """Prints to a stream, each line indented below its act's heading."""

    def __init__(self, stream: TextIO) -> None:
        console = _Console(file=stream, highlight=False)
        # A pipe has no width, and on a wide screen lines of this length are still the easiest to read.
        console.width = min(console.width, WIDTH_MAX) if console.is_terminal else WIDTH_MAX
        self.console = console

    def put(self, what: Any) -> None:
        """Anything that rich can show."""
        self.console.print(Padding(what, (0, 0, 0, _INDENT), expand=False))

    def say(self, sentence: str) -> None:
        """A sentence."""
        self.put(Text(sentence))

    def command(self, command: str) -> None:
        """A command that was run; not folded, so that it can be copied."""
        self.console.print(Text.assemble(("   $ ", "dim"), (command, "dim")), soft_wrap=True)

    def request(self, request: str, answer: str) -> None:
        """A request that was made, and what came of it."""
        line = Text.assemble((f"   {request}", "dim"), (" → ", "dim"), (answer, "green"))
        self.console.print(line, soft_wrap=True)

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """A column whose name begins with `>` stands to the right."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name in columns:
            right = name.startswith(">")
            table.add_column(name.removeprefix(">"), justify="right" if right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
        self.put(table)


def short(fingerprint: str) -> str:
    """As much of a key's fingerprint as people compare at a glance."""
    return ":".join(fingerprint.split(":")[:_SHOWN_FINGERPRINT_GROUPS]) + ":…"


def percent(signal: Decimal) -> str:
    """A signal from 0 to 1."""
    return f"{(Decimal(signal) * 100).normalize():f} %"


def amount(amount: Decimal | None) -> str:
    """LC with both decimals; a dash where there is none."""
    return "–" if amount is None else f"{Decimal(amount):.2f}"
