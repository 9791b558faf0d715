"""A sale between two accounts or cities (§8.1), as the exchange and the ledger speak of it to each other."""

from dataclasses import dataclass
from enum import StrEnum

from loopd.protocol.loopcost import LoopCost
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import SubjectKind


class TransactionStatus(StrEnum):
    """Where a transaction stands; `protocol.lifecycle.TRANSACTION` says what may follow."""

    PENDING = "pending"
    CONFIRMED = "confirmed"
    IN_TRANSIT = "in_transit"
    DELIVERED = "delivered"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    DISPUTED = "disputed"


@dataclass(frozen=True, slots=True)
class Transaction:
    """What was sold to whom, at which LoopCost. `seller` and `buyer` are nodes.

    Without both accounts nothing is settled. `version` rises by one with each change.
    """

    transaction_id: str
    subject_id: str
    kind: SubjectKind
    seller: str
    buyer: str
    seller_account: str | None
    buyer_account: str | None
    quantity: Quantity
    cost: LoopCost
    status: TransactionStatus
    version: int
    created_at_ms: int
    changed_at_ms: int

    @property
    def names_accounts(self) -> bool:
        """Whether there is a payment to settle."""
        return self.seller_account is not None and self.buyer_account is not None
