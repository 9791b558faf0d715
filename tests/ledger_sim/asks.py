"""What is asked of a city, as plain values that both its ledger and its model are given."""

from dataclasses import dataclass

# A sale between cities, as both name it: the seller's city, and the transaction's id.
Key = tuple[str, str]


@dataclass(frozen=True)
class Asked:
    """An order. `signature`: none, one that holds, or one that does not."""

    id: str
    payer: str
    payee: str
    amount: int
    currency: str
    stated_ms: int
    until_ms: int | None = None
    signature: bool | None = None

    @property
    def content(self) -> tuple[object, ...]:
        """All that makes it this order; the signature does not."""
        return (self.payer, self.payee, self.amount, self.currency, self.stated_ms, self.until_ms)


@dataclass(frozen=True)
class Shows:
    """By what a caller may: a token bound to an account, or that it is the operator."""

    account: str | None = None
    operator: bool = False


@dataclass(frozen=True)
class Sale:
    """A transaction. `costs` are base, export, import and distance, in the seller's currency."""

    seller_city: str
    transaction: str
    subject: str
    buyer_city: str
    seller: str
    buyer: str
    costs: tuple[int, int, int, int]

    @property
    def key(self) -> Key:
        return self.seller_city, self.transaction

    @property
    def lines(self) -> dict[str, int]:
        """The recipients of §7.4, and what it leaves over."""
        base, export, imported, distance = self.costs
        return {
            "seller_receives": base - export,
            "seller_community_fund": export,
            "buyer_community_fund": imported,
            "transport_cost": distance,
            "residual": export,
        }


@dataclass(frozen=True)
class Bid:
    """What the buyer's city has agreed to: no more than `most`, once; of it `own` is its own, and does not cross."""

    id: str
    most: int
    own: int
