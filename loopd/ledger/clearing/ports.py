"""What a settlement between two nodes needs of the rest of the node, as it sees it."""

from dataclasses import dataclass
from typing import Protocol

from loopd.database.rows import RowSource
from loopd.database.writer import Tx


class Outbox(Protocol):
    """Durable requests to other nodes; what became of one comes back to `Clearing.request_answered`."""

    def enqueue(self, tx: Tx, target: str, path: str, body: bytes, expires_at_ms: int, reference: str) -> None:
        """Queue a POST of `body` to `path` (from `/api/v1` on) of one known node, until `expires_at_ms`."""
        ...


@dataclass(frozen=True, slots=True)
class Consent:
    """A bid that this city made: its id, and the most that it may cost, in the seller's currency.

    `import_minor` of it is this city's own, and does not leave it.
    """

    bid: str
    total_minor: int
    import_minor: int = 0


class Bids(Protocol):
    """The bids of this city at others: nobody's money is held without one."""

    def consent(self, source: RowSource, owner: str, subject_id: str, buyer_account: str) -> Consent | None:
        """The newest bid for a subject of `owner` that names the account, and was neither withdrawn, lost nor over."""
        ...


class Sales(Protocol):
    """The transactions of this node, whose payment the other side decides on."""

    def settled(self, tx: Tx, transaction_id: str) -> None:
        """All of it is paid."""
        ...

    def held(self, tx: Tx, transaction_id: str) -> None:
        """The other side holds the money, and it is reserved for here."""
        ...

    def failed(self, tx: Tx, transaction_id: str, reason: str) -> None:
        """Nothing will be paid: the sale is off, where the goods have not left."""
        ...
