"""What the ledger needs of the rest of the node, as it sees it."""

from collections.abc import Mapping
from typing import Any, Protocol

from loopd.database.writer import Tx
from loopd.events.service import EventKind


class HomeNode(Protocol):
    """What the ledger must know of its own node. `context_url` is the JSON-LD context that it emits."""

    @property
    def node_id(self) -> str: ...

    @property
    def context_url(self) -> str: ...


class Events(Protocol):
    """The event log's door."""

    def append(self, tx: Tx, kind: EventKind, subject: str, data: Mapping[str, Any]) -> int:
        """Record what happened to `subject` in the transaction in which it happens."""
        ...
