"""What becomes of coins between two cities: the days that they keep, what they lose meanwhile, and what is refused."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from loopd.ledger import checks, lot_tables
from loopd.ledger.accounts import Fund
from loopd.ledger.clearing import postings, tables
from loopd.ledger.clearing.ports import Consent
from loopd.ledger.dates import DAY_MS, day_of, day_text
from loopd.ledger.issuance import Issue
from loopd.protocol.documents import dump_json
from loopd.protocol.json_text import read_json
from loopd.protocol.limits import SETTLEMENT_ISSUE_DAYS_MAX
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.schemas import schema_file
from loopd.protocol.timestamps import parse_timestamp
from loopd.protocol.transactions import Transaction
from tests.clearing_support import COST, ISSUED_MINOR, START_MS, SettlingCity, pass_on, sale

TODAY = day_of(START_MS)


class Two:
    """Munich, which sells, and Vienna, which pays 1.3 of its own coins for one of Munich's."""

    def __init__(self, munich: dict[str, Any] | None = None, vienna: dict[str, Any] | None = None) -> None:
        self.munich = SettlingCity("munich.loop", ["vienna.loop"], **(munich or {}))
        self.vienna = SettlingCity("vienna.loop", ["munich.loop"], **(vienna or {}))

    def close(self) -> None:
        self.munich.close()
        self.vienna.close()

    def other(self, city: SettlingCity) -> SettlingCity:
        return self.vienna if city is self.munich else self.munich

    def pass_on(self) -> None:
        """Deliver all that is sent, until nothing more is."""
        pass_on(self.munich, self.vienna)

    def do(self, what: Callable[..., Any], sold: Transaction) -> None:
        """The seller's ledger does its part, and all that follows is delivered."""
        seller = self.munich if sold.seller == "munich.loop" else self.vienna
        seller.write(lambda tx: what(tx, sold))
        self.pass_on()

    def hold(self, number: int = 1, seller: SettlingCity | None = None, **accounts: str) -> Transaction:
        """A sale whose money both sides have prepared."""
        seller = seller or self.munich
        sold = replace(sale(number, seller, self.other(seller), COST), **accounts)
        self.do(seller.payments.hold, sold)
        assert self.state(sold) == "prepared"
        return sold

    def state(self, sold: Transaction) -> str:
        found = [
            tables.find_of_transaction(city.source, sold.seller, sold.transaction_id)
            for city in (self.munich, self.vienna)
        ]
        assert found[0] is not None
        assert found[1] is not None
        assert found[0].state == found[1].state
        return found[0].state

    def advance(self, ms: int) -> None:
        for city in (self.munich, self.vienna):
            city.clock.advance(ms)

    def charge(self) -> None:
        for city in (self.munich, self.vienna):
            while city.write(city.ledger.charge_due):
                pass
            assert [each for each in checks.check(city.source) if not each.holds] == []


@pytest.fixture
def two() -> Iterator[Two]:
    made = Two()
    yield made
    made.close()


def lots(city: SettlingCity, account: str) -> dict[int, int]:
    """What an account has, by the day of issue."""
    number = city.ledger.require(city.source, account).number
    return {lot.issue_day: lot.amount_minor for lot in lot_tables.lots(city.source, number)}


def test_coins_that_wait_for_another_city_age_only_if_they_come_back(two: Two) -> None:
    """Of Vienna's 3,000.00 of September 135.20 are held; in April and May everything else loses 5 %."""
    vienna, buyer = two.vienna, two.vienna.buyer
    paid, back = two.hold(1), two.hold(2)
    held_minor = 13_520
    two.advance(parse_timestamp("2027-06-01T00:00:00Z") - START_MS)
    two.charge()
    free_minor = ISSUED_MINOR - 2 * held_minor
    for _ in range(2):
        free_minor = free_minor * 95 // 100
    assert vienna.balance(buyer) == free_minor + 2 * held_minor
    two.do(two.munich.payments.post, paid)
    assert vienna.balance(buyer) == free_minor + held_minor
    assert lots(two.munich, two.munich.seller) == {TODAY: 3_600}
    two.do(two.munich.payments.release, back)
    # Each of the five lines comes back by itself, and is rounded by itself.
    lines = (4_680, 3_120, 1_040, 3_120, 1_560)
    assert sum(lines) == held_minor
    assert vienna.balance(buyer) == free_minor + sum(line * 95 // 100 * 95 // 100 for line in lines)
    two.charge()


def test_the_sellers_coins_age_by_the_terms_of_the_sellers_city() -> None:
    two = Two(munich={"expiry_months": 1, "decay_rate": "0.2"})
    sold = two.hold()
    two.advance(40 * DAY_MS)
    two.do(two.munich.payments.post, sold)
    assert lots(two.munich, two.munich.seller) == {TODAY: 3_600}
    two.advance(parse_timestamp("2026-11-21T00:00:00Z") - two.munich.clock.now_ms())
    two.charge()
    assert lots(two.munich, two.munich.seller) == {TODAY: 2_880}
    two.close()


def test_terms_that_change_while_the_money_is_held_count_for_the_boundaries_after_it(two: Two) -> None:
    vienna = two.vienna
    sold = two.hold()
    two.advance(parse_timestamp("2027-05-01T00:00:00Z") - START_MS)
    settings = vienna.settings.model_copy(update={"decay_rate": Decimal("0.1")})
    vienna.ledger._configured = settings.terms()
    vienna.write(vienna.ledger.begin)
    two.advance(parse_timestamp("2027-06-01T00:00:00Z") - two.vienna.clock.now_ms())
    two.charge()
    before = vienna.fund(Fund.COMMUNITY)
    two.do(two.munich.payments.release, sold)
    lines = (4_680, 3_120, 1_040, 3_120, 1_560)
    assert vienna.fund(Fund.COMMUNITY) - before == sum(line - line * 95 // 100 * 90 // 100 for line in lines)


def test_a_rate_that_changes_while_the_money_is_held_changes_nothing(two: Two) -> None:
    sold = two.hold()
    for city in (two.munich, two.vienna):
        settings = city.settings.model_copy(update={"exchange_rate": Decimal(7)})
        city.ledger._configured = settings.terms()
        city.write(city.ledger.begin)
    two.do(two.munich.payments.post, sold)
    assert two.state(sold) == "posted"
    assert (two.munich.owes("vienna.loop"), two.vienna.owes("munich.loop")) == (-9_200, 11_960)


def test_money_that_goes_to_another_city_and_back_is_no_younger_and_no_more(two: Two) -> None:
    """Maria sells to herself through an account in Munich, which sells to her again and again."""
    munich, vienna = two.munich, two.vienna
    two.advance(60 * DAY_MS)
    before = vienna.balance(vienna.buyer) + vienna.fund(Fund.COMMUNITY)
    price = LoopCost(6_000)
    for number in range(1, 20, 2):
        there = sale(number, munich, vienna, price)
        back = replace(
            sale(number + 1, vienna, munich, LoopCost(7_799)),
            buyer_account=munich.seller,
            seller_account=vienna.buyer,
        )
        for sold, seller in ((there, munich), (back, vienna)):
            two.do(seller.payments.hold, sold)
            two.do(seller.payments.post, sold)
            assert two.state(sold) == "posted"
    assert set(lots(vienna, vienna.buyer)) | set(lots(munich, munich.seller)) == {TODAY}
    left = vienna.balance(vienna.buyer) + vienna.fund(Fund.COMMUNITY)
    assert before - left == 10
    for city in (munich, vienna):
        bonuses = city.source.all("SELECT 1 FROM ledger_transfer WHERE kind = 'bonus'")
        assert not bonuses
        assert [each for each in checks.check(city.source) if not each.holds] == []


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"vienna": {"exchange_rate": Decimal(0)}}, "no_rate"),
        ({"vienna": {"backed_by": "CHF"}}, "no_rate"),
        ({"munich": {"reserve_ratio": Decimal(2)}}, "under_reserve"),
    ],
)
def test_what_cannot_be_exchanged_or_covered_ends_the_sale(settings: dict[str, Any], reason: str) -> None:
    rate_of_nothing = settings.get("vienna", {}).get("exchange_rate") == 0
    two = Two(**({} if rate_of_nothing else settings))
    if rate_of_nothing:
        two.vienna.ledger._configured = two.vienna.settings.model_copy(update=settings["vienna"]).terms()
        two.vienna.write(two.vienna.ledger.begin)
    sold = sale(1, two.munich, two.vienna, COST)
    two.do(two.munich.payments.hold, sold)
    assert two.state(sold) == "voided"
    assert two.munich.told_of(sold.transaction_id) == reason
    assert two.vienna.ledger.require(two.vienna.source, two.vienna.buyer).held_minor == 0
    two.close()


def test_a_seller_whose_rate_is_zero_asks_for_nothing(two: Two) -> None:
    munich = two.munich
    munich.ledger._configured = munich.settings.model_copy(update={"exchange_rate": Decimal(0)}).terms()
    munich.write(munich.ledger.begin)
    sold = sale(1, munich, two.vienna, COST)
    assert munich.write(lambda tx: munich.payments.hold(tx, sold)) == "no_rate"
    assert not munich.sent()


def _days(*days: tuple[int, str]) -> list[dict[str, Any]]:
    return [{"day": day_text(TODAY + later), "amount": Decimal(amount)} for later, amount in days]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"issue_days": _days((2, "46.80"))}, "bad_issue_days"),
        ({"issue_days": _days((0, "23.40"), (0, "23.40"))}, "bad_issue_days"),
        ({"issue_days": _days((0, "23.40"), (-9, "23.40"))}, "bad_issue_days"),
        ({"issue_days": [{"day": "1969-12-31", "amount": Decimal("46.80")}]}, "bad_issue_days"),
        ({"issue_days": _days((0, "46.79"))}, "other_amounts"),
        ({"issue_days": _days((0, "46.80"), (1, "0.01"))}, "other_amounts"),
        ({"issue_days": []}, "other_amounts"),
        ({"issue_days": [{"day": day_text(TODAY), "amount": Decimal("46.801")}]}, "bad_amount"),
        ({"exchange_rate": Decimal(0)}, "no_rate"),
        ({"exchange_rate": Decimal("1.29")}, "other_amounts"),
        ({"exchange_rate": Decimal("1e-9")}, "other_amounts"),
        ({"lines": []}, "other_amounts"),
    ],
)
def test_a_payer_that_lies_about_what_it_holds_is_refused(two: Two, change: dict[str, Any], reason: str) -> None:
    assert _answer_to(two, change) == ("refused", reason)


@pytest.mark.parametrize("how", ["reversed", "first twice", "last missing", "first of another name"])
def test_a_payer_that_lies_about_its_lines_is_refused(two: Two, how: str) -> None:
    def change(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        renamed = [{**lines[0], "line": "residual"}, *lines[1:]]
        return {
            "reversed": lines[::-1],
            "first twice": [lines[0], *lines[:3]],
            "last missing": lines[:-1],
            "first of another name": renamed,
        }[how]

    assert _answer_to(two, change) == ("refused", "other_amounts")


@pytest.mark.parametrize("day", ["1970-01-01", day_text(TODAY + 1)])
def test_coins_of_any_day_that_was_are_taken(two: Two, day: str) -> None:
    """Whose clock is a little ahead has coins of tomorrow; those of long ago age from the next boundary on."""
    assert _answer_to(two, {"issue_days": [{"day": day, "amount": Decimal("46.80")}]}) == ("prepared", None)


def _answer_to(two: Two, change: dict[str, Any] | Callable[[Any], Any]) -> tuple[str, str | None]:
    """How Munich answers a SettlementPrepare that was changed on its way; refused, its books are as they were."""
    munich, vienna = two.munich, two.vienna
    sold = sale(1, munich, vienna, COST)
    munich.write(lambda tx: munich.payments.hold(tx, sold))
    [asked] = munich.sent()
    vienna.take(munich.node_id, asked.body)
    munich.forget(asked.number)
    [held] = vienna.sent()
    vienna.forget(held.number)
    lie = read_json(held.body)
    lie = {**lie, **change} if isinstance(change, dict) else {**lie, "lines": change(lie["lines"])}
    books = "SELECT id, balance_minor, held_minor FROM ledger_account ORDER BY id"
    before = [tuple(row) for row in munich.source.all(books)]
    munich.take(vienna.node_id, dump_json(lie))
    [answer] = munich.sent()
    told = json.loads(answer.body)
    if told["answer"] == "refused":
        assert [tuple(row) for row in munich.source.all(books)] == before
        two.pass_on()
        assert two.state(sold) == "voided"
        assert vienna.ledger.require(vienna.source, vienna.buyer).held_minor == 0
    return told["answer"], told.get("reason")


def test_a_sale_of_nothing_is_settled_with_no_money(two: Two) -> None:
    sold = sale(1, two.munich, two.vienna, LoopCost(0))
    two.vienna.exchange.bids[sold.subject_id] = Consent("bid-1", 0)
    two.do(two.munich.payments.hold, sold)
    two.do(two.munich.payments.post, sold)
    assert two.state(sold) == "posted"
    assert two.munich.told_of(sold.transaction_id) == "settled"
    two.charge()


def test_coins_of_more_days_than_a_message_holds_are_not_held(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postings, "SETTLEMENT_ISSUE_DAYS_MAX", 2)
    vienna = two.vienna
    for number in range(2, 5):
        two.advance(DAY_MS)
        issue = Issue(f"00000000-0000-4000-8000-00000000000{number}", vienna.seller, 2_000, 2_000)
        vienna.write(lambda tx, issue=issue: vienna.issuance.issue(tx, issue))
    sold = replace(sale(1, two.munich, vienna, LoopCost(4_000)), buyer_account=vienna.seller)
    two.do(two.munich.payments.hold, sold)
    assert two.munich.told_of(sold.transaction_id) == "too_many_days"
    fewer = replace(sale(2, two.munich, vienna, LoopCost(3_000)), buyer_account=vienna.seller)
    two.do(two.munich.payments.hold, fewer)
    assert two.state(fewer) == "prepared"


def test_a_message_holds_as_many_days_as_are_held() -> None:
    days = schema_file("settlement-messages")["$defs"]["SettlementPrepare"]["properties"]["issue_days"]
    assert days["maxItems"] == SETTLEMENT_ISSUE_DAYS_MAX
