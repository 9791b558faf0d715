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


def lines(result: Result) -> list[list[str]]:
    """What was printed, as rows of cells."""
    assert result.exit_code == 0, result.stderr
    return [line.split("\t") for line in result.stdout.splitlines()]


def test_the_standing_with_a_peer_is_shown(run: Run, daemon: FakeDaemon) -> None:
    sale = {"transaction": "TXN-2026-01-15-001", "payer": "munich.loop", "state": "posted", "payer_amount": 92.5}
    daemon.answers[f"GET {PATH}"] = (200, {"peer": "vienna.loop", "owes": 92.5, "results": [sale], "next": None})
    shown = lines(run("clearing", "show", daemon.directory.root, "vienna.loop"))
    assert shown[:2] == [["peer", "vienna.loop"], ["owes", "92.5"]]
    assert shown[3][:2] == ["TXN-2026-01-15-001", "munich.loop"]


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
        (("discharges",), "GET", "/discharges", None),
        (("pay", "3", "SEPA 42", "--id", ID), "POST", "/discharges", {"id": ID, "run": 3, "reference": "SEPA 42"}),
        (("confirm", ID), "POST", f"/discharges/{ID}/confirm", {}),
        (("deny", ID, "no payment"), "POST", f"/discharges/{ID}/deny", {"reason": "no payment"}),
    ],
)
def test_what_each_command_asks_for(
    run: Run, daemon: FakeDaemon, arguments: tuple[str, ...], method: str, path: str, body: Any
) -> None:
    command, *rest = arguments
    daemon.answers[f"{method} {PATH}{path}"] = (200, {**RUN, **DISCHARGE, "results": [DISCHARGE]})
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
