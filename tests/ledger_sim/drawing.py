"""Draws: what a city is asked next, by what stands in its model. All chance is one seeded generator's."""

import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from loopd.ledger.clearing.ports import Consent
from tests.ledger_sim.asks import Asked, Bid, Sale, Shows
from tests.ledger_sim.city import City
from tests.ledger_sim.deals import ENDED
from tests.ledger_sim.money import DAY_MS
from tests.ledger_sim.netting import Model
from tests.ledger_sim.network import Network
from tests.ledger_sim.operations import (
    Charge,
    Deliver,
    End,
    GoOn,
    IssueCoins,
    Look,
    MoveReserve,
    Operation,
    Pay,
    ProposeNow,
    Resolve,
    ResolveDeal,
    Sell,
    Submit,
)

# How often each is drawn; what finds nothing to do becomes a transfer.
WEIGHTS: Final = {
    "transfer": 20,
    "hold": 7,
    "linked": 4,
    "strange": 3,
    "end": 8,
    "issue": 4,
    "redeem": 2,
    "reserve": 2,
    "repeat": 7,
    "sell": 5,
    "export": 7,
    "go_on": 13,
    "resolve": 2,
    "deliver": 40,
    "charge": 2,
    "propose": 2,
    "pay": 5,
    "look": 5,
}
# What may follow of a sale; nothing follows a cancellation or a dispute, but it can be said twice.
_NEXT: Final = {None: "post", "post": "post", "void": "void", "freeze": "freeze"}
_REPEATED_FROM: Final = 150


class Draws:
    """The draws of one run, over the cities and their models."""

    def __init__(
        self, chance: random.Random, cities: dict[str, City], models: dict[str, Model], network: Network
    ) -> None:
        self.chance = chance
        self._cities = cities
        self._models = models
        self._network = network
        self._numbers = 0
        self._asked: dict[str, deque[Operation]] = {name: deque(maxlen=_REPEATED_FROM) for name in cities}
        self._sales: dict[str, list[Sale]] = {name: [] for name in cities}
        self._came_to: dict[Sale, str] = {}
        self._kinds: dict[str, Callable[[str, Model], Operation | None]] = {
            "transfer": self._transfer,
            "hold": self._hold,
            "linked": self._linked,
            "strange": self._strange,
            "end": self._end,
            "issue": self._issue,
            "redeem": self._redeem,
            "reserve": self._reserve,
            "repeat": self._repeat,
            "sell": self._sell,
            "export": self._export,
            "go_on": self._go_on,
            "resolve": self._resolve,
            "deliver": self._deliver,
            "charge": self._charge,
            "propose": self._propose,
            "pay": self._pay,
            "look": self._look,
        }
        self._weights = [WEIGHTS[kind] for kind in self._kinds]
        self._names = list(self._kinds)

    def draw(self, city: str) -> Operation:
        """Something that a city is asked."""
        kind = self.chance.choices(self._names, self._weights)[0]
        model = self._models[city]
        operation = self._kinds[kind](city, model) or self._transfer(city, model)
        if isinstance(operation, Submit | IssueCoins | MoveReserve | Sell | Pay | Look):
            self._asked[city].append(operation)
        return operation

    def first_issue(self, city: str) -> Operation:
        """Coins for one of a city's holders, well covered."""
        model = self._models[city]
        amount = self.chance.randint(10_000, 50_000)
        return IssueCoins(self._id(), self.chance.choice(list(model.coins)), amount, amount * self.chance.randint(1, 3))

    def open_sales(self, city: str) -> list[Sale]:
        """The sales of a city between cities that have not ended."""
        model = self._models[city]
        return [sale for sale in self._sales[city] if sale.key in model.ins and model.ins[sale.key].state not in ENDED]

    # Orders

    def _id(self) -> str:
        self._numbers += 1
        return f"00000000-0000-4000-8000-{self._numbers:012x}"

    def _amount(self) -> int:
        chance = self.chance
        return chance.randint(1, chance.choice((1, 50, 5_000, 5_000, 100_000)))

    def _amount_of(self, model: Model, payer: str) -> int:
        """Sometimes all that there is, or a hundredth more."""
        if self.chance.random() < 0.06 and model.is_open(payer):
            return max(model.free(payer) + self.chance.choice((0, 0, 1)), 1)
        return self._amount()

    def _holders(self, model: Model, count: int) -> list[str]:
        return self.chance.sample(list(model.coins), count)

    def _parties(self, model: Model) -> tuple[str, str]:
        if self.chance.random() < 0.25:
            payer, payee = self.chance.sample([*model.coins, *model.funds], 2)
        else:
            payer, payee = self._holders(model, 2)
        return (model.community, payee) if payee != model.community and self.chance.random() < 0.05 else (payer, payee)

    def _order(self, model: Model, parties: tuple[str, str], until_ms: int | None = None) -> Asked:
        wall_ms = self._cities[model.node].clock.now_ms()
        signature = True if parties[0] in model.keyed and self.chance.random() < 0.5 else None
        return Asked(
            self._id(),
            *parties,
            self._amount_of(model, parties[0]),
            model.currency,
            wall_ms - self.chance.randint(-200_000, 200_000),
            until_ms,
            signature,
        )

    def _shown(self, payer: str) -> Shows:
        return Shows(operator=True) if payer.startswith("node:") else Shows(account=payer)

    def _transfer(self, city: str, model: Model) -> Operation:
        order = self._order(model, self._parties(model))
        return Submit((order,), self._shown(order.payer))

    def _until(self, model: Model) -> int:
        begins_ms = max(self._cities[model.node].clock.now_ms(), model.now_ms)
        return begins_ms + self.chance.randint(1, self.chance.choice((1, 10, 80)) * DAY_MS)

    def _hold(self, city: str, model: Model) -> Operation:
        order = self._order(model, self._parties(model), self._until(model))
        return Submit((order,), self._shown(order.payer))

    def _linked(self, city: str, model: Model) -> Operation:
        until_ms = self._until(model) if self.chance.random() < 0.5 else None
        payer = self.chance.choice(list(model.coins))
        orders = []
        for _ in range(self.chance.randint(2, 4)):
            parties = self._parties(model)
            if parties[1] != payer and self.chance.random() < 0.8:
                parties = payer, parties[1]
            orders.append(self._order(model, parties, until_ms))
        if self.chance.random() < 0.03:
            orders[-1] = replace(orders[-1], until_ms=self._until(model))
        if self.chance.random() < 0.05:
            orders[0] = self._some_order(model) or orders[0]
        return Submit(tuple(orders), self._shown(payer))

    def _strange(self, city: str, model: Model) -> Operation | None:
        """An order that somebody should not send, or not so."""
        chance, shows = self.chance, None
        until_ms = self._until(model) if chance.random() < 0.2 else None
        order = self._order(model, self._parties(model), until_ms)
        peer = chance.choice([name for name in self._models if name != city])
        changes: list[dict[str, Any]] = [
            {"currency": "LC-XXX"},
            {"payee": order.payer},
            {"payee": f"user:nobody@{city}"},
            {"payer": f"user:nobody@{city}"},
            {"payee": f"user:maria@{peer}"},
            {"payee": f"node:{chance.choice(('reserve', 'issuance', f'clearing.{peer}'))}@{city}"},
            {"payer": f"node:{chance.choice(('reserve', 'issuance', f'clearing.{peer}'))}@{city}"},
            {"stated_ms": order.stated_ms + chance.choice((-8, -6, 1)) * DAY_MS},
            {"until_ms": order.stated_ms + chance.choice((-1, 100)) * DAY_MS},
            {"signature": False},
            {"signature": True},
        ]
        draw = chance.randrange(len(changes) + 3)
        if draw < len(changes):
            order = replace(order, **changes[draw])
        elif draw == len(changes):
            shows, order = Shows(), replace(order, signature=chance.choice((order.signature, False, True)))
        elif draw == len(changes) + 1:
            shows = Shows(account=self._holders(model, 1)[0])
        else:
            known = self._some_order(model)
            if known is None:
                return None
            order = replace(known, amount=known.amount + 1)
        return Submit((order,), shows or self._shown(order.payer))

    def _some_order(self, model: Model) -> Asked | None:
        earlier = [each for each in self._asked[model.node] if isinstance(each, Submit)]
        return self.chance.choice(self.chance.choice(earlier).orders) if earlier else None

    def _end(self, city: str, model: Model) -> Operation | None:
        chance = self.chance
        if chance.random() < 0.1:
            order = self._some_order(model)
            order_id = self._id() if order is None or chance.random() < 0.1 else order.id
        else:
            waiting = [name for name in model.holds if name in model.done]
            if not waiting:
                return None
            order_id = chance.choice(waiting)
        known = model.done.get(order_id)
        payer = self._holders(model, 1)[0] if known is None or chance.random() < 0.03 else known.payer
        return End(order_id, chance.choice(("post", "void")), self._shown(payer or ""))

    # The office

    def _issue(self, city: str, model: Model) -> Operation:
        """As much as is allowed, a hundredth more, or anything."""
        chance, amount, cap = self.chance, 2 * self._amount(), model.newest.cap
        if cap is not None and chance.random() < 0.1:
            amount = max(cap - model.supply() + chance.choice((0, 1)), 1)
        bonus = [f"node:bonus@{city}"] * 2
        payee = chance.choice([*model.coins, *model.coins, *model.funds, *bonus, f"node:reserve@{city}"])
        needed = max(self._needed(model, amount) - model.figures["reserve"], 0)
        return IssueCoins(
            self._id(), payee, amount, chance.choice((0, needed, needed, max(needed - 1, 0), needed + amount))
        )

    def _needed(self, model: Model, more: int = 0) -> int:
        """The reserve that what circulates takes, with so much more of it."""
        terms = model.newest
        worth = terms.ratio * (model.supply() + more) - model.claims()
        return max(-(-worth // terms.rate), 0) if terms.rate else 0

    def _redeem(self, city: str, model: Model) -> Operation:
        payer = self.chance.choice(list(model.coins))
        order = self._order(model, (payer, f"node:issuance@{city}"))
        return Submit((order,), self._shown(payer))

    def _reserve(self, city: str, model: Model) -> Operation:
        spare = model.figures["reserve"] - self._needed(model)
        if spare > 0 and self.chance.random() < 0.4:
            return MoveReserve(self._id(), -spare - self.chance.choice((0, 0, 1)))
        return MoveReserve(self._id(), self._amount() * self.chance.choice((-1, 1)))

    def _charge(self, city: str, model: Model) -> Operation:
        return Charge(self.chance.randint(1, 3))

    def _repeat(self, city: str, model: Model) -> Operation | None:
        return self.chance.choice(self._asked[city]) if self._asked[city] else None

    # Sales

    def _costs(self) -> tuple[int, int, int, int]:
        chance = self.chance
        base = 0 if chance.random() < 0.03 else chance.randint(1, chance.choice((50, 2_000, 20_000)))
        export = base + 1 if chance.random() < 0.01 else chance.randint(0, base)
        return base, export, chance.randint(0, base), chance.choice((0, chance.randint(0, 900)))

    def _sale(self, seller_city: str, buyer_city: str, seller: str, buyer: str) -> Sale:
        self._numbers += 1
        number = self._numbers
        transaction, subject = f"TXN-2026-09-21-{number:03d}", f"MAT-DE-MUC-2026-FOOD-{number:06X}"
        return Sale(seller_city, transaction, subject, buyer_city, seller, buyer, self._costs())

    def agreed(
        self, seller_city: str, buyer_city: str, seller: str, buyer: str, costs: tuple[int, int, int, int]
    ) -> Sale:
        """A sale at given costs, for which the buyer's city has bid."""
        sale = replace(self._sale(seller_city, buyer_city, seller, buyer), costs=costs)
        self._bid(sale, Bid(f"bid-{sale.transaction}", sum(costs), costs[2]))
        self._keep(sale)
        return sale

    def _bid(self, sale: Sale, bid: Bid) -> None:
        self._models[sale.buyer_city].bids[sale.subject] = bid
        self._cities[sale.buyer_city].exchange.bids[sale.subject] = Consent(bid.id, bid.most, bid.own)

    def _sell(self, city: str, model: Model) -> Operation:
        parties = self._holders(model, 2)
        if self.chance.random() < 0.05:
            strangers = [*model.funds, f"user:nobody@{city}", parties[0]]
            parties[self.chance.randrange(2)] = self.chance.choice(strangers)
        sale = self._sale(city, city, *parties)
        self._keep(sale)
        return Sell(sale)

    def _export(self, city: str, model: Model) -> Operation:
        """A sale to another city, and the bid for it there; some bids are missing, too low, or for two sales."""
        chance = self.chance
        buyer_city = chance.choice([name for name in self._models if name != city])
        there = self._models[buyer_city]
        buyer = max(self._holders(there, 2), key=there.free)
        seller = f"user:nobody@{city}" if chance.random() < 0.01 else self._holders(model, 1)[0]
        if chance.random() < 0.02:
            buyer = f"user:nobody@{buyer_city}"
        sale = self._sale(city, buyer_city, seller, buyer)
        if chance.random() < 0.08:
            sale = replace(sale, costs=(self._credit_left(model, buyer_city) + chance.choice((0, 1)), 0, 0, 0))
        draw = chance.random()
        if draw > 0.04:
            most = sum(sale.costs) + (-1 if draw > 0.97 else chance.randint(0, 100))
            own = max(sale.costs[2] + chance.choice((0, 0, 0, -1)), 0)
            bid = Bid(f"bid-{sale.transaction}", most, own if chance.random() < 0.97 else min(own + 100, most))
            earlier = [each for each in self._sales[city][-20:] if each.buyer_city == buyer_city]
            if draw < 0.07 and earlier:
                bid = there.bids.get(chance.choice(earlier).subject, bid)
            self._bid(sale, bid)
        self._keep(sale)
        return Sell(sale)

    def _credit_left(self, model: Model, peer: str) -> int:
        """How much more may come in from a peer."""
        left = model.rules.limits.get(peer, 0) + model.owed.get(peer, 0) - model.coming.get(peer, 0)
        if model.newest.cap is not None:
            left = min(left, model.newest.cap - model.supply())
        return max(left, 0)

    def _keep(self, sale: Sale) -> None:
        sales = self._sales[sale.seller_city]
        sales.append(sale)
        if len(sales) > 2 * _REPEATED_FROM:
            self._sales[sale.seller_city] = [each for each in sales[:-100] if self._is_open(each)] + sales[-100:]

    def _is_open(self, sale: Sale) -> bool:
        model = self._models[sale.seller_city]
        known = model.ins.get(sale.key) or model.payments.get(sale.transaction)
        return known is not None and known.state not in ENDED

    def _go_on(self, city: str, model: Model) -> Operation | None:
        sales = self._sales[city]
        if not sales:
            return None
        # Mostly one that is open: few are.
        tries = [self.chance.choice(sales) for _ in range(6)]
        sale = next((each for each in tries if self._is_open(each)), tries[0])
        before = self._came_to.get(sale)
        choices: Sequence[str] = ("post", "post", "post", "void", "freeze")
        what = self.chance.choice(choices) if before in (None, "post") else _NEXT[before]
        self._came_to[sale] = what
        return GoOn(sale, what)

    def _resolve(self, city: str, model: Model) -> Operation | None:
        chance, how = self.chance, self.chance.choice(("post", "void"))
        if chance.random() < 0.5:
            payments = [name for name, each in model.payments.items() if each.state == "frozen"]
            if payments and chance.random() < 0.8:
                return Resolve(chance.choice(payments), how)
            return Resolve(chance.choice(list(model.payments)), how) if model.payments else None
        frozen = [key for key, out in model.outs.items() if out.frozen]
        known = frozen if frozen and chance.random() < 0.8 else [*model.outs, *model.ins]
        if not known:
            return None
        key = chance.choice(known)
        return self.resolution(city, key, how)

    def resolution(self, city: str, key: tuple[str, str], how: str) -> Operation | None:
        """The office of a city tries to end a dispute; None where no message has named the settlement yet."""
        settlement = self._network.post.ids.get(key)
        if settlement is None:
            return None
        deal = None if key[0] != city else self._models[city].ins[key].deal
        peer = key[0] if deal is None else deal.sale.buyer_city
        return ResolveDeal(peer, settlement, key, how)

    # Runs and discharges

    def _propose(self, city: str, model: Model) -> Operation:
        return ProposeNow(self._peer(model))

    def _peer(self, model: Model) -> str:
        return self.chance.choice([name for name in self._models if name != model.node])

    def _pay(self, city: str, model: Model) -> Operation | None:
        """What is owed by a run; sometimes another run, or what was announced before, with other content."""
        chance, peer = self.chance, self._peer(model)
        owing = [number for number, _, claim in model.open_claims(peer) if claim.debtor == city]
        known = [number for name, number in model.runs if name == peer]
        if not known or (not owing and chance.random() < 0.8):
            return None
        run = chance.choice(owing if owing and chance.random() < 0.9 else [*known, max(known) + 1])
        earlier = [each for each in self._asked[city] if isinstance(each, Pay)]
        if earlier and chance.random() < 0.06:
            return replace(chance.choice(earlier), **chance.choice(({"run": run}, {"reference": "another"})))
        return Pay(peer, self._id(), run, f"SEPA {self._numbers}")

    def _look(self, city: str, model: Model) -> Operation | None:
        chance = self.chance
        waiting = [name for name, each in model.discharges.items() if name[1] == city and each.state == "announced"]
        if not waiting or chance.random() < 0.1:
            if chance.random() < 0.7:
                return None
            waiting = [name for name, each in model.discharges.items() if each.reference != "even"]
        debtor, creditor, discharge = chance.choice(waiting) if waiting else (self._peer(model), city, self._id())
        return Look(creditor if debtor == city else debtor, discharge, chance.random() < 0.75)

    def payments(self, city: str) -> list[Operation]:
        """All that a city owes and may pay, and what the reserve takes for it."""
        model, found = self._models[city], list[Operation]()
        for peer in model.owed:
            claims = model.open_claims(peer)
            carried = max((number for number, method, _ in claims if method == "clearing"), default=None)
            runs = {number for number, method, claim in claims if method != "clearing" and claim.debtor == city}
            for run in sorted(runs | ({carried} if carried is not None else set())):
                most = sum(claim.amount for _, claim in model.payable(peer, run))
                if most:
                    found.append(MoveReserve(self._id(), most))
                found.append(Pay(peer, self._id(), run, f"SEPA {self._numbers}"))
        return found

    def looks(self, city: str) -> list[Operation]:
        """The office of a city looks into its bank: all that was announced has come."""
        found = self._models[city].discharges.items()
        return [Look(name[0], name[2], True) for name, each in found if (name[1], each.state) == (city, "announced")]

    # The network

    def _deliver(self, city: str, model: Model) -> Operation | None:
        mail = self._network.some_for(city, self.chance)
        return None if mail is None else Deliver(mail, self.chance.random() < 0.85)
