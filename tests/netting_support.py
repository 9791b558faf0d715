"""Two cities that sign runs and discharge them, in memory: over the cities of `tests.ledger_sim`."""

from collections.abc import Callable
from typing import Any

from loopd.database.writer import Tx
from loopd.ledger import checks
from loopd.ledger.netting import tables
from loopd.ledger.netting.rules import DischargeSide
from loopd.protocol.loopcost import LoopCost
from tests.clearing_support import COST, SettlingCity, pass_on, sale
from tests.ledger_sim.city import Broken

DAY_MS = 86_400_000
REFERENCE = "SEPA 2026-09-22 0042"


class NettingCity(SettlingCity):
    """A city, and what stands in its runs and discharges."""

    def run(self, peer: str, number: int = 1) -> tables.Run:
        run = tables.find_run(self.source, peer, number)
        assert run is not None
        return run

    def discharge(self, peer: str, side: DischargeSide, discharge_id: str) -> tables.Discharge:
        found = tables.find_discharge(self.source, peer, side, discharge_id)
        assert found is not None
        return found

    @property
    def reserve(self) -> int:
        return self.balance(f"node:reserve@{self.node_id}")

    def confirm(self, peer: str, discharge_id: str) -> None:
        """The creditor's office has the money."""
        self.write(lambda tx: self.netting.confirm(tx, peer, discharge_id))

    def deny(self, peer: str, discharge_id: str) -> None:
        """The creditor's office waits for it in vain."""
        self.write(lambda tx: self.netting.deny(tx, peer, discharge_id, "no payment came"))

    def tick(self) -> None:
        """Do what is due."""
        for timed in (self.clearing, self.netting):
            for due in timed.due(self.source, self.clock.now_ms()):
                self.write(due.do)


class NettingPair:
    """Munich and Vienna; Munich's id is the smaller one, so it proposes. 1.3 of Vienna's coins are one of Munich's."""

    def __init__(self, method: str = "netting", period: str = "daily", **settings: Any) -> None:
        def city(name: str, peer: str) -> NettingCity:
            terms = {"settlement_methods": {peer: method}, "settlement_periods": {peer: period}}
            return NettingCity(name, [peer], **{**terms, **settings.get(name.removesuffix(".loop"), {})})

        self.munich = city("munich.loop", "vienna.loop")
        self.vienna = city("vienna.loop", "munich.loop")
        self._sales = 0

    def close(self) -> None:
        self.munich.close()
        self.vienna.close()

    @property
    def cities(self) -> tuple[NettingCity, NettingCity]:
        return self.munich, self.vienna

    def sell(self, seller: NettingCity, buyer: NettingCity, cost: LoopCost = COST) -> None:
        """One sale, from its selection to its payment."""
        self._sales += 1
        each = sale(self._sales, seller, buyer, cost)
        assert seller.write(lambda tx: seller.payments.hold(tx, each)) is None
        self.pass_on()
        seller.write(lambda tx: seller.payments.post(tx, each))
        self.pass_on()

    def owe(self) -> None:
        """Vienna buys for 92.00 that cross, and both sign it."""
        self.sell(self.munich, self.vienna)
        self.signed_run()

    def pass_on(self) -> None:
        """Deliver all that is sent, until nothing more is."""
        pass_on(*self.cities)

    def days_pass(self, days: int = 1) -> None:
        for city in self.cities:
            city.clock.advance(days * DAY_MS)

    def signed_run(self) -> None:
        """The period ends, and both sign."""
        self.days_pass()
        self.munich.tick()
        self.pass_on()

    def check(self) -> None:
        """The invariants of both cities' books."""
        for city in self.cities:
            broken = [each for each in checks.check(city.source) if not each.holds]
            assert not broken, (city.node_id, broken)

    def pay(self, debtor: NettingCity, run: int = 1, number: int = 0) -> str:
        """The debtor's office announces a payment; gives its id."""
        discharge_id = f"dddddddd-0000-4000-8000-{number:012x}"
        peer = next(city.node_id for city in self.cities if city is not debtor)

        def unit(tx: Tx) -> None:
            debtor.netting.announce(tx, peer, discharge_id, run, REFERENCE)

        debtor.write(unit)
        return discharge_id


def breaks(what: Callable[[], Any]) -> bool:
    """Do it; whether the write broke in its middle."""
    try:
        what()
    except Broken:
        return True
    return False
