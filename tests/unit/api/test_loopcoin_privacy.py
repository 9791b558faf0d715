"""What the public and other holders may not learn: who has an account, and what it did."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from loopd.crypto.keys import NodeKey, encode_signature
from loopd.ledger.movements import Kind
from loopd.ledger.orders import own_id
from loopd.protocol.timestamps import format_timestamp
from tests.ledger_api import ADMIN, TRANSFERS, LedgerApi, ledger_api
from tests.ledger_support import ANNA, BREWERY, CURRENCY, DAY_MS, FUND, KEY, MARIA, START_MS, new_id, parse_day, signed

ACCOUNTS = "/api/v1/loopcoin/accounts"
OFFICE = "/admin/v1/ledger/accounts"
NOBODY = "user:nobody@munich.loop"
STRANGER = NodeKey.from_seed(bytes(32))
CLEARING = "node:clearing.vienna.loop@munich.loop"


async def test_what_a_public_account_is_about_to_pay_names_no_person(tmp_path: Path) -> None:
    async with ledger_api(tmp_path, credit_limits={"vienna.loop": Decimal(100)}) as api:
        await api.node.issue(FUND, 100)
        await api.node.hold(FUND, MARIA, 10)
        await api.node.hold(FUND, "node:transport@munich.loop", 5)
        for who in (None, ANNA, MARIA):
            answer = await api.get(f"{ACCOUNTS}/{FUND}", who)
            assert b"user:" not in answer.body
            shown = [(each["id"] is None, each["to"]) for each in answer.json["pending"]]
            assert shown == [(False, "node:transport@munich.loop"), (True, None)]
        office = (await api.get(f"{ACCOUNTS}/{FUND}", ADMIN)).json
        assert [each["to"] for each in office["pending"]] == ["node:transport@munich.loop", MARIA]


async def test_no_public_statement_tells_whose_coins_aged(tmp_path: Path) -> None:
    """The id of a decay follows from the account's: with it anybody could look whether a name has an account."""
    decay = own_id(Kind.DECAY, MARIA, CURRENCY, START_MS // DAY_MS, parse_day("2026-08-15") * DAY_MS)
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        await api.node.issue(FUND, 1)
        api.node.clock.advance(220 * DAY_MS)
        await api.node.charge()
        for who in (None, ANNA):
            answer = await api.get(f"{ACCOUNTS}/{FUND}/statement", who)
            assert decay.encode() not in answer.body
            lines = answer.json["results"]
            assert [(line["kind"], line["id"] is None, line["counterpart"] is None) for line in lines] == [
                ("decay", True, True),
                ("issuance", False, False),
            ]
        for who in (ADMIN,):
            assert (await api.get(f"{ACCOUNTS}/{FUND}/statement", who)).json["results"][0]["id"] == decay
        for who in (None, ANNA, "other"):
            for verb in ("", "/post", "/void"):
                told = [await look(api, f"{TRANSFERS}/{each}{verb}", who) for each in (decay, new_id())]
                assert told == [(404, "unknown_transfer")] * 2


async def look(api: LedgerApi, path: str, who: str | None, **headers: str) -> tuple[int, str]:
    if path.endswith(("/post", "/void")):
        return (await api.post(path, None, who, **headers)).refusal
    return (await api.get(path, who, **headers)).refusal


@pytest.mark.parametrize("key", [KEY, None])
async def test_a_signature_that_does_not_hold_tells_nothing_of_an_account(tmp_path: Path, key: NodeKey | None) -> None:
    async with ledger_api(tmp_path, holders=()) as api:
        await api.node.open(MARIA, key=key)
        await api.node.open(BREWERY)
        await api.node.issue(MARIA, 100)
        paid = await api.node.pay(MARIA, BREWERY, 1)
        now = format_timestamp(api.node.clock.now_ms())
        forged: dict[str, Any] = {
            "X-Account-Timestamp": now,
            "X-Account-Signature": encode_signature(STRANGER.sign(b"anything")),
        }
        late = {**forged, "X-Account-Timestamp": format_timestamp(START_MS - DAY_MS)}
        garbled = {**forged, "X-Account-Signature": "?"}
        for headers, told in ((forged, "bad_signature"), (late, "clock_skew"), (garbled, "bad_signature")):
            paths = (f"{ACCOUNTS}/{MARIA}", f"{ACCOUNTS}/{NOBODY}", f"{TRANSFERS}/{paid.id}", f"{TRANSFERS}/{new_id()}")
            assert [await look(api, path, None, **headers) for path in paths] == [(401, told)] * 4
        orders = [signed(api.node.order(payer, BREWERY, 1), STRANGER) for payer in (MARIA, NOBODY)]
        assert [(await api.post(TRANSFERS, order)).refusal for order in orders] == [(401, "bad_signature")] * 2
        orders = [api.node.order(payer, BREWERY, 1) for payer in (MARIA, NOBODY)]
        assert [(await api.post(TRANSFERS, order, ANNA)).refusal for order in orders] == [(403, "not_authorised")] * 2


async def test_a_holder_without_a_key_may_sign_all_the_same(tmp_path: Path) -> None:
    """Nobody can check it, and the token pays."""
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        assert (await api.post(TRANSFERS, signed(api.node.order(MARIA, BREWERY, 1)), MARIA)).status == 201


async def test_who_sees_a_transfer_and_does_not_pay_it_is_told_so(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        held = await api.node.hold(MARIA, ANNA, 1)
        for who in (ANNA, ADMIN):
            assert (await api.post(f"{TRANSFERS}/{held.id}/post", None, who)).refusal == (403, "not_authorised")
