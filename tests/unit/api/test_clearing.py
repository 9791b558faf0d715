"""The routes of settlements between cities, for other nodes and for the operator."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.federation.authentication import NodeCaller
from loopd.ledger.clearing.messages import SETTLEMENT_PATH
from loopd.protocol.documents import check_document, dump_json
from loopd.protocol.nodes import PeerAuth, Standing
from tests.clearing_api import CLEARING, client_of, message, request, transaction
from tests.exchange_api import TrustingAuthenticator
from tests.exchange_support import known_node
from tests.ledger_support import MARIA

POST = message("Inquiry", asks="post")


async def test_a_request_holds_the_money_and_is_taken_once(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        await client.node.issue(MARIA, 200)
        for _ in range(2):
            answer = await client.tell(request())
            assert answer.status == 202
        assert client.node.available(MARIA) == 9600
        shown = (await client.ask("GET", CLEARING)).json
        assert (shown["currency"], shown["owes"], shown["credit_limit"]) == ("LC-MUC", 0, 500)
        [settlement] = shown["results"]
        assert (settlement["state"], settlement["payer_amount"], settlement["transaction"]) == (
            "held",
            92,
            "TXN-2026-01-15-001",
        )


async def test_a_purchase_shows_its_settlement_in_the_buyers_city_too(tmp_path: Path) -> None:
    path = "/api/v1/loopcoin/settlement/TXN-2026-01-15-001"
    async with client_of(tmp_path) as client:
        await client.node.issue(MARIA, 200)
        await client.tell(request())
        # The id is Vienna's: Munich may have a transaction of the same.
        for query in ("", "?seller=munich.loop", "?seller=linz.loop"):
            assert (await client.ask("GET", path + query, authorised=False)).reason == "unknown_settlement"
        for said, state in ((None, "held"), (message("Answer", answer="prepared"), "prepared"), (POST, "posted")):
            if said is not None:
                await client.tell(said)
            answer = await client.ask("GET", f"{path}?seller=vienna.loop", authorised=False)
            shown = check_document(answer.body, "Settlement").value
            assert b"user:" not in answer.body
            assert (shown["seller"], shown["buyer"], shown["final_cost"]) == ("vienna.loop", "munich.loop", 104)
            assert list(shown["distribution"].values()) == [36, 24, 12, 8, 24]
            assert (shown["payment"]["state"], shown["confirmation"]["payment_completed"]) == (state, state == "posted")


async def test_a_dispute_is_resolved_by_the_operator(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        await client.node.issue(MARIA, 200)
        resolve = f"{CLEARING}/settlements/{request()['id']}/resolve"
        assert (await client.ask("POST", resolve, {"decision": "void"})).reason == "unknown_settlement"
        await client.tell(request())
        assert (await client.ask("POST", resolve, {"decision": "void"})).reason == "not_frozen"
        await client.tell(message("Inquiry", asks="freeze"))
        assert (await client.ask("POST", resolve, {"decision": "post"})).reason == "not_prepared"
        await client.tell(message("Answer", answer="prepared"))
        assert (await client.ask("POST", resolve, {"decision": "keep"})).status == 400
        assert (await client.ask("POST", resolve, {"decision": "post"}, authorised=False)).status == 401
        for _ in range(2):
            answer = await client.ask("POST", resolve, {"decision": "post"})
            assert (answer.status, answer.json["state"]) == (200, "posted")
        assert (await client.ask("POST", resolve, {"decision": "void"})).reason == "already_posted"
        assert client.node.balance(MARIA) == 9600


async def test_what_another_node_may_not_say_is_refused(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        await client.node.issue(MARIA, 200)
        await client.tell(request())
        before = await client.node.books()
        other_lines = {**request()["lines"], "residual": 25}
        finer = {**request()["lines"], "residual": Decimal("24.001")}
        for told, as_node, status, reason in (
            (request(2), None, 401, "missing_header"),
            (request(2), "linz.loop", 400, "origin_mismatch"),
            ({**request(2), "payee": "linz.loop"}, "linz.loop", 403, "not_settling"),
            ({**request(2), "payer": "graz.loop"}, "vienna.loop", 400, "not_counterpart"),
            (request(2, lines=finer), "vienna.loop", 400, "bad_amount"),
            (request(2, lines={**request()["lines"], "residual": -1}), "vienna.loop", 400, "schema"),
            (request(lines=other_lines), "vienna.loop", 409, "other_content"),
            (request(2, transaction=transaction(1)), "vienna.loop", 400, "bad_id"),
            (message("Acknowledgement", decision="post"), "vienna.loop", 409, "not_decided"),
            (message("Answer", 7, answer="prepared"), "vienna.loop", 409, "unknown_settlement"),
            ({**request(2), "note": "more"}, "vienna.loop", 400, "schema"),
        ):
            answer = await client.tell(told, as_node)
            assert (answer.status, answer.reason) == (status, reason)
        assert await client.node.books() == before


@pytest.mark.parametrize(
    "changes",
    [
        {"standing": Standing.INTRODUCED},
        {"standing": Standing.PENDING},
        {"auth": PeerAuth.UNSIGNED_LAB},
    ],
)
async def test_only_peers_settle_and_only_what_they_signed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    node = known_node("vienna.loop", None, **changes)

    async def authenticate(*arguments: Any) -> NodeCaller:
        return NodeCaller(node, node.auth is PeerAuth.SIGNED, "", "", None, bytes(32))

    async with client_of(tmp_path) as client:
        await client.node.issue(MARIA, 200)
        before = await client.node.books()
        monkeypatch.setattr(TrustingAuthenticator, "authenticate", authenticate)
        for answer in (await client.tell(request()), await client.statement()):
            assert (answer.status, answer.reason) == (403, "not_a_peer")
        assert await client.node.books() == before


async def test_pages_of_a_clearing_account(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        for number in (1, 2, 3):
            await client.tell(request(number))
        first = (await client.ask("GET", f"{CLEARING}?limit=2")).json
        second = (await client.ask("GET", first["next"])).json
        ids = [each["transaction"][-3:] for each in (*first["results"], *second["results"])]
        assert (ids, second["next"]) == (["003", "002", "001"], None)
        assert first["results"][0]["reason"] == "insufficient_funds"
        assert (await client.ask("GET", CLEARING, authorised=False)).status == 401
        assert (await client.ask("GET", CLEARING.replace("vienna", "linz"))).reason == "unknown_peer"


@pytest.mark.parametrize("path", [CLEARING, f"{CLEARING}/settlements/{request()['id']}/resolve"])
async def test_without_a_ledger_nothing_is_there(tmp_path: Path, path: str) -> None:
    async with client_of(tmp_path, holders=(), currency_code=None) as client:
        value = {"decision": "void"} if path.endswith("resolve") else None
        assert (await client.ask("GET" if value is None else "POST", path, value)).reason == "no_ledger"
        assert (await client.tell(request())).reason == "no_ledger"


async def test_both_sides_books_are_compared(tmp_path: Path) -> None:
    async with client_of(tmp_path) as client:
        reconcile, first = f"{CLEARING}/reconcile", f"{SETTLEMENT_PATH}?limit=100"
        assert (await client.ask("POST", reconcile)).reason == "peer_unreachable"
        client.statements[first] = b'{"results": [{"payer": 1}], "next": null}'
        assert (await client.ask("POST", reconcile)).reason == "peer_unreachable"
        await client.node.issue(MARIA, 200)
        await client.tell(request())
        await client.tell(message("Answer", answer="prepared"))
        own = (await client.statement()).json
        [entry] = own["results"]
        assert (entry["state"], entry["payer_amount"], own["next"]) == ("prepared", 92, None)
        for results, told in (
            ([entry], None),
            ([{**entry, "state": "posted"}], "other_decision"),
            ([{**entry, "payee_amount": 93}], "other_amounts"),
            ([], "missing_there"),
            ([entry, {**entry, "id": "00000000-0000-4000-8000-000000000009", "state": "posted"}], "missing_here"),
        ):
            client.statements[first] = dump_json({"results": results, "next": None})
            found = (await client.ask("POST", reconcile)).json
            assert found["agrees"] == (told is None)
            assert (found["difference"] or {}).get("reason") == told
        client.statements[first] = dump_json({"results": [{**entry, "state": "posted"}], "next": None})
        client.meanwhile = lambda: client.tell(message("Inquiry", asks="post"))
        found = (await client.ask("POST", reconcile)).json
        assert (found["agrees"], found["in_flight"]) == (True, 1)
        assert (await client.ask("POST", reconcile, authorised=False)).status == 401
        assert (await client.ask("POST", reconcile.replace("vienna", "linz"))).reason == "unknown_peer"
