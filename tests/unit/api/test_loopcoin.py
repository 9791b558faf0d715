from collections.abc import Sequence
from decimal import Decimal
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from loopd.api.loopcoin_callers import ending_string, reading_string
from loopd.crypto.keys import NodeKey, encode_signature
from loopd.ledger.orders import own_id
from loopd.ledger.refusals import Fault
from loopd.protocol.documents import check_document, dump_json, read_json
from loopd.protocol.limits import ORDER_MAX_BYTES
from loopd.protocol.timestamps import format_timestamp
from tests.ledger_api import ADMIN, TRANSFERS, ledger_api
from tests.ledger_support import (
    ANNA,
    BREWERY,
    CURRENCY,
    DAY_MS,
    FUND,
    ISSUANCE,
    KEY,
    MARIA,
    NODE,
    RESERVE,
    START_MS,
    lc,
    new_id,
    signed,
)

ACCOUNTS = "/api/v1/loopcoin/accounts"
OFFICE = "/admin/v1/ledger/accounts"
ISSUANCE_PATH = "/api/v1/loopcoin/issuance"


async def test_a_payment_by_token_and_its_repeat(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        order = api.node.order(MARIA, BREWERY, 50, memo="Payment for spent grain")
        answer = await api.post(TRANSFERS, order, MARIA)
        assert (answer.status, answer.headers["Location"]) == (201, f"{TRANSFERS}/{order['id']}")
        shown = check_document(answer.body, "LoopCoinTransfer").value
        assert (shown["status"], shown["kind"], shown["memo"]) == ("posted", "payment", "Payment for spent grain")
        again = await api.post(TRANSFERS, {**order, "amount": Decimal("50.00")}, MARIA)
        assert (again.status, again.body) == (200, answer.body)
        assert (await api.get(f"{TRANSFERS}/{order['id']}", BREWERY)).body == answer.body
        assert api.node.balance(BREWERY) == lc(50)


async def test_a_key_pays_without_a_token_and_reads_its_account(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        key = {"public_key": KEY.public.to_pem()}
        assert (await api.admin("POST", f"{OFFICE}/{MARIA}/key", key)).json["has_key"] is True
        order = signed(api.node.order(MARIA, BREWERY, "0.10"))
        assert (await api.post(TRANSFERS, order, Idempotency_Key="k")).status == 201
        assert (await api.post(TRANSFERS, order, Idempotency_Key="k")).headers["Idempotency-Replayed"] == "true"
        path, now = f"{ACCOUNTS}/{MARIA}", format_timestamp(api.node.clock.now_ms())
        headers = {"X-Account-Timestamp": now, "X-Account-Signature": _signature(path, now)}
        assert (await api.get(path, **headers)).json["balance"] == 99.9
        other = {**headers, "X-Account-Signature": _signature(path, now, NodeKey.from_seed(bytes(32)))}
        assert (await api.get(path, **other)).refusal == (401, "bad_signature")
        api.node.clock.advance(300_001)
        assert (await api.get(path, **headers)).refusal == (401, "clock_skew")
        assert (await api.get(path, **{**headers, "X-Account-Timestamp": "now"})).refusal == (401, "bad_signature")


async def test_a_key_ends_what_it_holds_without_a_token(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        for account, key in ((MARIA, KEY), (BREWERY, NodeKey.from_seed(bytes(32)))):
            await api.admin("POST", f"{OFFICE}/{account}/key", {"public_key": key.public.to_pem()})
        now = format_timestamp(api.node.clock.now_ms())
        until = format_timestamp(START_MS + DAY_MS)
        for verb, left in (("post", 90), ("void", 90)):
            order = signed(api.node.order(MARIA, BREWERY, 10, hold_until=until))
            assert (await api.post(TRANSFERS, order)).status == 201
            path = f"{TRANSFERS}/{order['id']}/{verb}"
            other_way = f"{TRANSFERS}/{order['id']}/{'void' if verb == 'post' else 'post'}"
            for forged in (
                _signature(path, now),
                _ending(other_way, now),
                _ending(path, now, NodeKey.from_seed(bytes(32))),
            ):
                headers = {"X-Account-Timestamp": now, "X-Account-Signature": forged}
                assert (await api.post(path, None, **headers)).refusal == (401, "bad_signature")
                assert (await api.post(path, None, "other")).refusal == (404, "unknown_transfer")
            unknown = f"{TRANSFERS}/{new_id()}/{verb}"
            headers = {"X-Account-Timestamp": now, "X-Account-Signature": _ending(unknown, now)}
            assert (await api.post(unknown, None, **headers)).refusal == (401, "bad_signature")
            assert (await api.get(f"{ACCOUNTS}/{MARIA}", MARIA)).json["held"] == 10
            headers = {"X-Account-Timestamp": now, "X-Account-Signature": _ending(path, now)}
            for _ in range(2):
                assert (await api.post(path, None, Idempotency_Key=verb, **headers)).json["status"] == f"{verb}ed"
            assert (await api.get(f"{ACCOUNTS}/{MARIA}", MARIA)).json["available"] == left
        api.node.clock.advance(300_001)
        assert (await api.post(path, None, **headers)).refusal == (401, "clock_skew")


def _signature(path: str, now: str, key: NodeKey = KEY) -> str:
    return encode_signature(key.sign(reading_string(path, now)))


def _ending(path: str, now: str, key: NodeKey = KEY) -> str:
    return encode_signature(key.sign(ending_string(path, now)))


async def test_an_account_as_its_holder_sees_it(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        held = await api.node.hold(MARIA, ANNA, 30)
        shown = (await api.get(f"{ACCOUNTS}/{MARIA}", MARIA)).json
        assert (shown["balance"], shown["held"], shown["available"]) == (100, 30, 70)
        assert shown["lots"] == [
            {"issued": "2026-01-15", "amount": 100, "held": 30, "loses_value_at": "2026-08-15T00:00:00Z"}
        ]
        assert shown["pending"] == [{"id": held.id, "to": ANNA, "amount": 30}]
        assert (await api.get(f"{ACCOUNTS}/{MARIA}", ADMIN)).json == shown


async def test_what_is_due_is_charged_before_an_account_is_shown(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        api.node.clock.advance(212 * DAY_MS)
        assert (await api.get(f"{ACCOUNTS}/{MARIA}", ADMIN)).json["balance"] == 95
        then = (await api.get(f"{ACCOUNTS}/{MARIA}?at=2026-08-14T23:59:59.999Z", ADMIN)).json
        assert then == {"id": MARIA, "currency": CURRENCY, "balance": 100, "at": "2026-08-14T23:59:59.999Z"}
        assert (await api.get(f"{ACCOUNTS}/{MARIA}?at=2026-08-15T00:00:00Z", ADMIN)).json["balance"] == 95
        now_ms = api.node.clock.now_ms()
        now, later = (format_timestamp(now_ms + late).replace("+", "%2B") for late in (0, 1))
        assert (await api.get(f"{ACCOUNTS}/{MARIA}?at={now}", ADMIN)).json["balance"] == 95
        for wrong in ("yesterday", later, "9999-12-31T23:59:59Z", "0001-01-01T00:00:00%2B01:00"):
            assert (await api.get(f"{ACCOUNTS}/{MARIA}?at={wrong}", ADMIN)).refusal == (400, "bad_time")
        assert (await api.get(f"{ACCOUNTS}/{MARIA}?at=0001-01-01T00:00:00Z", ADMIN)).json["balance"] == 0


async def test_the_public_sees_the_nodes_accounts_and_nobody_elses(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        await api.node.pay(MARIA, FUND, 10)
        await api.node.pay(MARIA, BREWERY, 10)
        for path in (f"{ACCOUNTS}/{FUND}", f"{ACCOUNTS}/{FUND}/statement", f"{ACCOUNTS}/{RESERVE}", ISSUANCE_PATH):
            answer = await api.get(path)
            assert answer.status == 200
            assert b"user:" not in answer.body
            assert b"business:" not in answer.body
        for who in (None, ANNA, "other"):
            for account in (MARIA, BREWERY, "user:nobody@munich.loop"):
                for path in (f"{ACCOUNTS}/{account}", f"{ACCOUNTS}/{account}/statement"):
                    assert (await api.get(path, who)).refusal == (403, "not_yours")
        assert (await api.get(f"{ACCOUNTS}/node:nothing@munich.loop")).refusal == (404, "unknown_account")


async def test_a_statement_goes_back_page_by_page(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        for amount in range(1, 6):
            await api.node.pay(MARIA, BREWERY, amount)
        found: list[Any] = []
        path = f"{ACCOUNTS}/{MARIA}/statement?limit=2"
        while path:
            page = (await api.get(path, MARIA)).json
            assert len(page["results"]) <= 2
            found += page["results"]
            path = page["next"]
        assert [line["amount"] for line in found] == [-5, -4, -3, -2, -1, 100]
        assert [line["counterpart"] for line in found] == [BREWERY] * 5 + [ISSUANCE]


async def test_a_hold_is_posted_or_voided_by_its_payer(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        first, second = await api.node.hold(MARIA, ANNA, 30), await api.node.hold(MARIA, ANNA, 20)
        for who in (ANNA, ADMIN):
            assert (await api.post(f"{TRANSFERS}/{first.id}/post", None, who)).refusal == (403, "not_authorised")
        assert (await api.post(f"{TRANSFERS}/{first.id}/post", None)).refusal == (404, "unknown_transfer")
        for _ in range(2):
            answer = await api.post(f"{TRANSFERS}/{first.id}/post", None, MARIA)
            assert (answer.status, answer.json["status"]) == (200, "posted")
        assert (await api.post(f"{TRANSFERS}/{first.id}/void", None, MARIA)).refusal == (409, "already_posted")
        assert (await api.post(f"{TRANSFERS}/{second.id}/void", None, MARIA)).json["status"] == "voided"
        assert (await api.post(f"{TRANSFERS}/{second.id}/post", None, MARIA)).refusal == (409, "already_voided")
        third = await api.node.hold(MARIA, ANNA, 20, days=1)
        api.node.clock.advance(DAY_MS)
        assert (await api.post(f"{TRANSFERS}/{third.id}/post", None, MARIA)).refusal == (409, "already_expired")
        paid = await api.node.pay(MARIA, ANNA, 1)
        assert (await api.post(f"{TRANSFERS}/{paid.id}/void", None, MARIA)).refusal == (409, "not_pending")
        assert (await api.post(f"{TRANSFERS}/{new_id()}/void", None, MARIA)).refusal == (404, "unknown_transfer")
        assert api.node.balance(ANNA) == lc(31)


async def test_linked_orders_stand_and_fall_together(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        orders = [api.node.order(MARIA, ANNA, 60), api.node.order(MARIA, BREWERY, 60)]
        path = f"{TRANSFERS}/linked"
        before = await api.node.books()
        refused = await api.post(path, {"transfers": orders}, MARIA)
        assert refused.refusal == (409, "insufficient_funds")
        assert await api.node.books() == before
        orders[1]["amount"] = Decimal(40)
        done = await api.post(path, {"transfers": orders}, MARIA)
        assert (done.status, [each["status"] for each in done.json["results"]]) == (201, ["posted"] * 2)
        assert (await api.post(path, {"transfers": orders}, MARIA)).status == 200
        assert (await api.post(path, {"transfers": orders[:1]}, MARIA)).status == 200
        mixed = {"transfers": [orders[0], api.node.order(MARIA, ANNA, 1)]}
        assert (await api.post(path, mixed, MARIA)).refusal == (409, "other_content")
        for wrong in ({"transfers": []}, {"transfers": [1]}, {"transfers": orders * 9}, [], {"orders": orders}):
            assert (await api.post(path, wrong, MARIA)).refusal == (400, "schema")


_HOSTILE = (
    ("1.005", 400, "bad_amount"),
    ("1e13", 409, "insufficient_funds"),
    ("1e13 + 0.01", 400, "bad_amount"),
    ("-1", 400, "schema"),
    ("0", 400, "schema"),
    ("0.001", 400, "schema"),
    ("NaN", 400, "not_finite"),
    ("1e30", 400, "bad_amount"),
    ("1e400", 400, "number_out_of_range"),
    ('"50"', 400, "schema"),
    ("true", 400, "schema"),
    ("null", 400, "schema"),
)


@pytest.mark.parametrize(("amount", "status", "reason"), _HOSTILE)
async def test_a_hostile_amount_moves_nothing(tmp_path: Path, amount: str, status: int, reason: str) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        order = dump_json(api.node.order(MARIA, BREWERY, 50))
        text = "10000000000000.01" if amount == "1e13 + 0.01" else amount
        before = await api.node.books()
        with capture_logs() as logs:
            answer = await api.post(TRANSFERS, order.replace(b'"amount":50', f'"amount":{text}'.encode()), MARIA)
        assert answer.refusal == (status, reason)
        assert await api.node.books() == before
        if reason in ("bad_amount", "insufficient_funds"):
            assert [line["reason"] for line in logs if line["event"] == "transfer_refused"] == [reason]


_ORDERS: Sequence[tuple[str, dict[str, Any], str | None, int, str]] = (
    ("an unknown payee", {"to": "user:nobody@munich.loop"}, MARIA, 404, "unknown_account"),
    ("an unknown payer", {"from": "user:nobody@munich.loop"}, MARIA, 403, "not_authorised"),
    ("another's account", {"from": ANNA}, MARIA, 403, "not_authorised"),
    ("the operator for a holder", {}, ADMIN, 403, "not_authorised"),
    ("nobody", {}, None, 403, "not_authorised"),
    ("a token of another kind", {}, "other", 403, "not_authorised"),
    ("a holder for the city", {"from": FUND}, MARIA, 403, "not_authorised"),
    ("out of the issuance", {"from": ISSUANCE}, ADMIN, 403, "reserved_account"),
    ("into the issuance", {"to": ISSUANCE}, MARIA, 403, "reserved_account"),
    ("into the reserve", {"to": RESERVE}, MARIA, 403, "reserved_account"),
    ("into a clearing", {"to": f"node:clearing.vienna.loop@{NODE}"}, MARIA, 403, "reserved_account"),
    ("to another city", {"to": "user:max@vienna.loop"}, MARIA, 409, "other_node"),
    ("another currency", {"currency": "LC-BER"}, MARIA, 400, "wrong_currency"),
    ("to itself", {"to": MARIA}, MARIA, 400, "same_account"),
    ("more than there is", {"amount": Decimal("100.01")}, MARIA, 409, "insufficient_funds"),
    ("from the future", {"timestamp": format_timestamp(START_MS + 300_001)}, MARIA, 400, "bad_time"),
    ("from the drawer", {"timestamp": format_timestamp(START_MS - 7 * DAY_MS - 1)}, MARIA, 400, "bad_time"),
    ("a hold that is over", {"hold_until": format_timestamp(START_MS)}, MARIA, 400, "bad_time"),
    ("a hold for long", {"hold_until": format_timestamp(START_MS + 90 * DAY_MS + 1)}, MARIA, 400, "bad_time"),
    ("a hold without a time", {"hold_until": True}, MARIA, 400, "bad_time"),
    ("a number without a form", {"x": 2**60}, MARIA, 400, "not_canonical"),
    ("no id", {"id": "7"}, MARIA, 400, "schema"),
    ("a mailbox in the memo", {"memo": "maria@example.org"}, MARIA, 400, "personal_data"),
)


@pytest.mark.parametrize(("name", "changes", "who", "status", "reason"), _ORDERS, ids=[row[0] for row in _ORDERS])
async def test_an_order_that_is_refused_moves_nothing_and_is_logged(
    tmp_path: Path, name: str, changes: dict[str, Any], who: str | None, status: int, reason: str
) -> None:
    async with ledger_api(tmp_path, credit_limits={"vienna.loop": Decimal(10)}) as api:
        await api.node.issue(MARIA, 100)
        before = await api.node.books()
        with capture_logs() as logs:
            answer = await api.post(TRANSFERS, {**api.node.order(MARIA, BREWERY, 50), **changes}, who)
        assert answer.refusal == (status, reason)
        assert await api.node.books() == before
        if reason not in ("schema", "personal_data"):
            assert [line["reason"] for line in logs if line["event"] == "transfer_refused"] == [reason]


async def test_a_signature_that_does_not_hold_is_refused_even_with_a_token(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        await api.admin("POST", f"{OFFICE}/{MARIA}/key", {"public_key": KEY.public.to_pem()})
        order = api.node.order(MARIA, BREWERY, 50)
        for wrong in (
            signed(order, NodeKey.from_seed(bytes(32))),
            {**signed(order), "amount": Decimal(51)},
            {**order, "signature": "no signature"},
        ):
            for who in (None, MARIA):
                assert (await api.post(TRANSFERS, wrong, who)).refusal == (401, "bad_signature")


async def test_the_same_id_with_another_amount_moves_nothing(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        order = api.node.order(MARIA, BREWERY, 50)
        await api.post(TRANSFERS, order, MARIA)
        before = await api.node.books()
        other = {**order, "amount": Decimal(51)}
        assert (await api.post(TRANSFERS, other, MARIA)).refusal == (409, "other_content")
        assert (await api.post(TRANSFERS, {**order, "id": order["id"].upper()}, MARIA)).status == 409
        assert await api.node.books() == before


async def test_the_office_opens_issues_and_keeps_the_reserve(tmp_path: Path) -> None:
    async with ledger_api(tmp_path, max_issuance=150) as api:
        opened = await api.admin("POST", OFFICE, {"id": "user:max@munich.loop"})
        assert (opened.status, opened.json["balance"]) == (201, 0)
        assert (await api.admin("POST", OFFICE, {"id": "user:max@munich.loop"})).refusal == (409, "account_exists")
        for wrong in ("user:max@vienna.loop", "node:x@munich.loop", "user:Max@munich.loop", "user:-@munich.loop", "x"):
            assert (await api.admin("POST", OFFICE, {"id": wrong})).refusal == (400, "bad_account")
        assert (await api.admin("POST", OFFICE, {"id": MARIA, "public_key": "x"})).refusal == (400, "bad_key")
        for wrong_body in ([], {}, {"id": MARIA, "x": 1}):
            assert (await api.admin("POST", OFFICE, wrong_body)).refusal == (400, "schema")
        body = {"id": new_id(), "to": "user:max@munich.loop", "amount": 100, "backing": 120}
        first = await api.post(ISSUANCE_PATH, body, ADMIN)
        assert (first.status, first.json["kind"]) == (201, "issuance")
        assert (await api.post(ISSUANCE_PATH, body, ADMIN)).status == 200
        assert (await api.post(ISSUANCE_PATH, {**body, "amount": 1}, ADMIN)).refusal == (409, "other_content")
        more = {**body, "id": new_id(), "amount": 50, "backing": 30}
        assert (await api.post(ISSUANCE_PATH, more | {"amount": 51}, ADMIN)).refusal == (409, "over_cap")
        assert (await api.post(ISSUANCE_PATH, more | {"backing": 29}, ADMIN)).refusal == (409, "under_reserve")
        assert (await api.post(ISSUANCE_PATH, more, ADMIN)).status == 201
        figures = (await api.get(ISSUANCE_PATH)).json
        assert (figures["supply"], figures["reserve"], figures["max_issuance"]) == (150, 150, 150)
        out = {"id": new_id(), "kind": "withdraw", "backing": 1}
        assert (await api.post(ISSUANCE_PATH, out, ADMIN)).refusal == (409, "under_reserve")
        assert (await api.post(ISSUANCE_PATH, {**out, "backing": 151}, ADMIN)).refusal == (409, "insufficient_reserve")
        assert (await api.post(ISSUANCE_PATH, {**out, "kind": "deposit"}, ADMIN)).status == 201
        assert (await api.post(ISSUANCE_PATH, {**out, "id": new_id()}, ADMIN)).status == 201
        for payee, reason in ((RESERVE, "reserved_account"), ("user:no@munich.loop", "unknown_account")):
            assert (await api.post(ISSUANCE_PATH, {**body, "id": new_id(), "to": payee}, ADMIN)).reason == reason
        for wrong_body in ({**body, "id": "7"}, {**body, "kind": "gift"}, {"id": new_id()}, {**out, "to": MARIA}):
            assert (await api.post(ISSUANCE_PATH, wrong_body, ADMIN)).refusal == (400, "schema")
        assert (await api.post(ISSUANCE_PATH, body, MARIA)).refusal == (403, "insufficient_scope")


# Faults of an issue, each with what brings it about.
ISSUE_FAULTS: dict[Fault, dict[str, Any]] = {
    Fault.BAD_AMOUNT: {"amount": Decimal("1.005")},
    Fault.RESERVED_ID: {"id": own_id("anything")},
    Fault.OTHER_CONTENT: {"id": "repeated"},
    Fault.RESERVED_ACCOUNT: {"to": "node:clearing.linz.loop@munich.loop"},
    Fault.OTHER_NODE: {"to": "user:max@vienna.loop"},
    Fault.UNKNOWN_ACCOUNT: {"to": "user:nobody@munich.loop"},
    Fault.OVER_CAP: {"amount": Decimal(151)},
    Fault.UNDER_RESERVE: {"backing": Decimal("0.01")},
}


async def test_of_several_faults_of_an_issue_the_first_in_the_list_is_told(tmp_path: Path) -> None:
    async with ledger_api(tmp_path, max_issuance=150) as api:
        body = {"id": new_id(), "to": MARIA, "amount": Decimal(50), "backing": Decimal(50)}
        assert (await api.post(ISSUANCE_PATH, body, ADMIN)).status == 201
        for first, second in combinations_with_replacement([fault for fault in Fault if fault in ISSUE_FAULTS], 2):
            enough = {"id": new_id(), "backing": Decimal(200)}
            wrong = {**body, **enough, **ISSUE_FAULTS[second], **ISSUE_FAULTS[first]}
            if wrong["id"] == "repeated":
                wrong["id"] = body["id"]
            with capture_logs() as logs:
                assert (await api.post(ISSUANCE_PATH, wrong, ADMIN)).reason == first.reason, (first, second)
            assert [line["reason"] for line in logs if line["event"] == "transfer_refused"] == [first.reason]
        out = {"id": new_id(), "kind": "withdraw", "backing": 51}
        assert (await api.post(ISSUANCE_PATH, out, ADMIN)).reason == "insufficient_reserve"
        faults = list(Fault)
        assert faults.index(Fault.INSUFFICIENT_RESERVE) < faults.index(Fault.UNDER_RESERVE)


async def test_the_log_does_not_repeat_what_a_path_names_as_a_transfer(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        with capture_logs() as logs:
            answer = await api.post(f"{TRANSFERS}/maria.huber@example.org/void", None, MARIA)
        assert answer.refusal == (404, "unknown_transfer")
        assert [(told["transfer"], told["reason"]) for told in logs if told["event"] == "transfer_refused"] == [
            (None, "unknown_transfer")
        ]


async def test_what_a_transaction_decides_on_is_told_before_how_it_ended(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        sale = api.node.sale(60)
        await api.node.write(lambda tx: api.node.settlements.hold(tx, sale))
        await api.node.write(lambda tx: api.node.settlements.post(tx, sale))
        [line] = await api.node.database.all("SELECT id FROM ledger_transfer WHERE phase = 'pending'")
        with capture_logs() as logs:
            answer = await api.post(f"{TRANSFERS}/{line['id']}/void", None, MARIA)
        assert answer.refusal == (409, "of_a_transaction")
        assert [told["reason"] for told in logs if told["event"] == "transfer_refused"] == ["of_a_transaction"]
        faults = list(Fault)
        assert (
            faults.index(Fault.OF_A_TRANSACTION) < faults.index(Fault.NOT_PENDING) < faults.index(Fault.ALREADY_POSTED)
        )


async def test_the_accounts_are_listed_for_the_office(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        found: list[str] = []
        path = f"{OFFICE}?limit=4"
        while path:
            page = (await api.admin("GET", path)).json
            found += [line["id"] for line in page["results"]]
            path = page["next"]
        assert found[-3:] == [MARIA, ANNA, BREWERY]
        assert found.count(ISSUANCE) == 2


async def test_the_config_is_an_entity(tmp_path: Path) -> None:
    async with ledger_api(tmp_path, max_issuance=1_000_000) as api:
        await api.node.issue(MARIA, "450000.99")
        answer = await api.get("/api/v1/loopcoin/config")
        shown = check_document(answer.body, "LoopCoinConfig").value
        assert (shown["issuer"], shown["current_supply"], shown["max_issuance"]) == (NODE, 450_000, 1_000_000)


async def test_a_transfer_is_for_those_it_concerns(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        paid = await api.node.pay(MARIA, BREWERY, 1)
        for who in (MARIA, BREWERY, ADMIN):
            assert (await api.get(f"{TRANSFERS}/{paid.id.upper()}", who)).status == 200
        for who in (None, ANNA, "other"):
            assert (await api.get(f"{TRANSFERS}/{paid.id}", who)).refusal == (404, "unknown_transfer")
        gift = await api.node.pay(MARIA, FUND, 1)
        assert (await api.get(f"{TRANSFERS}/{gift.id}")).refusal == (404, "unknown_transfer")
        moved = await api.node.pay(FUND, f"node:bonus@{NODE}", 1)
        assert read_json((await api.get(f"{TRANSFERS}/{moved.id}")).body)["status"] == "posted"
        assert (await api.get(f"{TRANSFERS}/{new_id()}")).refusal == (404, "unknown_transfer")


async def test_without_a_currency_there_is_no_ledger(tmp_path: Path) -> None:
    async with ledger_api(tmp_path, currency_code=None, holders=()) as api:
        for path in ("/api/v1/loopcoin/config", ISSUANCE_PATH, f"{ACCOUNTS}/{FUND}", f"{ACCOUNTS}/{FUND}/statement"):
            assert (await api.get(path)).refusal == (404, "no_ledger")
        for path in (f"{TRANSFERS}/{new_id()}/post", f"{TRANSFERS}/{new_id()}/void"):
            assert (await api.post(path, None, MARIA)).refusal == (404, "no_ledger")
        assert (await api.get(f"{TRANSFERS}/{new_id()}")).refusal == (404, "no_ledger")
        assert (await api.pay(MARIA, ANNA, 1)).refusal == (404, "no_ledger")
        issue = {"id": new_id(), "to": MARIA, "amount": 1}
        assert (await api.post(ISSUANCE_PATH, issue, ADMIN)).refusal == (404, "no_ledger")
        assert (await api.admin("GET", OFFICE)).refusal == (404, "no_ledger")
        assert (await api.admin("POST", OFFICE, {"id": MARIA})).refusal == (404, "no_ledger")
        assert (await api.admin("POST", f"{OFFICE}/{MARIA}/key", {"public_key": None})).refusal == (404, "no_ledger")


async def test_what_is_kept_of_an_order_has_an_end(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        before = await api.node.books()
        long = {**api.node.order(MARIA, BREWERY, 1), "x": "y" * ORDER_MAX_BYTES}
        assert (await api.post(TRANSFERS, long, MARIA)).refusal == (413, "payload_too_large")
        many = {"transfers": [{**long, "id": new_id()} for _ in range(16)]}
        assert (await api.post(f"{TRANSFERS}/linked", many, MARIA)).refusal == (413, "payload_too_large")
        assert await api.node.books() == before
