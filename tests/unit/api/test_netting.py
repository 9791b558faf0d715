"""The routes of runs and discharges, for the office and for the other city's node."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from loopd.ledger.netting.documents import signed
from loopd.protocol.json_text import read_json
from tests.clearing_api import CLEARING, Client, client_of, message, request
from tests.exchange_support import CONTEXT
from tests.ledger_sim.city import KEYS
from tests.ledger_support import MARIA
from tests.netting_support import REFERENCE

RUNS, DISCHARGES = f"{CLEARING}/runs", f"{CLEARING}/discharges"
DISCHARGE = {"id": "550e8400-e29b-41d4-a716-446655440000", "run": 1, "reference": REFERENCE}


@asynccontextmanager
async def paying_city(directory: Path, backing: int = 200, **settings: Any) -> AsyncIterator[Client]:
    """Munich, whose Maria has paid 92.00 to Vienna."""
    async with client_of(directory, settlement_methods={"vienna.loop": "netting"}, **settings) as client:
        await client.node.issue(MARIA, 200, backing=backing)
        for told in (
            request(),
            message("Answer", answer="prepared"),
            message("Inquiry", asks="post"),
            message("Acknowledgement", decision="post"),
        ):
            assert (await client.tell(told)).status == 202
        yield client


async def sign(client: Client) -> dict[str, Any]:
    """Vienna signs what Munich proposes; gives the document."""
    assert (await client.ask("POST", RUNS)).status == 201
    proposal = read_json(client.outbox.sent[-1])
    both = signed(proposal, "vienna.loop", KEYS["vienna.loop"])
    assert (await client.tell(both)).status == 202
    return both


def answer(decision: str) -> dict[str, Any]:
    """What Vienna says of Munich's payment."""
    sides = {"debtor": "munich.loop", "creditor": "vienna.loop", "id": DISCHARGE["id"]}
    return {"@context": CONTEXT, "@type": "DischargeAnswer", **sides, "answer": decision}


async def test_a_run_is_proposed_signed_and_shown(tmp_path: Path) -> None:
    async with paying_city(tmp_path) as client:
        proposed = await client.ask("POST", RUNS)
        assert (proposed.status, proposed.json["state"], proposed.json["claims"]) == (201, "proposed", [])
        assert (await client.ask("POST", RUNS)).reason == "run_undecided"
        both = signed(read_json(client.outbox.sent[-1]), "vienna.loop", KEYS["vienna.loop"])
        assert (await client.tell(both)).status == 202
        [run] = (await client.ask("GET", RUNS)).json["results"]
        assert (run["run"], run["state"], run["method"]) == (1, "agreed", "netting")
        assert run["claims"] == [
            {"debtor": "munich.loop", "creditor": "vienna.loop", "amount": 92, "discharged": False}
        ]
        shown = await client.ask("GET", f"{RUNS}/1")
        assert shown.headers["Content-Type"] == "application/ld+json"
        assert set(shown.json["signatures"]) == {"munich.loop", "vienna.loop"}
        assert MARIA not in shown.body.decode()
        standing = (await client.ask("GET", CLEARING)).json
        assert (standing["method"], standing["period"], standing["to_pay"], standing["backed_by"]) == (
            "netting", "daily", 92, "EUR",
        )  # fmt: skip


async def test_a_payment_is_announced_and_booked_when_it_came(tmp_path: Path) -> None:
    async with paying_city(tmp_path) as client:
        await sign(client)
        for status in (201, 200):
            announced = await client.ask("POST", DISCHARGES, DISCHARGE)
            assert (announced.status, announced.json["state"], announced.json["amount"]) == (status, "announced", 92)
        assert (await client.ask("GET", RUNS)).json["results"][0]["claims"][0]["discharged"] is True
        assert (await client.tell(answer("confirmed"))).status == 202
        [found] = (await client.ask("GET", DISCHARGES)).json["results"]
        assert (found["state"], found["reference"], found["runs"]) == ("confirmed", REFERENCE, [1])
        standing = (await client.ask("GET", CLEARING)).json
        assert (standing["owes"], standing["to_pay"]) == (0, 0)
        assert (await client.tell(answer("denied"))).reason == "other_decision"


async def test_the_office_says_whether_the_peers_payment_came(tmp_path: Path) -> None:
    async with paying_city(tmp_path) as client:
        await sign(client)
        notice = {
            "@context": CONTEXT,
            "@type": "DischargeNotice",
            "debtor": "vienna.loop",
            "creditor": "munich.loop",
            "id": DISCHARGE["id"],
            "runs": [1],
            "amount": 92,
            "currency": "EUR",
            "reference": REFERENCE,
        }
        assert (await client.tell(notice)).status == 202
        [found] = (await client.ask("GET", DISCHARGES)).json["results"]
        assert (found["state"], found["reason"]) == ("denied", "not_debtor")
        place = f"{DISCHARGES}/{DISCHARGE['id']}"
        assert (await client.ask("POST", f"{place}/confirm")).reason == "already_denied"
        assert (await client.ask("POST", f"{place}/deny", {"reason": "no payment"})).status == 200
        assert (await client.ask("POST", f"{place}/deny", {"reason": "ask a@b.de"})).reason == "personal_data"


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"run": 2}, 404, "unknown_run"),
        ({"run": 0}, 400, "schema"),
        ({"run": "1"}, 400, "schema"),
        ({"reference": ""}, 400, "schema"),
        ({"reference": "x" * 141}, 400, "schema"),
        ({"reference": "DE89370400440532013000"}, 400, "personal_data"),
        ({"id": "7"}, 400, "schema"),
        ({"amount": 92}, 400, "schema"),
    ],
)
async def test_what_is_no_discharge_is_refused(
    tmp_path: Path, changes: dict[str, Any], status: int, reason: str
) -> None:
    async with paying_city(tmp_path) as client:
        await sign(client)
        before = await client.node.books()
        found = await client.ask("POST", DISCHARGES, {**DISCHARGE, **changes})
        assert (found.status, found.reason) == (status, reason)
        assert await client.node.books() == before


async def test_what_the_reserve_lacks_is_not_announced(tmp_path: Path) -> None:
    async with paying_city(tmp_path, backing=91, reserve_ratio="0") as client:
        await sign(client)
        assert (await client.ask("POST", DISCHARGES, DISCHARGE)).reason == "insufficient_reserve"


async def test_lists_go_on(tmp_path: Path) -> None:
    async with paying_city(tmp_path) as client:
        await sign(client)
        for number in range(3):
            discharge_id = f"550e8400-e29b-41d4-a716-{number:012d}"
            await client.ask("POST", DISCHARGES, {**DISCHARGE, "id": discharge_id})
            await client.tell({**answer("denied"), "id": discharge_id, "reason": "no payment"})
        first = (await client.ask("GET", f"{DISCHARGES}?limit=2")).json
        second = (await client.ask("GET", first["next"])).json
        found = [each["id"][-1] for each in (*first["results"], *second["results"])]
        assert (found, second["next"]) == (["2", "1", "0"], None)
        assert (await client.ask("GET", f"{RUNS}?limit=1")).json["next"] is None


@pytest.mark.parametrize("path", [RUNS, f"{RUNS}/1", DISCHARGES])
async def test_only_the_office_reads_and_only_of_peers_it_settles_with(tmp_path: Path, path: str) -> None:
    async with client_of(tmp_path) as client:
        assert (await client.ask("GET", path, authorised=False)).status == 401
        found = await client.ask("GET", path.replace("vienna", "linz"))
        assert (found.status, found.reason) == (404, "unknown_run" if path.endswith("/1") else "unknown_peer")


@pytest.mark.parametrize("run", ["0", "2", "-1", "one", "1e3", "9" * 40])
async def test_a_run_that_there_is_not(tmp_path: Path, run: str) -> None:
    async with client_of(tmp_path) as client:
        assert (await client.ask("GET", f"{RUNS}/{run}")).reason == "unknown_run"


@pytest.mark.parametrize("path", [RUNS, f"{RUNS}/1", DISCHARGES])
async def test_without_a_ledger_nothing_is_there(tmp_path: Path, path: str) -> None:
    async with client_of(tmp_path, holders=(), currency_code=None) as client:
        assert (await client.ask("GET", path)).reason == "no_ledger"
        assert (await client.ask("POST", RUNS)).reason == "no_ledger"
        assert (await client.ask("POST", DISCHARGES, DISCHARGE)).reason == "no_ledger"
        assert (await client.tell(answer("confirmed"))).reason == "no_ledger"
