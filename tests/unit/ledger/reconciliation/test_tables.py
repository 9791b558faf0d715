"""A statement of what is between two cities: payments and what discharged them, each once, in one order."""

from loopd.ledger.reconciliation.rules import compare
from loopd.ledger.reconciliation.tables import statement
from tests.clearing_support import plans_of
from tests.netting_support import NettingPair

MUNICH, VIENNA = "munich.loop", "vienna.loop"


def test_statements_have_discharges_and_what_is_announced_is_on_its_way() -> None:
    pair = NettingPair()
    pair.owe()

    def compared() -> tuple[int, int, str | None]:
        here, there = (
            [entry for _, entry in statement(city.source, city.node_id, peer, 0, 100)]
            for city, peer in ((pair.munich, VIENNA), (pair.vienna, MUNICH))
        )
        found = compare(here, there, MUNICH)
        return found.compared, found.in_flight, None if found.difference is None else found.difference.reason

    assert compared() == (1, 0, None)
    discharge_id = pair.pay(pair.vienna)
    assert compared() == (1, 1, None)
    pair.pass_on()
    assert compared() == (2, 0, None)
    pair.munich.confirm(VIENNA, discharge_id)
    assert compared() == (2, 1, None)
    pair.pass_on()
    assert compared() == (2, 0, None)
    # A city that booked a discharge which the other never announced is found.
    lost = pair.vienna.connection
    lost.execute("DROP TRIGGER netting_discharge_lasts")
    lost.execute("PRAGMA foreign_keys=OFF")
    lost.execute("DELETE FROM netting_discharge")
    assert compared() == (1, 0, "missing_there")
    pair.close()


def test_a_statement_goes_on_with_each_entry_once(pair: NettingPair) -> None:
    for number in range(3):
        pair.owe()
        discharge_id = pair.pay(pair.vienna, run=number + 1, number=number)
        pair.pass_on()
        pair.munich.confirm(VIENNA, discharge_id)
        pair.pass_on()
    whole = statement(pair.munich.source, MUNICH, VIENNA, 0, 100)
    assert len(whole) == 6
    for limit in (1, 2, 4):
        paged, after = [], 0
        while page := statement(pair.munich.source, MUNICH, VIENNA, after, limit):
            paged += page
            after = page[-1][0]
        assert paged == whole


def test_a_statement_reads_what_is_with_its_peer_without_the_others(pair: NettingPair) -> None:
    plans = plans_of(pair.vienna.source, lambda source: statement(source, VIENNA, MUNICH, 5, 100))
    read = [plan for plan in plans if "clearing_settlement" in plan or "netting_discharge" in plan]
    assert len(read) == 2
    assert "clearing_settlement_of_peer (<expr>=? AND number" in read[0]
    assert "netting_discharge_of_peer (peer=? AND number" in read[1]
