"""What can be asked of one city: each operation knows how its ledger does it, and how its model does.

Another kind of operation is another class with `kind`, `carry_out` and `predict`, and a draw with its weight in
`drawing.py`. What cities tell each other for it goes through `City.receive`, `Model.hear` and a reader in `words.py`.
"""

from dataclasses import dataclass, field
from decimal import Decimal
from typing import Protocol

from loopd.crypto.keys import NodeKey, encode_signature
from loopd.database.writer import Tx
from loopd.due import Due
from loopd.ledger.authority import Authority
from loopd.ledger.clearing.rules import Decision
from loopd.ledger.issuance import Issue
from loopd.ledger.movements import Phase
from loopd.ledger.orders import Order
from loopd.protocol.json_text import dump_json
from loopd.protocol.loopcost import LoopCost
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.transactions import Transaction, TransactionStatus
from tests.ledger_sim.asks import Asked, Key, Sale, Shows
from tests.ledger_sim.city import City
from tests.ledger_sim.mail import Mail
from tests.ledger_sim.netting import Model

# Whoever has registered a key has this one, and signs with the other by mistake.
KEY, OTHER_KEY = NodeKey.from_seed(bytes(range(32))), NodeKey.from_seed(bytes(32))
_STATES = {"post": "posted", "void": "voided"}


class Operation(Protocol):
    """One unit of work in one city."""

    @property
    def kind(self) -> str:
        """Under what it is counted."""
        ...

    def carry_out(self, city: City, tx: Tx) -> str | None:
        """Have the ledger do it; a reason why not that is no Refusal."""
        ...

    def predict(self, model: Model) -> str | None:
        """Have the model do it, likewise; it raises Refused."""
        ...


@dataclass(frozen=True)
class Submit:
    """Orders that stand or fall together."""

    orders: tuple[Asked, ...]
    shows: Shows

    @property
    def kind(self) -> str:
        first = self.orders[0]
        if len(self.orders) > 1:
            return "linked transfers" if first.until_ms is None else "linked holds"
        if first.payee.startswith("node:issuance@"):
            return "redemption"
        return "transfer" if first.until_ms is None else "hold"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        city.ledger.submit(tx, [_order(order) for order in self.orders], _authority(self.shows))
        return None

    def predict(self, model: Model) -> str | None:
        model.submit(self.orders, self.shows)
        return None


@dataclass(frozen=True)
class End:
    """Post or void what was held."""

    order_id: str
    how: str
    shows: Shows
    kind = "end of a hold"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        city.ledger.end(tx, self.order_id, Phase(self.how), _authority(self.shows))
        return None

    def predict(self, model: Model) -> str | None:
        model.end_order(self.order_id, _STATES[self.how], self.shows)
        return None


@dataclass(frozen=True)
class IssueCoins:
    """The office issues."""

    id: str
    payee: str
    amount: int
    backing: int
    kind = "issuance"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        city.issuance.issue(tx, Issue(self.id, self.payee, self.amount, self.backing))
        return None

    def predict(self, model: Model) -> str | None:
        model.issue(self.id, self.payee, self.amount, self.backing)
        return None


@dataclass(frozen=True)
class MoveReserve:
    """The office takes backing in, or gives it away."""

    id: str
    amount: int
    kind = "reserve"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        city.issuance.move_reserve(tx, self.id, self.amount)
        return None

    def predict(self, model: Model) -> str | None:
        model.move_reserve(self.id, self.amount)
        return None


@dataclass(frozen=True)
class Charge:
    """The timer charges what is due, on some accounts. The model has charged it already."""

    accounts: int
    kind = "charge of what is due"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        city.ledger.charge_due(tx, self.accounts)
        return None

    def predict(self, model: Model) -> str | None:
        return None


@dataclass(frozen=True)
class Sell:
    """A bid is selected: the seller's city has its money held, inside the city or in another one."""

    sale: Sale

    @property
    def kind(self) -> str:
        return "sale in a city" if self.sale.seller_city == self.sale.buyer_city else "sale to another city"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        return city.payments.hold(tx, transaction_of(self.sale))

    def predict(self, model: Model) -> str | None:
        return model.sell(self.sale) if self.sale.buyer_city == model.node else model.offer(self.sale)


@dataclass(frozen=True)
class GoOn:
    """The transaction is delivered (`post`), cancelled (`void`) or disputed (`freeze`)."""

    sale: Sale
    what: str

    @property
    def kind(self) -> str:
        return {"post": "delivery", "void": "cancellation", "freeze": "dispute"}[self.what]

    def carry_out(self, city: City, tx: Tx) -> str | None:
        payments = city.payments
        hooks = {"post": payments.post, "void": payments.release, "freeze": payments.freeze}
        hooks[self.what](tx, transaction_of(self.sale))
        return None

    def predict(self, model: Model) -> str | None:
        if self.sale.buyer_city != model.node:
            model.ask(self.sale.key, self.what)
        else:
            inside = {"post": model.deliver, "void": model.cancel, "freeze": model.dispute}
            inside[self.what](self.sale.transaction)
        return None


@dataclass(frozen=True)
class Resolve:
    """The office ends a dispute over a sale inside the city."""

    transaction: str
    how: str
    kind = "resolution"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        city.settlements.resolve(tx, self.transaction, Phase(self.how))
        return None

    def predict(self, model: Model) -> str | None:
        model.resolve(self.transaction, _STATES[self.how])
        return None


@dataclass(frozen=True)
class ResolveDeal:
    """The office ends a dispute over a sale between cities, or tries to."""

    peer: str
    settlement: str
    key: Key
    how: str
    kind = "resolution between cities"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        city.clearing.resolve(tx, self.peer, self.settlement, Decision(self.how))
        return None

    def predict(self, model: Model) -> str | None:
        model.settle_dispute(self.peer, self.key, _STATES[self.how])
        return None


@dataclass(frozen=True)
class Deliver:
    """A message of another city arrives. `is_last`: it does not come again."""

    mail: Mail
    is_last: bool
    kind = "message"

    @property
    def key(self) -> Key | None:
        return self.mail.key

    def carry_out(self, city: City, tx: Tx) -> str | None:
        city.receive(tx, self.mail.sender, self.mail.sent.body)
        return None

    def predict(self, model: Model) -> str | None:
        model.hear(self.mail)
        return None


@dataclass(frozen=True)
class Bounce:
    """The sender hears that its message was refused, for good."""

    mail: Mail
    status: int
    reason: str
    kind = "refusal told to its sender"

    @property
    def key(self) -> Key | None:
        return self.mail.key

    def carry_out(self, city: City, tx: Tx) -> str | None:
        city.clearing.request_answered(tx, self.mail.sent.reference, self.status, self.reason)
        city.netting.request_answered(self.mail.sent.reference, self.status, self.reason)
        return None

    def predict(self, model: Model) -> str | None:
        if self.mail.key is not None and self.mail.key in model.ins:
            model.not_heard(self.mail.key, self.reason)
        return None


@dataclass(frozen=True)
class Remind:
    """The timer finds a settlement of which nothing was heard."""

    due: Due = field(repr=False)
    key: Key
    kind = "reminder"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        self.due.do(tx)
        return None

    def predict(self, model: Model) -> str | None:
        model.remember(self.key)
        return None


@dataclass(frozen=True)
class ProposeDue:
    """The timer finds that a run is to be proposed."""

    due: Due = field(repr=False)
    peer: str
    kind = "run of a period"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        self.due.do(tx)
        return None

    def predict(self, model: Model) -> str | None:
        model.propose_due(self.peer)
        return None


@dataclass(frozen=True)
class ProposeNow:
    """The office proposes a run before its period ends."""

    peer: str
    kind = "run of the office"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        city.netting.propose(tx, self.peer)
        return None

    def predict(self, model: Model) -> str | None:
        model.propose_now(self.peer)
        return None


@dataclass(frozen=True)
class SayAgain:
    """The timer finds a run or a discharge of which nothing was heard; that changes nothing."""

    due: Due = field(repr=False)
    what: str
    kind = "reminder of a run or discharge"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        self.due.do(tx)
        return None

    def predict(self, model: Model) -> str | None:
        return None


@dataclass(frozen=True)
class Pay:
    """The office has paid a run at its bank."""

    peer: str
    id: str
    run: int
    reference: str
    kind = "payment announced"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        city.netting.announce(tx, self.peer, self.id, self.run, self.reference)
        return None

    def predict(self, model: Model) -> str | None:
        model.announce(self.peer, self.id, self.run, self.reference)
        return None


@dataclass(frozen=True)
class Look:
    """The creditor's office says whether the money came."""

    peer: str
    id: str
    came: bool

    @property
    def kind(self) -> str:
        return "payment confirmed" if self.came else "payment denied"

    def carry_out(self, city: City, tx: Tx) -> str | None:
        if self.came:
            city.netting.confirm(tx, self.peer, self.id)
        else:
            city.netting.deny(tx, self.peer, self.id, "not_received")
        return None

    def predict(self, model: Model) -> str | None:
        if self.came:
            model.confirm(self.peer, self.id)
        else:
            model.deny(self.peer, self.id, "not_received")
        return None


def transaction_of(sale: Sale) -> Transaction:
    """The transaction as the exchange hands it to the ledger."""
    return Transaction(
        transaction_id=sale.transaction,
        subject_id=sale.subject,
        kind=SubjectKind.MATERIAL,
        seller=sale.seller_city,
        buyer=sale.buyer_city,
        seller_account=sale.seller,
        buyer_account=sale.buyer,
        quantity=Quantity(Decimal(500), "kg"),
        cost=LoopCost(*sale.costs),
        status=TransactionStatus.PENDING,
        version=1,
        created_at_ms=0,
        changed_at_ms=0,
    )


def _order(order: Asked) -> Order:
    signed = repr(order.content).encode()
    signature = None
    if order.signature is not None:
        signature = encode_signature((KEY if order.signature else OTHER_KEY).sign(signed))
    return Order(
        order.id,
        order.payer,
        order.payee,
        order.amount,
        order.currency,
        order.stated_ms,
        order.until_ms,
        signature,
        signed,
        _received(order),
    )


def _received(order: Asked) -> bytes:
    """As much of the LoopCoinTransfer as the ledger keeps it for."""
    said = {"id": order.id, "from": order.payer, "to": order.payee, "currency": order.currency}
    return dump_json({**said, "amount": Decimal(order.amount).scaleb(-2)})


def _authority(shows: Shows) -> Authority:
    return Authority(account=shows.account, operator=shows.operator)
