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
from loopd.demo.acts.voting import VOTE
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


SIDES = [
    {"node": "munich.loop", "currency": "LC-MUC", "payer_amount": Decimal(72), "payee_amount": Decimal(36)},
    {"node": "vienna.loop", "currency": "LC-VIE", "payer_amount": Decimal(72), "payee_amount": Decimal(36)},
]
HELD = {
    "sides": SIDES,
    "accounts": [
        {"id": "business:brewery@munich.loop", "currency": "LC-MUC", "balance": 0, "held": 0, "available": 0},
        {
            "id": "business:dairy@vienna.loop",
            "currency": "LC-VIE",
            "balance": 500,
            "held": Decimal("104.00"),
            "available": 396,
        },
    ],
}
PAID = {
    "sides": SIDES,
    "lines": [
        {"meaning": "price − export", "to": "business:brewery@munich.loop", "amount": 36, "currency": "LC-MUC"},
    ],
    "total": {"from": "business:dairy@vienna.loop", "amount": 72, "currency": "LC-VIE"},
}


def test_a_vote_is_shown_with_what_it_makes_of_a_price() -> None:
    def cost(export: int, loop_cost: int) -> dict[str, Any]:
        return {"by": "vienna.loop", "base_price": 60, "breakdown": {"export": export}, "loop_cost": loop_cost}

    results = {"total_eligible": 1_000, "total_voted": 50, "votes_for": 30, "votes_against": 20, "status": "passed"}
    facts = {
        "token_command": "loopd token create munich",
        "requests": ["POST munich.loop/api/v1/signals/proposals"],
        "results": results,
        "signals": [Decimal("0.30"), Decimal("0.40")],
        "costs": [cost(18, 98), cost(24, 104)],
    }
    _, _, request, outcome, _, before, after, _ = shown(io.StringIO(), VOTE, facts)
    assert request == "POST munich.loop/api/v1/signals/proposals → taken"
    assert outcome == "50 of 1,000 voted, 30 for, 20 against: passed."
    assert (before, after) == ("before 30 % 60.00 18.00 98.00", "after 40 % 60.00 24.00 104.00")


def test_both_sides_of_a_deal_stand_beside_each_other() -> None:
    standing = {"status": "pending", "version": 1}
    facts = {
        "seller": "munich.loop",
        "buyer": "vienna.loop",
        "request": "POST munich.loop/api/v1/material/X/select",
        "answer": 200,
        "command": "loopd offer make vienna X 60",
        "selected": "vienna.loop",
        "loop_cost": Decimal(104),
        "payment": HELD,
        "parts": [{"entity": "transaction", "id": "TXN-1", "munich.loop": standing, "vienna.loop": standing}],
    }
    _, command, _, chosen, columns, row, _, *money = shown(io.StringIO(), SELL, facts)
    assert command == "$ loopd offer make vienna X 60"
    assert chosen == "selected: vienna.loop, LoopCost 104.00"
    assert columns == "part id at munich.loop at vienna.loop"
    assert row == "transaction TXN-1 pending (v1) pending (v1)"
    assert money == [
        "account balance held free currency",
        "business:brewery@munich.loop 0.00 0.00 0.00 LC-MUC",
        "business:dairy@vienna.loop 500.00 104.00 396.00 LC-VIE",
        "vienna.loop holds the money, munich.loop is ready; nothing has moved yet.",
    ]


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
        "payment": PAID,
    }
    lines = shown(io.StringIO(), DELIVER, facts)
    before, command, after = (
        next(number for number, line in enumerate(lines) if word in line)
        for word in ("in_transit (v2)", "$ loopd mirror ask", "completed (v2)")
    )
    assert before < command < after
    come = next(number for number, line in enumerate(lines) if line.endswith("they are now in Vienna."))
    assert lines[come + 1 :] == [
        "part account amount currency",
        "price − export business:brewery@munich.loop 36.00 LC-MUC",
        "LoopCost, paid by business:dairy@vienna.loop 72.00 LC-VIE",
        "Both sides bear the export and the fund gets it once: so a residual is left.",
        "72.00 LC-VIE crossed, and came in as 36.00 LC-MUC.",
    ]
