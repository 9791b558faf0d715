"""What docs/ledger.md states as a fact."""

import re
from decimal import Decimal
from pathlib import Path

from loopd.ledger.arithmetic import distribute
from loopd.ledger.dates import DAY_MS, day_of, day_text
from loopd.ledger.refusals import Fault
from loopd.ledger.settings import LedgerSettings
from loopd.ledger.terms import ExpiryPolicy, Terms, TermsHistory, Version
from tests.ledger_support import parse_day

GUIDE = (Path(__file__).resolve().parents[3] / "docs" / "ledger.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table after a heading."""
    table = GUIDE.split(heading, 1)[1].split("\n\n|", 1)[1].split("\n\n", 1)[0]
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_refusals_stand_in_their_order() -> None:
    found = [(reason, int(status), message) for reason, status, message in rows("### The order of refusals")]
    assert found == [(fault.reason, fault.status, fault.message) for fault in Fault]


def test_the_boundaries_are_those_of_the_rules() -> None:
    for issued, months, policy, days in rows("## Lots and decay"):
        terms = Terms(
            "LC-MUC", "EUR", Decimal(1), Decimal(0), int(months), Decimal(0), None, Decimal(1), ExpiryPolicy(policy)
        )
        expected = days.split(", ")
        until_ms = parse_day(expected[-1]) * DAY_MS
        found = TermsHistory([Version(0, terms)]).boundaries(parse_day(issued), 0, until_ms)
        assert [day_text(day_of(each.at_ms)) for each in found] == expected


def test_decay_is_as_told() -> None:
    terms = LedgerSettings(currency_code="LC-MUC").terms()
    assert terms is not None
    left = [10_000]
    for _ in range(2):
        left.append(left[-1] - terms.loss_minor(left[-1]))
    assert (left, terms.loss_minor(1)) == ([10_000, 9_500, 9_025], 1)


def test_the_distribution_is_as_told() -> None:
    found = distribute(6_000, 2_400, 1_200, 800)
    told = {re.split(r" \(", line)[0].strip("`"): amount for line, amount in rows("## What a transaction pays")}
    assert told.pop("the buyer pays") == f"{found.total_minor / 100:.2f}"
    assert told == {line.value: f"{amount / 100:.2f}" for line, amount in found.lines.items()}


def test_the_settings_are_some_that_load() -> None:
    shown = set(re.findall(r"^(\w+) = ", GUIDE.split("```toml")[1].split("```")[0], re.MULTILINE))
    assert shown <= set(LedgerSettings.model_fields)
