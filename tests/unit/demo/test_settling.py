"""The last act: what a sale paid, out of two cities' books, and both books beside each other."""

import io
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.demo.act import Act, Play
from loopd.demo.acts import settling
from loopd.demo.acts.settling import ACCOUNTS, BOOKS, paid
from loopd.demo.cast import City
from loopd.demo.client import Client
from loopd.demo.failure import DemoFailed
from loopd.demo.nodes import Nodes
from loopd.demo.show import Show
from loopd.demo.stage import Stage

MUNICH, VIENNA = "munich.loop", "vienna.loop"
FUND, RESIDUAL, TRANSPORT = (f"node:{name}@{MUNICH}" for name in ("community-fund", "clearing-residual", "transport"))


def account(account_id: str, balance: str, currency: str) -> dict[str, Any]:
    return {"id": account_id, "currency": currency, "balance": Decimal(balance), "held": Decimal(0)}


def settled(**changed: Any) -> dict[str, Any]:
    """What the last act saw: Vienna owes 92 that came from Munich."""
    munich = [
        account(f"node:reserve@{MUNICH}", "0", "EUR"),
        account("business:brewery@munich.loop", "36", "LC-MUC"),
        account(f"node:bonus@{MUNICH}", "0", "LC-MUC"),
        account(f"node:clearing.{VIENNA}@{MUNICH}", "-92", "LC-MUC"),
        account(RESIDUAL, "56", "LC-MUC"),
    ]
    vienna = [
        account(f"node:issuance@{VIENNA}", "-500", "EUR"),
        account(f"node:reserve@{VIENNA}", "500", "EUR"),
        account(f"node:clearing.{MUNICH}@{VIENNA}", "92", "LC-VIE"),
        account(f"node:clearing.berlin.loop@{VIENNA}", "0", "LC-VIE"),
        account("business:dairy@vienna.loop", "396", "LC-VIE"),
        account("user:maria@vienna.loop", "12", "LC-VIE"),
        account(f"node:issuance@{VIENNA}", "-500", "LC-VIE"),
        account(f"node:bonus@{VIENNA}", "0", "LC-VIE"),
    ]
    return {
        "books": [
            {"node": MUNICH, "currency": "LC-MUC", "accounts": munich, "sums": {"EUR": 0, "LC-MUC": Decimal(0)}},
            {"node": VIENNA, "currency": "LC-VIE", "accounts": vienna, "sums": {"EUR": 0, "LC-VIE": Decimal(0)}},
        ],
        "owed": {MUNICH: Decimal(-92), VIENNA: Decimal(92)},
        "checks": [{"node": MUNICH, "command": "loopd ledger check munich", "invariants": 16, "holding": 15}],
        "reconciliation": {
            "command": f"loopd ledger reconcile munich {VIENNA}",
            "agrees": True,
            "compared": 1,
            "difference": None,
        },
    } | changed


def shown(facts: dict[str, Any], act: Act = BOOKS) -> list[str]:
    stream = io.StringIO()
    show = Show(stream)
    show.begins(act)
    show.happened(act, facts)
    return [" ".join(line.split()) for line in stream.getvalue().splitlines()[2:]]


def test_an_account_is_shown_with_what_stands_behind_its_currency() -> None:
    opened = {
        **account("business:dairy@vienna.loop", "500", "LC-VIE"),
        "node": VIENNA,
        "reserve": Decimal(250),
        "backed_by": "EUR",
        "peer": MUNICH,
        "credit_limit": Decimal(5000),
    }
    command, _, row, credit = shown({"commands": ["loopd ledger issue"], "accounts": [opened]}, ACCOUNTS)
    assert command == "$ loopd ledger issue"
    assert row == "business:dairy@vienna.loop 500.00 LC-VIE 250.00 EUR"
    assert credit == "vienna.loop lets munich.loop owe it up to 5000.00 LC-VIE."


def test_accounts_of_two_cities_stand_beside_their_like() -> None:
    table = shown(settled())
    assert table[: table.index("Issuance is minus what circulates; so each city's books sum to nothing.")] == [
        "munich.loop's books LC-MUC vienna.loop's books LC-VIE",
        "business:brewery 36.00 business:dairy 396.00",
        # Munich has no second holder, and Vienna no residual in these books.
        "user:maria 12.00",
        "node:clearing-residual 56.00",
        "node:clearing.vienna.loop -92.00 node:clearing.munich.loop 92.00",
        "node:issuance -500.00",
        "sum 0.00 sum 0.00",
        "node:reserve, EUR 0.00 node:reserve, EUR 500.00",
    ]


def test_the_one_that_owes_is_named_as_long_as_it_owes() -> None:
    assert "The clearing accounts mirror each other: vienna.loop owes 92.00." in shown(settled())
    nothing = shown(settled(owed={MUNICH: Decimal(0), VIENNA: Decimal(0)}))
    assert not any("owes" in line for line in nothing)


def test_accounts_between_the_cities_are_shown_when_nothing_is_left_on_them() -> None:
    facts = settled()
    for book in facts["books"]:
        for each in book["accounts"]:
            each["balance"] = Decimal(0)
    assert shown(facts)[1:3] == [
        "node:clearing.vienna.loop 0.00 node:clearing.munich.loop 0.00",
        "sum 0.00 sum 0.00",
    ]


def test_the_verdicts_are_those_of_the_commands() -> None:
    assert shown(settled())[-2:] == [
        "$ loopd ledger check munich → 15 of 16 invariants hold",
        "$ loopd ledger reconcile munich vienna.loop → both agree, entries: 1",
    ]
    difference = {"agrees": False, "difference": {"reason": "other_amounts"}}
    differing = settled(reconciliation=settled()["reconciliation"] | difference)
    assert shown(differing)[-1].endswith("→ they differ: other_amounts, entries: 1")


async def test_what_was_paid_is_read_in_both_books_under_the_same_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    books = {
        "business:dairy@vienna.loop": {"a": -36, "b": -24, "c": -12, "d": -8, "e": -24},
        "business:brewery@munich.loop": {"a": 36},
        FUND: {"b": 24},
        f"node:community-fund@{VIENNA}": {"c": 12},
        TRANSPORT: {"d": 8},
        RESIDUAL: {"e": 24},
    }

    async def settlement(play: Play, state: str) -> list[dict[str, Any]]:
        return [{"state": state}, {"state": state}]

    async def posted(play: Play, city: City, account: str) -> dict[str, Decimal]:
        assert account.endswith(f"@{city.node_id}")
        return {transfer: Decimal(moved) for transfer, moved in books[account].items()}

    monkeypatch.setattr(settling, "_settlement", settlement)
    monkeypatch.setattr(settling, "_posted", posted)
    play = Play(Nodes(Stage(tmp_path), (1, 2, 3)), Client.__new__(Client))
    payment = await paid(play)
    assert [(each["transfer"], each["amount"]) for each in payment["lines"]] == [
        *(("a", 36), ("b", 24), ("c", 12), ("d", 8), ("e", 24))
    ]
    assert payment["total"] == {"from": "business:dairy@vienna.loop", "amount": 104, "currency": "LC-VIE"}

    books[TRANSPORT] = {"another": 8}
    with pytest.raises(DemoFailed, match="different transfers"):
        await paid(play)
