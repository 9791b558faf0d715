"""How the steps look: colour on a terminal, plain text in a pipe, and what nodes say shown as they say it."""

import io
import re
from decimal import Decimal
from typing import Any

import pytest

from loopd.demo.act import Act
from loopd.demo.acts.announcing import INNER_RING, MIDDLE_RING
from loopd.demo.acts.bidding import RANK, SELECT
from loopd.demo.acts.dealing import DELIVER, SELL
from loopd.demo.failure import DemoFailed
from loopd.demo.show import Show

# What steers a terminal; beside it, lines without a letter or digit are the moving part.
CODES = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _plain_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "160")


def offer(rank: int | None, bidder: str, cost: int | None, **more: Any) -> dict[str, Any]:
    parts = dict.fromkeys(("base", "export", "import", "distance"), Decimal(1))
    breakdown = None if cost is None else parts
    return {"rank": rank, "from": bidder, "breakdown": breakdown, "loop_cost": cost, "reason": None, **more}


RANKING = {
    "offers": [
        offer(1, "munich-farm", 50),
        offer(2, "berlin.loop", 103, claimed_loop_cost=Decimal("103.00")),
        offer(3, "vienna.loop", 104, claimed_loop_cost=Decimal("99.5")),
        offer(None, "graz.loop", None, claimed_loop_cost=10, reason="signals_unknown"),
    ]
}


def shown(stream: io.StringIO, act: Act, facts: dict[str, Any]) -> list[str]:
    show = Show(stream)
    show.begins(act)
    show.happened(act, facts)
    text = CODES.sub("", stream.getvalue())
    return [" ".join(line.split()) for line in text.splitlines() if any(map(str.isalnum, line))]


def test_every_place_in_the_ranking_has_its_reason() -> None:
    heading, _, *rows = shown(io.StringIO(), RANK, RANKING)
    assert heading == "1 Munich ranks the bids by its own reckoning"
    assert rows == [
        "1 munich-farm 1.00 1.00 1.00 1.00 50.00 local to Munich",
        "2 berlin.loop 1.00 1.00 1.00 1.00 103.00 figures agree",
        "3 vienna.loop 1.00 1.00 1.00 1.00 104.00 bidder says 99.50",
        "– graz.loop – – – – – signals_unknown",
    ]


def ring(**facts: Any) -> dict[str, Any]:
    return {"radius_km": 400, "opened_after_ms": 3040, "heard": [], "left_out": [], **facts}


def test_a_signature_that_did_not_hold_is_shown_so() -> None:
    entry = {"node": "vienna.loop", "hop": 1, "ttl": 3, "via": "munich.loop", "verified": False, "after_ms": 7}
    _, opened, _, row, _ = shown(io.StringIO(), MIDDLE_RING, ring(heard=[entry]))
    assert opened == "The ring opened 3.0 s after the registration."
    assert row == "vienna.loop 1 3 munich.loop not verified 7 ms"


def test_who_lies_outside_a_ring_is_named() -> None:
    left_out = [{"node": "vienna.loop", "by": "munich.loop"}]
    _, _, row, _ = shown(io.StringIO(), INNER_RING, ring(left_out=left_out))
    assert row == "vienna.loop lies outside: munich.loop does not send it there."


def test_a_terminal_gets_colour_and_no_line_beyond_the_width() -> None:
    terminal, pipe = Terminal(), io.StringIO()
    shown(terminal, RANK, RANKING)
    shown(pipe, RANK, RANKING)
    assert "\x1b[" in terminal.getvalue()
    assert "\x1b" not in pipe.getvalue()
    assert max(map(len, pipe.getvalue().splitlines())) <= 100


def test_a_narrow_terminal_loses_no_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    facts = {"offers": [each for each in RANKING["offers"] if each["from"] != "vienna.loop"]}
    wide = shown(io.StringIO(), RANK, facts)
    assert shown(Terminal(), RANK, facts) == wide


def test_what_is_to_be_typed_stands_on_one_line() -> None:
    stream = io.StringIO()
    line = f"curl --cacert {'x' * 150}/ca.pem https://127.0.0.1:8443/docs"
    Show(stream).closing([("Ask them:", [line])])
    assert f"   {line}\n" in stream.getvalue()


def test_markup_in_what_a_node_says_is_text() -> None:
    facts = {
        "request": "POST https://127.0.0.1/[bold]x[/bold]",
        "answer": 200,
        "selected": "[red]farm[/red]",
        "reason": "[/]",
        "material": {"availability": "[blink]reserved"},
    }
    lines = shown(io.StringIO(), SELECT, facts)
    assert lines[1:] == [
        "POST https://127.0.0.1/[bold]x[/bold] → 200",
        "selected: [red]farm[/red], reason: [/]",
        "The material is now [blink]reserved.",
    ]


class Broken(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_a_reader_that_goes_away_ends_the_show(monkeypatch: pytest.MonkeyPatch) -> None:
    # The real one points standard output, which is pytest's here, to nowhere.
    monkeypatch.setattr("os.dup2", lambda *_: None)
    monkeypatch.setattr("sys.stdout", open_like_a_file())
    with pytest.raises(DemoFailed, match="nobody reads on"):
        Show(Broken()).opening()


def open_like_a_file() -> io.StringIO:
    class File(io.StringIO):
        def fileno(self) -> int:
            return 1

    return File()


def test_both_sides_of_a_deal_stand_beside_each_other() -> None:
    standing = {"status": "pending", "version": 1}
    facts = {
        "seller": "munich.loop",
        "buyer": "vienna.loop",
        "request": "POST munich.loop/api/v1/material/X/select",
        "answer": 200,
        "selected": "vienna.loop",
        "loop_cost": Decimal(110),
        "parts": [{"entity": "transaction", "id": "TXN-1", "munich.loop": standing, "vienna.loop": standing}],
    }
    _, _, chosen, columns, row, *_ = shown(io.StringIO(), SELL, facts)
    assert chosen == "selected: vienna.loop, LoopCost 110.00"
    assert columns == "part of the deal id at munich.loop at vienna.loop"
    assert row == "transaction TXN-1 pending (version 1) pending (version 1)"


def test_a_delivery_is_shown_before_and_after_it_arrives() -> None:
    def parts(status: str) -> list[dict[str, Any]]:
        standing = {"status": status, "version": 2}
        return [{"entity": "transfer", "id": "TRANSFER-1", "munich.loop": standing, "vienna.loop": standing}]

    facts = {
        "seller": "munich.loop",
        "buyer": "vienna.loop",
        "requests": [{"request": "POST munich.loop/api/v1/transfer", "answer": 201}],
        "command": "loopd mirror ask vienna munich.loop transfer TRANSFER-1 completed",
        "under_way": parts("in_transit"),
        "delivered": parts("completed"),
        "material": {"id": "X", "current_city": "Vienna"},
    }
    lines = shown(io.StringIO(), DELIVER, facts)
    before, command, after = (
        next(number for number, line in enumerate(lines) if word in line)
        for word in ("in_transit (version 2)", "$ loopd mirror ask", "completed (version 2)")
    )
    assert before < command < after
    assert lines[-1].endswith("they are now in Vienna.")
