import json
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import Result

from tests.fake_daemon import FakeDaemon

Run = Callable[..., Result]

PATH = "/api/v1/loopcoin/clearing/vienna.loop"
ID = "550e8400-e29b-41d4-a716-446655440000"
CLAIM = {"debtor": "munich.loop", "creditor": "vienna.loop", "amount": 92.5, "discharged": False}
RUN = {"run": 3, "state": "agreed", "method": "netting", "closed_at": "2026-01-15T00:00:00Z", "claims": [CLAIM]}
DISCHARGE = {
    "id": ID,
    "debtor": "munich.loop",
    "creditor": "vienna.loop",
    "state": "announced",
    "amount": 92.5,
    "currency": "EUR",
    "reference": "SEPA 42",
    "runs": [3],
}
SALE = {"transaction": "TXN-2026-01-15-002", "payer_amount": 92.5, "payee_amount": 92.5}
STANDING: dict[str, Any] = {
    "peer": "vienna.loop",
    "currency": "LC-MUC",
    "owes": 0,
    "to_pay": 0,
    "backed_by": "EUR",
    "credit_limit": 500,
    "method": "netting",
    "period": "daily",
    "results": [
        {**SALE, "id": "7", "payer": "vienna.loop", "payee": "munich.loop", "state": "prepared", "frozen": True},
        {**SALE, "id": ID, "payer": "munich.loop", "payee": "vienna.loop", "state": "posted", "frozen": False},
    ],
    "next": None,
}


def lines(result: Result) -> list[list[str]]:
    """What was printed, as rows of cells."""
    assert result.exit_code == 0, result.stderr
    return [line.split("\t") for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("owes", "to_pay", "balance", "payment"),
    [
        (92.5, 46.25, "this city owes 92.5 LC-MUC", "this city pays 46.25 EUR"),
        (-92.5, -46.25, "vienna.loop owes 92.5 LC-MUC", "vienna.loop pays 46.25 EUR"),
        (0, 0, "nothing, in LC-MUC", "nothing, in EUR"),
    ],
)
def test_the_standing_with_a_peer_says_whose_the_debt_is(
    run: Run, daemon: FakeDaemon, owes: float, to_pay: float, balance: str, payment: str
) -> None:
    daemon.answers[f"GET {PATH}"] = (200, {**STANDING, "owes": owes, "to_pay": to_pay})
    shown = lines(run("clearing", "show", daemon.directory.root, "vienna.loop", "--limit", "7"))
    assert shown[:3] == [["peer", "vienna.loop"], ["balance", balance], ["to_pay", payment]]
    assert [row[:4] for row in shown[7:]] == [
        ["TXN-2026-01-15-002", "vienna.loop", "munich.loop", "frozen"],
        ["TXN-2026-01-15-002", "munich.loop", "vienna.loop", "posted"],
    ]
    assert daemon.requests[0][1] == f"{PATH}?limit=7"


def test_a_dispute_is_resolved_by_the_id_of_the_sale_that_this_city_pays(run: Run, daemon: FakeDaemon) -> None:
    """Both cities number their sales by themselves, so two may have one id."""
    path = f"{PATH}/settlements/{ID}/resolve"
    daemon.answers[f"POST {path}"] = (200, {**STANDING["results"][1], "state": "voided"})
    root = daemon.directory.root
    first, second = STANDING["results"]
    daemon.answers[f"GET {PATH}"] = (200, {**STANDING, "results": [first], "next": f"{PATH}/older"})
    daemon.answers[f"GET {PATH}/older"] = (200, {**STANDING, "results": [second]})
    shown = dict(lines(run("clearing", "resolve", root, "vienna.loop", "TXN-2026-01-15-002", "void")))
    assert (shown["transaction"], shown["state"]) == ("TXN-2026-01-15-002", "voided")
    assert daemon.requests[-1] == ("POST", path, {"decision": "void"})
    unknown = run("clearing", "resolve", root, "vienna.loop", "TXN-2026-01-15-009", "post")
    assert (unknown.exit_code, "this city pays nothing for TXN-2026-01-15-009" in unknown.stderr) == (1, True)
    assert run("clearing", "resolve", root, "vienna.loop", "TXN-2026-01-15-002", "perhaps").exit_code == 2


def test_a_run_is_shown_with_each_of_its_claims(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers[f"GET {PATH}/runs"] = (200, {"results": [RUN, {**RUN, "run": 2, "claims": []}], "next": None})
    shown = lines(run("clearing", "runs", daemon.directory.root, "vienna.loop"))
    assert shown[1] == [
        *("3", "agreed", "netting", "2026-01-15T00:00:00Z", "munich.loop", "vienna.loop", "92.5", "no", "-"),
    ]
    assert shown[2][0] == "2"
    assert json.loads(run("clearing", "runs", daemon.directory.root, "vienna.loop", "--json").stdout)[0] == RUN


@pytest.mark.parametrize(
    ("arguments", "method", "path", "body"),
    [
        (("propose",), "POST", "/runs", {}),
        (("document", "3"), "GET", "/runs/3", None),
        (("discharges",), "GET", "/discharges?limit=20", None),
        (("runs", "--limit", "3"), "GET", "/runs?limit=3", None),
        (("pay", "3", "SEPA 42", "--id", ID), "POST", "/discharges", {"id": ID, "run": 3, "reference": "SEPA 42"}),
        (("confirm", ID), "POST", f"/discharges/{ID}/confirm", {}),
        (("deny", ID, "no payment"), "POST", f"/discharges/{ID}/deny", {"reason": "no payment"}),
    ],
)
def test_what_each_command_asks_for(
    run: Run, daemon: FakeDaemon, arguments: tuple[str, ...], method: str, path: str, body: Any
) -> None:
    command, *rest = arguments
    answer = {**RUN, **DISCHARGE, "results": [{**RUN, **DISCHARGE}]}
    daemon.answers[f"{method} {PATH}{path.partition('?')[0]}"] = (200, answer)
    lines(run("clearing", command, daemon.directory.root, "vienna.loop", *rest))
    assert daemon.requests == [(method, f"{PATH}{path}", body)]


def test_a_discharge_is_shown_field_by_field(run: Run, daemon: FakeDaemon) -> None:
    daemon.answers[f"POST {PATH}/discharges/{ID}/confirm"] = (200, {**DISCHARGE, "state": "confirmed"})
    shown = dict(lines(run("clearing", "confirm", daemon.directory.root, "vienna.loop", ID)))
    assert (shown["state"], shown["amount"], shown["reference"]) == ("confirmed", "92.5", "SEPA 42")


def test_a_refusal_is_told(run: Run, daemon: FakeDaemon) -> None:
    error = {"code": "CONFLICT", "message": "This city owes nothing.", "details": {"reason": "nothing_owed"}}
    daemon.answers[f"POST {PATH}/discharges"] = (409, {"error": error})
    result = run("clearing", "pay", daemon.directory.root, "vienna.loop", "3", "SEPA 42")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "This city owes nothing." in result.stderr
