"""What routing needs of the rest of the node, as it sees it. Fakes of these stand in for it in tests."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from loopd.database import Reader, RowSource, Tx
from loopd.events.service import EventKind
from loopd.gossip.rings import Ring
from loopd.protocol.geo import Location
from loopd.protocol.nodes import KnownNode
from loopd.protocol.quantity import Quantity
from loopd.protocol.subjects import HeardSubject, Subject, SubjectKind
from loopd.signals.rules import SignalConfiguration


class HomeNode(Protocol):
    """What routing must know of its own node. `context_url` is the JSON-LD context that it emits."""

    @property
    def node_id(self) -> str: ...

    @property
    def location(self) -> Location: ...

    @property
    def context_url(self) -> str: ...


class HostedRecord(Protocol):
    """A record of the registry: its flow metadata, and the JSON text of the document it was registered with."""

    @property
    def subject(self) -> Subject: ...

    @property
    def document(self) -> bytes: ...


class Records(Protocol):
    """The registry's door."""

    def find(self, source: RowSource, subject_id: str) -> HostedRecord | None:
        """The record of an id, or None."""
        ...


class Heard(Protocol):
    """What other nodes announced."""

    def find(self, source: RowSource, subject_id: str) -> HeardSubject | None:
        """The newest valid announcement of a subject, or None."""
        ...


class SignalsKnown(Protocol):
    """The signals' door."""

    def own(self, source: RowSource) -> SignalConfiguration:
        """This node's configuration in force."""
        ...

    async def of_others(self, reader: Reader) -> list[SignalConfiguration]:
        """All that is known of other nodes' configurations, by node and then in order of their start."""
        ...

    def due(self, source: RowSource, node_ids: Iterable[str]) -> list[str]:
        """Those of the nodes whose signals should be fetched now."""
        ...


class Directory(Protocol):
    """The nodes that this one knows."""

    async def destinations(self, reader: Reader) -> list[KnownNode]:
        """All nodes that something could go to."""
        ...


class Reached(Protocol):
    """How far a subject is announced: the ring's place in the plan, and since when it is offered."""

    @property
    def ring(self) -> int: ...

    @property
    def offered_since_ms(self) -> int: ...


class Overflow(Protocol):
    """How this node's announcements widen (§9.3)."""

    @property
    def rings(self) -> Sequence[Ring]:
        """The plan, the narrowest first."""
        ...

    def reached(self, source: RowSource, subject_id: str) -> Reached | None:
        """How far a subject of this node is announced by now; None for what is not on offer."""
        ...


class Events(Protocol):
    """The log of what happened."""

    def append(self, tx: Tx, kind: EventKind, subject: str, data: Mapping[str, Any]) -> int:
        """Record what happened to an id in the transaction in which it happens."""
        ...


class OfferedRecord(Protocol):
    """A record that can be had: what is left of the whole, and the document it was registered with."""

    @property
    def subject_id(self) -> str: ...

    @property
    def kind(self) -> SubjectKind: ...

    @property
    def category(self) -> str: ...

    @property
    def left(self) -> Quantity: ...

    @property
    def whole(self) -> Quantity: ...

    @property
    def location(self) -> Location | None: ...

    @property
    def expires_ms(self) -> int | None: ...

    @property
    def document(self) -> bytes: ...


class OwnSupply(Protocol):
    """What the registry has to offer."""

    def find(self, source: RowSource, subject_id: str, now_ms: int) -> OfferedRecord | None:
        """The record of an id, if it can be had now."""
        ...

    def of_category(
        self, source: RowSource, kind: SubjectKind, category: str, least: Quantity, now_ms: int, limit: int
    ) -> Sequence[OfferedRecord]:
        """Records of a category of which so much can be had now, those with the least left first."""
        ...


class AllOffered(OwnSupply, Protocol):
    """The same, and all of it."""

    async def newest(self, reader: Reader, now_ms: int, limit: int) -> Sequence[OfferedRecord]:
        """What can be had now, the newest first."""
        ...


class HeardSupply(Protocol):
    """What other nodes announced."""

    def of_category(self, source: RowSource, kind: SubjectKind, category: str, limit: int) -> list[HeardSubject]:
        """What was heard of a category and can be had, the newest first."""
        ...


class NodePlaces(Protocol):
    """The nodes that this one knows."""

    def find(self, source: RowSource, node_id: str) -> KnownNode | None:
        """The node of that id."""
        ...


class Peers(NodePlaces, Protocol):
    """The same, and which of them are peers."""

    def peers(self, tx: Tx) -> list[KnownNode]:
        """All nodes in the standing of a peer."""
        ...


class Outbox(Protocol):
    """Durable requests to other nodes."""

    def enqueue(self, tx: Tx, target: str, path: str, body: bytes, expires_at_ms: int, reference: str) -> None:
        """Queue a POST of `body` to `path` (from `/api/v1` on) of one known node, until `expires_at_ms`."""
        ...
