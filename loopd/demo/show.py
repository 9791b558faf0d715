"""Shows the acts to people as they happen."""

import time
from collections.abc import Sequence
from typing import TextIO

from rich.status import Status
from rich.text import Text

from loopd.demo.act import Act, Facts
from loopd.demo.page import Page


class Show:
    """Prints to a stream: a heading before each act, and below it what came of it."""

    def __init__(self, stream: TextIO) -> None:
        self._page = Page(stream)
        self._console = self._page.console
        self._status: Status | None = None
        self._began_s = time.monotonic()
        self._acts = 0

    def opening(self) -> None:
        """What is going to be seen."""
        self._console.print()
        self._console.print(
            Text("One city has something left over. Who takes it, at the least cost to all?", style="bold")
        )
        self._console.print("The flow of §12.1 of the LOOP specification, played by three real nodes on this machine.")

    def begins(self, act: Act) -> None:
        """The heading, at once; on a terminal something moves until the rest is there."""
        self._acts += 1
        self._console.print()
        self._console.print(Text.assemble((f"{self._acts}  ", "bold cyan"), (act.title, "bold")))
        if self._console.is_terminal:
            self._status = self._console.status("", spinner="dots")
            self._status.start()

    def happened(self, act: Act, facts: Facts) -> None:
        """What came of it."""
        self.pause()
        act.show(self._page, facts)

    def pause(self) -> None:
        """Nothing moves any more."""
        if self._status is not None:
            self._status.stop()
            self._status = None

    def closing(self, next_steps: Sequence[tuple[str, Sequence[str]]]) -> None:
        """How long it took, and what to try: each with the lines to type."""
        self._console.print()
        took_s = time.monotonic() - self._began_s
        self._console.print(Text(f"Done in {took_s:.1f} s.", style="bold green"))
        for sentence, lines in next_steps:
            self._console.print()
            self._console.print(Text(sentence))
            for line in lines:
                # Not folded: what is copied from here must be what is typed.
                self._console.print(Text(f"   {line}", style="cyan"), soft_wrap=True)
        self._console.print()
