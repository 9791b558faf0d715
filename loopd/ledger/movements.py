"""What the ledger writes down: accounts, transfers and their phases, as values; pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from loopd.ledger.accounts import MAY_BE_NEGATIVE, Role
from loopd.ledger.lots import Part


class Kind(StrEnum):
    """What a transfer is for."""

    PAYMENT = "payment"
    SETTLEMENT = "settlement"
    BONUS = "bonus"
    ISSUANCE = "issuance"
    REDEMPTION = "redemption"
    BACKING = "backing"
    DECAY = "decay"
    FORFEIT = "forfeit"


class Phase(StrEnum):
    """What a line of the books does: move at once, reserve, or end what was reserved."""

    POSTED = "posted"
    PENDING = "pending"
    POST = "post"
    VOID = "void"
    EXPIRE = "expire"


class HoldState(StrEnum):
    """How a pending transfer stands."""

    PENDING = "pending"
    POSTED = "posted"
    VOIDED = "voided"
    EXPIRED = "expired"


# A pending transfer ends once, and how it ended stays.
HOLD_MOVES: Final[Mapping[Phase, HoldState]] = {
    Phase.POST: HoldState.POSTED,
    Phase.VOID: HoldState.VOIDED,
    Phase.EXPIRE: HoldState.EXPIRED,
}


@dataclass(frozen=True, slots=True)
class Account:
    """An account as it stands. `public_key` is PEM."""

    number: int
    id: str
    currency: str
    role: Role
    public_key: str | None
    opened_at_ms: int
    balance_minor: int
    held_minor: int

    @property
    def available_minor(self) -> int:
        """What is not held."""
        return self.balance_minor - self.held_minor

    @property
    def has_lots(self) -> bool:
        """Whether the account's coins age."""
        return self.role is Role.HOLDER

    def can_pay(self, amount_minor: int) -> bool:
        """Whether so much may go out."""
        return self.role in MAY_BE_NEGATIVE or self.available_minor >= amount_minor


@dataclass(frozen=True, slots=True)
class Movement:
    """What is to be written down. `parts` says by issue day what moves, where that is not the oldest coins.

    `received_parts` are the issue days that the payee gets, where it gets coins that had theirs in another city.
    """

    id: str
    kind: Kind
    payer: Account
    payee: Account
    amount_minor: int
    digest: bytes
    document: bytes | None = None
    link: str | None = None
    parts: Sequence[Part] | None = None
    received_parts: Sequence[Part] | None = None


@dataclass(frozen=True, slots=True)
class Transfer:
    """A line of the books. `pending` is the number of the transfer that it ends."""

    number: int
    id: str
    kind: Kind
    phase: Phase
    pending: int | None
    payer: int
    payee: int
    payer_id: str
    payee_id: str
    currency: str
    amount_minor: int
    at_ms: int
    link: str | None
    digest: bytes
    document: bytes | None


@dataclass(frozen=True, slots=True)
class Hold:
    """A pending transfer and how it stands."""

    transfer: int
    payer: int
    state: HoldState
    expires_at_ms: int | None
