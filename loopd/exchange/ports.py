"""What the exchange needs of the rest of the node, as it sees it. Fakes of these stand in for it in tests."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.exchange.documents import Agreement
from loopd.protocol.geo import Location
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.nodes import KnownNode
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import HeardSubject, Subject, SubjectKind
from loopd.protocol.transactions import Transaction
from loopd.registry.handover import Handover
from loopd.signals.rules import SignalReading


class HomeNode(Protocol):
    """What the exchange must know of its own node. `context_url` is the JSON-LD context that it emits."""

    @property
    def node_id(self) -> str: ...

    @property
    def city(self) -> str: ...

    @property
    def endpoint(self) -> str: ...

    @property
    def location(self) -> Location: ...

    @property
    def context_url(self) -> str: ...


class HostedRecord(Protocol):
    """A record of the registry: its flow metadata with the quantity that is left, what was registered, and as what."""

    @property
    def subject(self) -> Subject: ...

    @property
    def document(self) -> bytes: ...

    @property
    def registered(self) -> Quantity: ...


class Records(Protocol):
    """The registry's door."""

    def find(self, source: RowSource, subject_id: str) -> HostedRecord | None:
        """The record of an id, or None."""
        ...

    def require(self, source: RowSource, kind: SubjectKind, subject_id: str) -> HostedRecord:
        """The record of an id and kind; NotFound (404) `unknown_material` or `unknown_product`."""
        ...

    def is_available(self, subject: Subject) -> bool:
        """Whether a subject can be had now: nobody holds it, and it has not expired."""
        ...


class Stock(Protocol):
    """The quantities of the registry's records."""

    def reserve(self, tx: Tx, subject_id: str, quantity: Quantity, cause: str) -> None:
        """Promise a quantity; Conflict (409) `not_available`, `unit_mismatch`, `quantity_above_available`."""
        ...

    def release(self, tx: Tx, subject_id: str, quantity: Quantity, cause: str) -> None:
        """Take a promise back."""
        ...

    def hand_over(self, tx: Tx, subject_id: str, quantity: Quantity, handover: Handover) -> str | None:
        """What was reserved has arrived elsewhere; gives the id of the part's record, None for the whole."""
        ...


class DealMaker(Protocol):
    """Makes of a selection what it means: Offer, accepted Match and pending transaction."""

    def agree(self, tx: Tx, deal: Agreement) -> str | None:
        """Hold the money and write all three; gives the Match's id.

        Conflict (409) `funds_refused`, before anything was written, or as the stock refuses.
        """
        ...

    def city_of(self, tx: Tx, node_id: str) -> str:
        """What a node's city is called."""
        ...


class SignalReadings(Protocol):
    """The signals' door."""

    def basis_points(self, source: RowSource, node_id: str, category: str) -> SignalReading | None:
        """What a node charges for a category; None where its signals are not known."""
        ...


class NodeDirectory(Protocol):
    """The nodes that this one knows."""

    def find(self, source: RowSource, node_id: str) -> KnownNode | None:
        """The node of that id, however it stands."""
        ...


class Heard(Protocol):
    """What other nodes announced."""

    def find(self, source: RowSource, subject_id: str) -> HeardSubject | None:
        """The newest valid announcement of a subject, or None."""
        ...


class Outbox(Protocol):
    """Durable requests to other nodes; what became of one comes back to `Exchange.request_answered`."""

    def enqueue(self, tx: Tx, target: str, path: str, body: bytes, expires_at_ms: int, reference: str) -> None:
        """Queue a POST of `body` to `path` (from `/api/v1` on) of one known node, until `expires_at_ms`."""
        ...


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """What another node answered."""

    status: int
    body: bytes


class SignedReads(Protocol):
    """Asks other nodes."""

    async def __call__(self, node: KnownNode, path: str) -> NodeAnswer | None:
        """The answer to a signed GET of `path` (from `/api/v1` on), or None where none came."""
        ...


class StatusChanges(Protocol):
    """The lifecycle's door for what the other side of a deal asks."""

    def change_status(
        self,
        tx: Tx,
        entity: MirroredEntity,
        entity_id: str,
        status: str,
        by_node: str | None,
        details: Mapping[str, Any],
    ) -> object:
        """Move an entity of this node to another status, `details.reason` with it; Refusal where it may not."""
        ...


class Mirror(Protocol):
    """Tells the other side of a deal what this node, the seller's, decided."""

    def changed(
        self,
        tx: Tx,
        entity: MirroredEntity,
        entity_id: str,
        version: int,
        document: Mapping[str, Any],
        counterpart: str,
    ) -> None:
        """Tell the node `counterpart`, and whoever was told of it before, the new version of an entity.

        `document` is the entity as it is answered, with its `status`. Each version is told once, versions rise. Of an
        Offer they are told from its first Match on, and then all of them: `counterpart` is the Match's, or the last.
        """
        ...


class SettlementHooks(Protocol):
    """The ledger, as a transaction needs it. Called for every transaction; those without accounts ask for nothing."""

    def hold(self, tx: Tx, transaction: Transaction) -> str | None:
        """Hold what the buyer will pay; None where that stands, else the reason of the refusal in a word."""
        ...

    def post(self, tx: Tx, transaction: Transaction) -> bool:
        """Pay, at delivery; whether all of it is posted now. Where it is not, `Transactions.settled` comes later."""
        ...

    def release(self, tx: Tx, transaction: Transaction) -> None:
        """Give back what was held, at cancellation."""
        ...

    def freeze(self, tx: Tx, transaction: Transaction) -> None:
        """Keep what was held until the dispute is resolved."""
        ...

    def describe(self, source: RowSource, transaction: Transaction) -> Mapping[str, Any] | None:
        """What is known of the payment, as `GET .../settlement` tells it; None where the ledger knows nothing."""
        ...
