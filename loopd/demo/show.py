"""Shows the steps to people as they happen: tables and colour on a terminal, plain text in a pipe."""

import time
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.status import Status
from rich.table import Table
from rich.text import Text

from loopd.demo.cast import MUNICH
from loopd.demo.failure import DemoFailed
from loopd.demo.scenario import Facts, Step

WIDTH_MAX: Final = 100
_INDENT: Final = 3
_SHOWN_FINGERPRINT_GROUPS: Final = 4

_TITLES: Final[Mapping[Step, str]] = {
    Step.START: "Three nodes start",
    Step.HANDSHAKE: "They shake hands, in a chain: Munich, Vienna, Berlin",
    Step.REGISTER: "Munich registers 500 kg of spent grain",
    Step.HEAR: "The announcement travels",
    Step.BID: "Who wants it computes the LoopCost, and bids",
    Step.RANK: "Munich ranks the bids by its own reckoning",
    Step.SELECT: "Munich selects",
    Step.TELL: "Everybody is told",
    Step.VOTE: "Munich votes to keep more of it, and the next bid costs more",
}

Cell = str | Text


class _Console(Console):
    """A console that fails as the rest of the demonstration does when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        try:
            super().on_broken_pipe()
        except SystemExit:
            raise DemoFailed("nobody reads on, so the nodes have been ended") from None


class Show:
    """Prints to a stream. Nothing of a step is computed here but how it looks."""

    def __init__(self, stream: TextIO) -> None:
        console = _Console(file=stream, highlight=False)
        # A pipe has no width, and on a wide screen lines of this length are still the easiest to read.
        console.width = min(console.width, WIDTH_MAX) if console.is_terminal else WIDTH_MAX
        self._console = console
        self._status: Status | None = None
        self._began_s = time.monotonic()
        self._steps = 0

    def opening(self) -> None:
        """What is going to be seen."""
        self._console.print()
        self._console.print(
            Text("One city has something left over. Who takes it, at the least cost to all?", style="bold")
        )
        self._console.print("The flow of §12.1 of the LOOP specification, played by three real nodes on this machine.")

    def begins(self, step: Step) -> None:
        """The heading, at once; on a terminal something moves until the rest is there."""
        self._steps += 1
        self._console.print()
        self._console.print(Text.assemble((f"{self._steps}  ", "bold cyan"), (_TITLES[step], "bold")))
        if self._console.is_terminal:
            self._status = self._console.status("", spinner="dots")
            self._status.start()

    def happened(self, step: Step, facts: Facts) -> None:
        """What came of it."""
        self.pause()
        show = {
            Step.START: self._start,
            Step.HANDSHAKE: self._handshake,
            Step.REGISTER: self._register,
            Step.HEAR: self._hear,
            Step.BID: self._bid,
            Step.RANK: self._rank,
            Step.SELECT: self._select,
            Step.TELL: self._tell,
            Step.VOTE: self._vote,
        }[step]
        show(facts)

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

    def _start(self, facts: Facts) -> None:
        self._say("`loopd init` and `loopd run` for each: its own process, key and database. They speak TLS 1.3.")
        rows = [
            (node["node"], node["address"], _short(node["fingerprint"]), _percent(node["signal"]))
            for node in facts["nodes"]
        ]
        self._table(("node", "address", "fingerprint of its key", ">its signal"), rows)
        self._say(f"The signal is what a city voted to add to the price when {facts['category']} leaves or enters.")

    def _handshake(self, facts: Facts) -> None:
        for link in facts["links"]:
            self._command(link["command"])
        rows = [(link["from"], link["to"], _short(link["peer_fingerprint"]), link["status"]) for link in facts["links"]]
        self._table(("node", "its peer", "shows the key", "handshake"), rows)
        self._say("Munich and Berlin have not met: what they know of each other, they know through Vienna.")

    def _register(self, facts: Facts) -> None:
        self._command(facts["token_command"])
        self._request(facts["request"], f"{facts['answer']} {facts['status']}")
        quantity = facts["quantity"]
        row = (facts["id"], facts["category"], f"{quantity['value']} {quantity['unit']}", _minute(facts["expires"]))
        self._table(("material", "category", ">quantity", "expires"), [row])

    def _hear(self, facts: Facts) -> None:
        rows = [
            (
                entry["node"],
                str(entry["hop"]),
                str(entry["ttl"]),
                entry["via"],
                _verified(entry["verified"]),
                f"{entry['after_ms']} ms",
            )
            for entry in facts["heard"]
        ]
        self._table(("who heard it", ">hop", ">TTL", "from whom", "Munich's signature", ">after"), rows)
        self._say("Vienna passed it on as Munich signed it, and Berlin checked that signature itself.")

    def _bid(self, facts: Facts) -> None:
        for bid in facts["bids"]:
            if "command" in bid:
                self._command(bid["command"])
            else:
                self._request(bid["request"], str(bid["answer"]))
        rows = []
        for bid in facts["bids"]:
            parts = bid["breakdown"]
            crosses = "distance_km" in bid
            rows.append(
                (
                    bid["from"],
                    _amount(parts["base"]),
                    _part(parts["export"], _percent(bid["export_signal"])) if crosses else "",
                    _part(parts["import"], _percent(bid["import_signal"])) if crosses else "",
                    _part(parts["distance"], f"{bid['distance_km']} km") if crosses else "",
                    Text(_amount(bid["loop_cost"]), style="bold"),
                )
            )
        columns = ("bidder", ">price", ">+ export", ">+ import", ">+ distance", ">= LoopCost")
        self._table(columns, rows)
        self._say("Export is Munich's signal, import the bidder's own; a kilometre costs 0.02 LC.")
        self._say("Within a city the price alone counts.")

    def _rank(self, facts: Facts) -> None:
        rows = []
        for offer in facts["offers"]:
            parts = offer["breakdown"] or {}
            claimed = offer.get("claimed_loop_cost")
            rows.append(
                (
                    "–" if offer["rank"] is None else str(offer["rank"]),
                    offer["from"],
                    *(_amount(parts.get(part)) for part in ("base", "export", "import", "distance")),
                    Text(_amount(offer["loop_cost"]), style="bold"),
                    _why(offer, claimed),
                )
            )
        columns = (">rank", "bidder", ">base", ">export", ">import", ">distance", ">LoopCost", "reason")
        self._table(columns, rows)

    def _select(self, facts: Facts) -> None:
        self._request(facts["request"], str(facts["answer"]))
        chosen = Text.assemble("selected: ", (facts["selected"], "bold green"), f", reason: {facts['reason']}")
        self._print(chosen)
        self._say(f"The material is now {facts['material']['availability']}.")

    def _tell(self, facts: Facts) -> None:
        decided = {entry["node"]: entry for entry in facts["bidders"]}
        rows = [
            (
                entry["node"],
                Text(decided[entry["node"]]["status"], style="yellow"),
                str(decided[entry["node"]]["reason"]),
                "yes" if entry["available"] else "no",
                str(entry["hop"]),
                entry["via"],
            )
            for entry in facts["heard"]
        ]
        self._table(("node", "its bid", "because", "available", ">hop", "from whom"), rows)

    def _vote(self, facts: Facts) -> None:
        results, (before, after) = facts["results"], facts["signals"]
        for request in facts["requests"]:
            self._request(request, "taken")
        counts = f"{results['votes_for']:,} for, {results['votes_against']:,} against: {results['status']}"
        self._say(f"{results['total_voted']:,} of {results['total_eligible']:,} voted, {counts}.")
        rows = [
            (
                when,
                _percent(signal),
                _amount(bid["breakdown"]["export"]),
                Text(_amount(bid["loop_cost"]), style="bold"),
            )
            for when, signal, bid in zip(("before", "after"), (before, after), facts["bids"], strict=True)
        ]
        self._table((f"{facts['bids'][0]['from']}'s bid", ">Munich's signal", ">export", ">LoopCost"), rows)
        self._say("`loopd vote verify` recomputes the outcome from the vote's published record.")

    # How a line and a table look

    def _print(self, what: Any) -> None:
        self._console.print(Padding(what, (0, 0, 0, _INDENT), expand=False))

    def _say(self, sentence: str) -> None:
        self._print(Text(sentence))

    def _command(self, command: str) -> None:
        self._console.print(Text.assemble(("   $ ", "dim"), (command, "dim")), soft_wrap=True)

    def _request(self, request: str, answer: str) -> None:
        line = Text.assemble((f"   {request}", "dim"), (" → ", "dim"), (answer, "green"))
        self._console.print(line, soft_wrap=True)

    def _table(self, columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
        """A column whose name begins with `>` stands to the right."""
        table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
        for name in columns:
            right = name.startswith(">")
            table.add_column(name.removeprefix(">"), justify="right" if right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) if isinstance(cell, str) else cell for cell in row))
        self._print(table)


def _short(fingerprint: str) -> str:
    return ":".join(fingerprint.split(":")[:_SHOWN_FINGERPRINT_GROUPS]) + ":…"


def _percent(signal: Decimal) -> str:
    return f"{(Decimal(signal) * 100).normalize():f} %"


def _amount(amount: Decimal | None) -> str:
    return "–" if amount is None else f"{Decimal(amount):.2f}"


def _part(amount: Decimal, origin: str) -> Text:
    return Text.assemble((f"{origin}  ", "dim"), _amount(amount))


def _verified(held: bool) -> Text:
    return Text("verified", style="green") if held else Text("not verified", style="red")


def _minute(timestamp: str) -> str:
    return f"{timestamp[:10]} {timestamp[11:16]} UTC"


def _why(offer: Facts, claimed: Decimal | None) -> str:
    """Why a bid stands where it does."""
    if offer["reason"] is not None:
        return str(offer["reason"])
    if claimed is None:
        return f"local to {MUNICH.name}"
    return "figures agree" if claimed == offer["loop_cost"] else f"bidder says {_amount(claimed)}"
