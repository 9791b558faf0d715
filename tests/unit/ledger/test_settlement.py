import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from loopd.ledger import checks
from loopd.ledger.accounts import Fund, fund_id
from loopd.ledger.movements import Phase
from loopd.protocol.documents import check_document
from loopd.protocol.errors import Refusal
from loopd.protocol.loopcost import LoopCost
from tests.ledger_api import ADMIN, ledger_api
from tests.ledger_support import ANNA, BONUS, BREWERY, DAY_MS, FUND, MARIA, NODE, RESERVE, LedgerNode, lc, ledger_node

PATH = "/api/v1/loopcoin/settlement/TXN-2026-01-15-001"


async def held(node: LedgerNode, **changes: Any) -> Any:
    sale = node.sale(60, **changes)
    assert await node.write(lambda tx: node.settlements.hold(tx, sale)) is None
    return sale


async def sound(node: LedgerNode) -> None:
    assert [finding for finding in checks.check(node.database.points) if not finding.holds] == []


async def test_it_is_held_then_posted_once(tmp_path: Path) -> None:
    async with ledger_node(tmp_path, local_bonus="0") as node:
        await node.issue(MARIA, 100)
        sale = await held(node)
        assert (node.balance(MARIA), node.available(MARIA), node.balance(BREWERY)) == (lc(100), lc(40), 0)
        assert await node.write(lambda tx: node.settlements.hold(tx, sale)) is None
        await sound(node)
        for _ in range(2):
            assert await node.write(lambda tx: node.settlements.post(tx, sale))
        assert (node.balance(MARIA), node.available(MARIA), node.balance(BREWERY)) == (lc(40), lc(40), lc(60))
        assert await node.write(lambda tx: node.settlements.hold(tx, sale)) == "already_posted"
        await node.write(lambda tx: node.settlements.release(tx, sale))
        await node.write(lambda tx: node.settlements.freeze(tx, sale))
        assert node.balance(BREWERY) == lc(60)
        await sound(node)


async def test_the_example_of_the_specification_is_distributed_in_five_lines(tmp_path: Path) -> None:
    async with ledger_node(tmp_path, local_bonus="0") as node:
        await node.issue(MARIA, 104)
        sale = await held(node, export=24, import_=12, distance=8)
        assert node.available(MARIA) == 0
        assert await node.write(lambda tx: node.settlements.post(tx, sale))
        transport, residual = (fund_id(fund, NODE) for fund in (Fund.TRANSPORT, Fund.RESIDUAL))
        found = [node.balance(account) for account in (BREWERY, FUND, transport, residual)]
        assert found == [lc(36), lc(24) + lc(12), lc(8), lc(24)]
        await sound(node)


async def test_the_residual_goes_where_the_settings_say(tmp_path: Path) -> None:
    async with ledger_node(tmp_path, local_bonus="0", residual="transport") as node:
        await node.issue(MARIA, 104)
        sale = await held(node, export=24, import_=12, distance=8)
        assert await node.write(lambda tx: node.settlements.post(tx, sale))
        assert node.balance(fund_id(Fund.TRANSPORT, NODE)) == lc(32)


@pytest.mark.parametrize(("in_the_fund", "paid"), [("10", "3.00"), ("2.50", "2.50"), (None, "0")])
async def test_the_bonus_is_paid_out_of_its_fund_and_never_minted(
    tmp_path: Path, in_the_fund: str | None, paid: str
) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        if in_the_fund is not None:
            await node.issue(BONUS, in_the_fund)
        before = node.ledger.figures(node.database.points).supply_minor
        sale = await held(node)
        for _ in range(2):
            assert await node.write(lambda tx: node.settlements.post(tx, sale))
        assert node.balance(MARIA) == lc(40) + lc(paid)
        assert node.ledger.figures(node.database.points).supply_minor == before
        shown = node.settlements.describe(node.database.points, sale)
        assert shown is not None
        assert {name: lc(amount) for name, amount in shown["bonus"].items()} == {"paid": lc(paid), "due": lc(3)}
        await sound(node)


async def test_the_bonus_is_floored(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        await node.issue(BONUS, 10)
        sale = replace(await held(node), transaction_id="TXN-2026-01-15-002", cost=node.sale("0.59").cost)
        assert await node.write(lambda tx: node.settlements.hold(tx, sale)) is None
        assert await node.write(lambda tx: node.settlements.post(tx, sale))
        assert node.balance(BONUS) == lc("9.98")


async def test_a_payment_without_a_transaction_brings_no_bonus(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        await node.issue(BONUS, 10)
        await node.pay(MARIA, BREWERY, 50)
        await node.end(await node.hold(MARIA, BREWERY, 20), Phase.POST)
        assert (node.balance(MARIA), node.balance(BONUS)) == (lc(30), lc(10))


async def test_selling_back_and_forth_brings_no_more_than_the_bonus_fund_has(tmp_path: Path) -> None:
    """Who has two accounts gets the bonus each time, which is admitted; nothing is minted, no old coin gets young."""
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        await node.issue(BONUS, "7.50")
        supply = node.ledger.figures(node.database.points).supply_minor
        first_day = node.lots(MARIA)[0][0]
        node.clock.advance(3 * DAY_MS)
        for number in range(6):
            buyer, seller = (MARIA, ANNA) if number % 2 == 0 else (ANNA, MARIA)
            sale = node.sale(60, buyer=buyer, seller=seller, transaction_id=f"TXN-2026-01-15-{number:03d}")
            assert await node.write(lambda tx, sale=sale: node.settlements.hold(tx, sale)) is None
            assert await node.write(lambda tx, sale=sale: node.settlements.post(tx, sale))
        assert node.balance(BONUS) == 0
        assert node.ledger.figures(node.database.points).supply_minor == supply
        by_day: dict[int, int] = {}
        for account in (MARIA, ANNA):
            for day, amount_minor, _ in node.lots(account):
                by_day[day] = by_day.get(day, 0) + amount_minor
        assert by_day == {first_day: lc(100), first_day + 3: lc("7.50")}
        await sound(node)


async def test_what_is_cancelled_is_given_back(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        sale = await held(node)
        await node.write(lambda tx: node.settlements.release(tx, sale))
        assert (node.balance(MARIA), node.available(MARIA)) == (lc(100), lc(100))
        assert not await node.write(lambda tx: node.settlements.post(tx, sale))
        assert await node.write(lambda tx: node.settlements.hold(tx, sale)) == "already_voided"
        await sound(node)


async def test_a_dispute_freezes_and_is_resolved_once(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        node = api.node
        await node.issue(MARIA, 100)
        await node.issue(BONUS, 10)
        assert (await api.get(PATH)).refusal == (404, "unknown_settlement")
        sale = await held(node)
        assert (await api.post(f"{PATH}/resolve", {"decision": "post"}, ADMIN)).refusal == (409, "not_frozen")
        await node.write(lambda tx: node.settlements.freeze(tx, sale))
        await node.write(lambda tx: node.settlements.release(tx, sale))
        assert not await node.write(lambda tx: node.settlements.post(tx, sale))
        assert node.available(MARIA) == lc(40)
        for wrong in ({"decision": "keep"}, {}, {"decision": "void", "x": 1}):
            assert (await api.post(f"{PATH}/resolve", wrong, ADMIN)).refusal == (400, "schema")
        assert (await api.post(f"{PATH}/resolve", {"decision": "void"}, MARIA)).refusal == (403, "insufficient_scope")
        for _ in range(2):
            answer = await api.post(f"{PATH}/resolve", {"decision": "post"}, ADMIN)
            assert (answer.status, answer.json["payment"]["state"]) == (200, "posted")
        assert (await api.post(f"{PATH}/resolve", {"decision": "void"}, ADMIN)).refusal == (409, "already_posted")
        assert (node.balance(MARIA), node.balance(BREWERY)) == (lc(40), lc(60))
        await sound(node)


async def test_a_dispute_that_is_voided(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        sale = await held(node)
        await node.write(lambda tx: node.settlements.freeze(tx, sale))
        await node.write(lambda tx: node.settlements.resolve(tx, sale.transaction_id, Phase.VOID))
        assert node.available(MARIA) == lc(100)
        with pytest.raises(Refusal) as refusal:
            await node.write(lambda tx: node.settlements.resolve(tx, sale.transaction_id, Phase.POST))
        assert refusal.value.reason == "already_voided"


async def test_the_settlement_names_no_account(tmp_path: Path) -> None:
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        sale = await held(api.node)
        assert (await api.get(f"{PATH}?seller=vienna.loop")).refusal == (404, "unknown_settlement")
        shown = (await api.get(f"{PATH}?seller={NODE}")).json
        assert (await api.get(PATH)).json == shown
        assert (shown["payment"]["state"], shown["confirmation"]) == ("held", {"payment_completed": False})
        await api.node.write(lambda tx: api.node.settlements.post(tx, sale))
        answer = await api.get(PATH)
        assert b"user:" not in answer.body
        assert b"business:" not in answer.body
        assert answer.json["distribution"] == {
            "seller_receives": 60,
            "seller_community_fund": 0,
            "buyer_community_fund": 0,
            "transport_cost": 0,
            "residual": 0,
        }
        assert (answer.json["final_cost"], answer.json["confirmation"]) == (60, {"payment_completed": True})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"buyer": "vienna.loop"}, "other_node"),
        ({"buyer_account": ANNA, "seller_account": ANNA}, "same_account"),
        ({"buyer_account": "user:nobody@munich.loop"}, "unknown_account"),
        ({"seller_account": "user:nobody@munich.loop"}, "unknown_account"),
        ({"buyer_account": FUND}, "reserved_account"),
        ({"seller_account": RESERVE}, "unknown_account"),
        ({"buyer_account": ANNA}, "insufficient_funds"),
        ({"cost": LoopCost(lc(10), lc(20), 0, 0)}, "bad_breakdown"),
    ],
)
async def test_what_cannot_be_held_is_refused_and_holds_nothing(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        before = await node.books()
        sale = replace(node.sale(60), **changes)
        assert await node.write(lambda tx: node.settlements.hold(tx, sale)) == reason
        assert await node.books() == before
        assert node.settlements.describe(node.database.points, sale) is None


async def test_a_transaction_without_accounts_settles_nothing(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        sale = node.sale(60, buyer=None)
        assert await node.write(lambda tx: node.settlements.hold(tx, sale)) is None
        assert not await node.write(lambda tx: node.settlements.post(tx, sale))
        await node.write(lambda tx: node.settlements.release(tx, sale))
        await node.write(lambda tx: node.settlements.freeze(tx, sale))


async def test_without_a_ledger_nothing_is_held(tmp_path: Path) -> None:
    async with ledger_node(tmp_path, currency_code=None, holders=()) as node:
        sale = node.sale(60)
        assert await node.write(lambda tx: node.settlements.hold(tx, sale)) == "no_ledger"
        assert not await node.write(lambda tx: node.settlements.post(tx, sale))


async def test_each_step_is_audited_and_told(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        sale = await held(node)
        await node.write(lambda tx: node.settlements.post(tx, sale))
        rows = await node.database.all("SELECT payload FROM audit_entry WHERE subject = ?", (sale.transaction_id,))
        assert [json.loads(row["payload"])["event"] for row in rows] == ["settlement_held", "settlement_posted"]
        rows = await node.database.all("SELECT kind FROM event WHERE subject = ?", (sale.transaction_id,))
        assert [row["kind"] for row in rows] == ["ledger.settlement"] * 2


async def test_a_sale_to_another_city_shows_its_settlement_too(tmp_path: Path) -> None:
    async with ledger_api(tmp_path, credit_limits={"vienna.loop": 500}) as api:
        local = api.node.sale(60, export=24, import_=12, distance=8, buyer="user:max@vienna.loop")
        sale = replace(local, buyer="vienna.loop")
        await api.node.write(lambda tx: tx.execute("CREATE TABLE told (sale TEXT PRIMARY KEY, how TEXT)"))
        assert await api.node.write(lambda tx: api.room.payments.hold(tx, sale)) is None
        answer = await api.get(PATH)
        shown = check_document(answer.body, "Settlement").value
        assert b"user:" not in answer.body
        assert (shown["seller"], shown["buyer"], shown["final_cost"]) == (NODE, "vienna.loop", 104)
        assert list(shown["distribution"].values()) == [36, 24, 12, 8, 24]
        assert (shown["payment"]["state"], shown["confirmation"]) == ("requested", {"payment_completed": False})
        await api.node.write(lambda tx: api.room.payments.freeze(tx, sale))
        assert (await api.get(PATH)).json["payment"]["state"] == "frozen"
        assert (await api.post(f"{PATH}/resolve", {"decision": "post"}, ADMIN)).refusal == (409, "payer_decides")
        await api.node.write(lambda tx: api.room.clearing.request_answered(tx, "settlement:1", 403, "not_settling"))
        payment = (await api.get(PATH)).json["payment"]
        assert (payment["state"], payment["reason"]) == ("voided", "not_settling")
