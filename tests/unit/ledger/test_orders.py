from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.crypto.keys import decode_signature
from loopd.ledger import checks, service
from loopd.ledger.authority import OPERATOR, Authority
from loopd.ledger.movements import Phase
from loopd.ledger.orders import own_id, read_amount, signed_bytes
from loopd.ledger.refusals import Fault
from loopd.protocol.documents import check_document, dump_json
from loopd.protocol.errors import Refusal
from loopd.protocol.limits import PENDING_PER_ACCOUNT_MAX
from loopd.protocol.timestamps import format_timestamp
from tests.exchange_support import CONTEXT
from tests.ledger_support import (
    ANNA,
    BREWERY,
    DAY_MS,
    ISSUANCE,
    KEY,
    MARIA,
    RESERVE,
    START_MS,
    lc,
    ledger_node,
    new_id,
    signed,
)

# Faults of an order, each with what brings it about, in the order in which they are looked at.
FAULTS: dict[Fault, dict[str, Any]] = {
    Fault.BAD_AMOUNT: {"amount": Decimal("1.005")},
    Fault.NOT_CANONICAL: {"x": 2**60},
    Fault.RESERVED_ID: {"id": own_id("anything")},
    Fault.WRONG_CURRENCY: {"currency": "LC-BER"},
    Fault.SAME_ACCOUNT: {"to": MARIA},
    Fault.BAD_SIGNATURE: {"signature": "none"},
    Fault.NOT_AUTHORISED: {"authority": Authority()},
    Fault.OTHER_CONTENT: {"id": "repeated"},
    Fault.BAD_TIME: {"hold_until": True},
    Fault.RESERVED_ACCOUNT: {"to": ISSUANCE},
    Fault.OTHER_NODE: {"to": "user:max@vienna.loop"},
    Fault.UNKNOWN_ACCOUNT: {"to": "user:nobody@munich.loop"},
    Fault.INSUFFICIENT_FUNDS: {"amount": Decimal(1_000)},
}


def _combined(first: int) -> Iterator[tuple[Fault, ...]]:
    """A fault with any of those that follow it, of which no two are about the same field."""
    faults = list(FAULTS)
    rest = faults[first + 1 :]
    for bits in range(1 << len(rest)):
        chosen = (faults[first], *(fault for number, fault in enumerate(rest) if bits >> number & 1))
        fields = [name for fault in chosen for name in FAULTS[fault]]
        if len(fields) == len(set(fields)):
            yield chosen


def test_the_faults_stand_in_the_order_of_the_list() -> None:
    assert list(FAULTS) == [fault for fault in Fault if fault in FAULTS]


@pytest.mark.parametrize("first", range(len(FAULTS)), ids=[fault.reason for fault in FAULTS])
async def test_of_several_faults_the_first_in_the_list_is_told(tmp_path: Path, first: int) -> None:
    async with ledger_node(tmp_path, holders=(ANNA, BREWERY)) as node:
        await node.open(MARIA, key=KEY)
        await node.issue(MARIA, 100)
        paid = await node.pay(MARIA, BREWERY, 1)
        for chosen in _combined(first):
            changes = {name: value for fault in chosen for name, value in FAULTS[fault].items()}
            authority = changes.pop("authority", Authority(account=MARIA))
            if changes.get("id") == "repeated":
                changes["id"] = paid.id
            order = {**node.order(MARIA, BREWERY, 50), **changes}
            assert (await node.refusal(order, authority=authority)).reason == chosen[0].reason, chosen


async def test_of_linked_orders_an_end_of_its_own_is_told_in_its_turn(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        held = node.order(MARIA, ANNA, 1, hold_until=format_timestamp(START_MS + DAY_MS))
        odd = node.order(MARIA, BREWERY, 1, hold_until=format_timestamp(START_MS + 2 * DAY_MS))
        assert (await node.refusal(held, odd)).reason == "bad_time"
        assert (await node.refusal(held, odd, authority=Authority())).reason == "not_authorised"
        assert (await node.refusal(held, {**odd, "currency": "LC-BER"})).reason == "wrong_currency"
        assert (await node.refusal(held, {**odd, "to": "user:nobody@munich.loop"})).reason == "bad_time"


def test_every_fault_has_a_reason_of_its_own() -> None:
    assert len({fault.reason for fault in Fault}) == len(Fault)


async def test_ten_thousand_repeats_move_nothing_twice(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        order = node.order(MARIA, BREWERY, 1)
        for _ in range(100):
            done = await node.submit(*[order] * 100)
            assert {each.transfer.id for each in done} == {order["id"]}
        assert (node.balance(MARIA), node.balance(BREWERY)) == (lc(99), lc(1))


async def test_redemption_pays_out_of_the_reserve_rounded_down(tmp_path: Path) -> None:
    async with ledger_node(tmp_path, redemption=True, exchange_rate=Decimal(3)) as node:
        await node.issue(MARIA, 100, backing=50)
        await node.pay(MARIA, ISSUANCE, "10.00")
        assert (node.balance(MARIA), node.balance(RESERVE)) == (lc(90), lc(50) - 333)
        assert node.ledger.figures(node.database.points).supply_minor == lc(90)
        await node.pay(MARIA, ISSUANCE, "0.01")
        assert node.balance(RESERVE) == lc(50) - 333
        until = format_timestamp(START_MS + DAY_MS)
        refusal = await node.refusal(node.order(MARIA, ISSUANCE, 1, hold_until=until))
        assert refusal.reason == "reserved_account"


async def test_who_would_take_a_redemption_back_hears_that_it_was_carried_out(tmp_path: Path) -> None:
    async with ledger_node(tmp_path, redemption=True) as node:
        await node.issue(MARIA, 100)
        redeemed = await node.pay(MARIA, ISSUANCE, 10)
        for account, reason in ((MARIA, "not_pending"), (ANNA, "unknown_transfer")):
            with pytest.raises(Refusal) as refusal:
                await node.end(redeemed, Phase.VOID, Authority(account=account))
            assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("settings", "backing", "reason"),
    [({"reserve_ratio": Decimal(0)}, 0, "insufficient_reserve"), ({"exchange_rate": Decimal(2)}, 50, None)],
)
async def test_redemption_takes_no_more_than_the_reserve_has(
    tmp_path: Path, settings: dict[str, Any], backing: int, reason: str | None
) -> None:
    async with ledger_node(tmp_path, redemption=True, **settings) as node:
        await node.issue(MARIA, 100, backing=backing)
        order = node.order(MARIA, ISSUANCE, 100)
        if reason is None:
            await node.submit(order)
            assert node.balance(RESERVE) == 0
        else:
            assert (await node.refusal(order)).reason == reason


async def test_a_rate_of_zero_neither_issues_nor_redeems(tmp_path: Path) -> None:
    async with ledger_node(tmp_path, redemption=True) as node:
        await node.issue(MARIA, 100)
        await node.restart(exchange_rate=Decimal(0))
        assert (await node.refusal(node.order(MARIA, ISSUANCE, 1))).reason == "no_rate"
        with pytest.raises(Refusal) as refusal:
            await node.issue(MARIA, 1)
        assert refusal.value.reason == "no_rate"


async def test_the_operator_keeps_the_citys_accounts_and_nobody_elses(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue("node:transport@munich.loop", 10)
        await node.pay("node:transport@munich.loop", ANNA, 4)
        assert node.balance(ANNA) == lc(4)
        refusal = await node.refusal(node.order(ANNA, MARIA, 1), authority=OPERATOR)
        assert refusal.reason == "not_authorised"


@given(st.integers(1, 10**15))
def test_every_amount_signs_as_itself(amount_minor: int) -> None:
    amount = Decimal(amount_minor).scaleb(-2)
    assert signed_bytes({"amount": amount}) == b'{"amount":%s}' % _shortest(amount)


def _shortest(amount: Decimal) -> bytes:
    text = f"{amount:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).encode()


@given(st.decimals(allow_nan=True, allow_infinity=True) | st.integers() | st.booleans() | st.text())
def test_an_amount_is_read_exactly_or_refused(value: Any) -> None:
    number = not isinstance(value, bool) and isinstance(value, int | Decimal) and Decimal(value).is_finite()
    if number and 0 < value <= 10**13 and Decimal(value) == round(Decimal(value), 2):
        assert Decimal(read_amount(value)).scaleb(-2) == value
        return
    with pytest.raises(Refusal) as refusal:
        read_amount(value)
    assert (refusal.value.status, refusal.value.reason) == (400, "bad_amount")


def test_a_signature_is_over_everything_but_itself() -> None:
    order = {
        "@context": CONTEXT,
        "@type": "LoopCoinTransfer",
        "id": new_id(),
        "from": MARIA,
        "to": BREWERY,
        "amount": Decimal("50.00"),
        "currency": "LC-MUC",
        "timestamp": "2026-01-15T10:00:00Z",
    }
    value = check_document(dump_json(signed(order)), "LoopCoinTransfer").value
    assert signed_bytes(value) == signed_bytes(order)
    assert signed_bytes({**value, "memo": "more"}) != signed_bytes(order)
    assert KEY.public.verify(signed_bytes(value), decode_signature(value["signature"]))


async def test_linked_holds_have_one_end_and_end_together(tmp_path: Path) -> None:
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        until = [format_timestamp(START_MS + days * DAY_MS) for days in (5, 6)]
        first, second = (node.order(MARIA, payee, 20, hold_until=until[0]) for payee in (ANNA, BREWERY))
        for other in ({"hold_until": until[1]}, {}):
            odd = {**node.order(MARIA, ANNA, 1), **other}
            assert (await node.refusal(first, odd)).reason == "bad_time"
        done = await node.submit(first, second)
        await node.end(done[1].transfer, Phase.POST)
        assert (node.balance(ANNA), node.balance(BREWERY), node.available(MARIA)) == (lc(20), lc(20), lc(60))
        late = await node.submit(*({**order, "id": new_id()} for order in (first, second)))
        node.clock.advance(5 * DAY_MS)
        with pytest.raises(Refusal) as refusal:
            await node.end(late[0].transfer, Phase.POST)
        assert refusal.value.reason == "already_expired"
        await node.charge()
        assert node.available(MARIA) == lc(60)
        assert all(finding.holds for finding in checks.check(node.database.points))


async def test_an_account_has_so_many_pending_transfers_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "PENDING_PER_ACCOUNT_MAX", 3)
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        for _ in range(3):
            await node.hold(MARIA, ANNA, "0.01", days=1)
        until = format_timestamp(START_MS + 2 * DAY_MS)
        more = node.order(MARIA, ANNA, "0.01", hold_until=until)
        assert (await node.refusal(more)).reason == "too_many_pending"
        await node.pay(MARIA, ANNA, 1)
        sale = node.sale(1)
        assert await node.write(lambda tx: node.settlements.hold(tx, sale)) is None
        node.clock.advance(DAY_MS)
        await node.submit(more)


def test_the_refusal_tells_how_many_may_be_pending() -> None:
    assert f"{PENDING_PER_ACCOUNT_MAX:,}" in Fault.TOO_MANY_PENDING.message
