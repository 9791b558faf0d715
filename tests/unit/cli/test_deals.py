"""`loopd supply`, `match`, `transfer` and `transaction`: what they ask the daemon, and what they print."""

import json
from collections.abc import Callable

import pytest
from click.testing import Result

from loopd.directory import NodeDirectory
from loopd.protocol.documents import check_document
from tests.fake_daemon import FakeDaemon

Run = Callable[..., Result]
SALE = {
    "transaction_id": "TXN-2026-09-21-001",
    "status": "pending",
    "version": 1,
    "updated_at": "2026-09-21T14:13:20Z",
    "match_id": "MATCH-00000",
    "transaction": {
        "material": "MAT-DE-MUC-2026-FOOD-B847F3",
        "buyer": "vienna.loop",
        "offer": {"base_price": 60, "loop_cost": 104},
    },
}
OFFER = {
    "id": "OFFER-00000",
    "material_id": "MAT-DE-MUC-2026-FOOD-B847F3",
    "status": "open",
    "version": 1,
    "quantity": {"value": 200, "unit": "kg"},
    "to_city": "Vienna",
    "available_until": "2026-10-21T14:13:20Z",
}


def test_lists_show_what_matters(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["GET /api/v1/offer"] = (200, {"results": [OFFER], "next": None})
    result = run("supply", "list", node.root)
    assert result.exit_code == 0, result.stderr
    shown = "OFFER-00000\tMAT-DE-MUC-2026-FOOD-B847F3\topen\t1\t200 kg\tVienna\t2026-10-21T14:13:20Z"
    assert shown in result.stdout
    daemon.answers["GET /api/v1/transaction"] = (200, {"results": [SALE], "next": None})
    result = run("transaction", "list", node.root, "--limit", "5", "--status", "pending")
    shown = "TXN-2026-09-21-001\tMAT-DE-MUC-2026-FOOD-B847F3\tpending\t1\tMATCH-00000\tvienna.loop\t104"
    assert shown in result.stdout
    assert daemon.requests[-1] == ("GET", "/api/v1/transaction?limit=5&status=pending", None)


@pytest.mark.parametrize("noun", ["supply", "match", "transfer", "transaction"])
def test_one_is_made_moved_and_shown(run: Run, node: NodeDirectory, daemon: FakeDaemon, noun: str) -> None:
    entity = "offer" if noun == "supply" else noun
    daemon.answers[f"POST /api/v1/{entity}"] = (201, {**OFFER, "id": "X-0000001"})
    document = node.root / "document.json"
    document.write_text('{"@type": "Whatever"}')
    result = run(noun, "create", node.root, document)
    assert (result.exit_code, "X-0000001" in result.stdout) == (0, True), result.stderr
    status = {"supply": "withdrawn", "match": "accepted"}.get(noun, "cancelled")
    daemon.answers[f"POST /api/v1/{entity}/X-0000001/status"] = (200, {**OFFER, "status": status, "version": 2})
    result = run(noun, "status", node.root, "X-0000001", status, "--reason", "no truck", "--json")
    assert json.loads(result.stdout)["status"] == status
    assert daemon.requests[-1] == (
        "POST",
        f"/api/v1/{entity}/X-0000001/status",
        {"status": status, "reason": "no truck"},
    )
    change = {"version": 1, "status": "open", "reason": None, "changed_by": "munich.loop", "changed_at": "2026"}
    daemon.answers[f"GET /api/v1/{entity}/X-0000001/history"] = (200, {"results": [change]})
    assert "munich.loop" in run(noun, "show", node.root, "X-0000001").stdout


def test_one_is_shown_as_it_is_now_before_its_history(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    first = {"version": 1, "status": "pending", "reason": None, "changed_by": "munich.loop", "changed_at": "2026"}
    now = {**SALE, "status": "confirmed", "version": 2}
    history = {
        "results": [{**first, "document": SALE}, {**first, "version": 2, "status": "confirmed", "document": now}]
    }
    daemon.answers["GET /api/v1/transaction/TXN-2026-09-21-001/history"] = (200, history)
    shown = run("transaction", "show", node.root, "TXN-2026-09-21-001").stdout.splitlines()
    assert shown[:4] == [
        *("id\tTXN-2026-09-21-001", "subject\tMAT-DE-MUC-2026-FOOD-B847F3", "status\tconfirmed", "version\t2")
    ]
    assert "loop_cost\t104" in shown
    assert shown[-1].startswith("2\tconfirmed")


def test_the_payment_of_a_sale_is_shown_and_a_dispute_about_it_ended(
    run: Run, node: NodeDirectory, daemon: FakeDaemon
) -> None:
    payment = {"state": "frozen", "total": 104, "lines": {"seller_receives": 36}}
    answer = {"transaction_id": SALE["transaction_id"], "seller": "munich.loop", "buyer": "x", "payment": payment}
    path = f"/api/v1/loopcoin/settlement/{SALE['transaction_id']}"
    daemon.answers[f"GET {path}"] = (200, answer)
    daemon.answers[f"POST {path}/resolve"] = (200, answer)
    shown = run("transaction", "settlement", node.root, SALE["transaction_id"]).stdout.splitlines()
    assert shown[3:] == ["payment\tfrozen", "total\t104", "seller_receives\t36"]
    assert run("transaction", "resolve", node.root, SALE["transaction_id"], "void", "--json").exit_code == 0
    assert daemon.requests[-1] == ("POST", f"{path}/resolve", {"decision": "void"})
    assert run("transaction", "resolve", node.root, SALE["transaction_id"], "drop").exit_code == 2


def test_a_transfer_is_made_of_a_match(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    daemon.answers["GET /api/v1/match/MATCH-00000"] = (200, {"id": "MATCH-00000", "material_id": OFFER["material_id"]})
    daemon.answers["POST /api/v1/transfer"] = (201, {**OFFER, "id": "TRANSFER-0001"})
    for extras in ([], ["--id", "TRANSFER-0001", "--handoff-at", "2026-09-22T08:00:00Z"]):
        result = run("transfer", "create", node.root, "--match", "MATCH-00000", *extras)
        assert (result.exit_code, "TRANSFER-0001" in result.stdout) == (0, True), result.stderr
    made, named = (body for method, _, body in daemon.requests if method == "POST")
    for document in (made, named):
        checked = check_document(json.dumps(document).encode(), "Transfer").value
        assert (checked["match_id"], checked["material_id"]) == ("MATCH-00000", OFFER["material_id"])
    assert (named["id"], named["handoff_at"]) == ("TRANSFER-0001", "2026-09-22T08:00:00Z")


def test_a_transfer_is_made_of_a_file_or_of_options_and_not_of_both(
    run: Run, node: NodeDirectory, daemon: FakeDaemon
) -> None:
    document = node.root / "document.json"
    document.write_text("{}")
    for arguments in ([], [document, "--match", "MATCH-00000"], ["--id", "TRANSFER-0001"]):
        assert run("transfer", "create", node.root, *arguments).exit_code == 2
    assert daemon.requests == []


def test_an_unknown_status_is_misuse(run: Run, node: NodeDirectory, daemon: FakeDaemon) -> None:
    result = run("match", "status", node.root, "X-0000001", "sold")
    assert (result.exit_code, daemon.requests) == (2, [])
