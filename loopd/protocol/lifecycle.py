"""Every published status and what may follow it, as tables. The diagrams in docs/ are drawn from these."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """The statuses of one entity: each with those that may follow. A status without a successor is terminal."""

    entity: str
    initial: tuple[str, ...]
    successors: Mapping[str, tuple[str, ...]]

    def allows(self, current: str, following: str) -> bool:
        """Whether an entity may move from one status to the other."""
        return following in self.successors[current]

    def is_terminal(self, status: str) -> bool:
        """Whether nothing follows this status."""
        return not self.successors[status]

    def told(self, status: str) -> str:
        """What may follow a status that is not terminal, in words: `confirmed, cancelled or disputed may`."""
        *others, last = self.successors[status]
        return f"{', '.join(others)} or {last} may" if others else f"{last} may"


OFFER = Lifecycle(
    "Offer",
    ("open",),
    # A reserved Offer is open again only when its Match is released.
    {"open": ("reserved", "withdrawn"), "reserved": ("withdrawn", "open"), "withdrawn": ()},
)
MATCH = Lifecycle(
    "Match",
    ("proposed", "accepted"),
    {"proposed": ("accepted", "rejected"), "accepted": ("expired",), "rejected": (), "expired": ()},
)
TRANSFER = Lifecycle(
    "Transfer",
    ("scheduled",),
    {
        "scheduled": ("in_transit", "cancelled"),
        "in_transit": ("completed", "cancelled"),
        "completed": (),
        "cancelled": (),
    },
)
MATERIAL_STATUS = Lifecycle(
    "MaterialStatusUpdate",
    ("available",),
    {"available": ("reserved", "withdrawn"), "reserved": ("withdrawn", "available"), "withdrawn": ()},
)
TRANSACTION = Lifecycle(
    "Transaction",
    ("pending",),
    {
        "pending": ("confirmed", "cancelled", "disputed"),
        "confirmed": ("in_transit", "cancelled", "disputed"),
        "in_transit": ("delivered", "cancelled", "disputed"),
        "delivered": ("completed", "cancelled", "disputed"),
        "completed": (),
        "cancelled": (),
        "disputed": (),
    },
)
# A MaterialOffer's life at the owner's node and, mirrored, at the bidder's.
BID = Lifecycle(
    "MaterialOffer",
    ("live",),
    {
        "live": ("selected", "declined", "replaced", "withdrawn", "expired"),
        "selected": (),
        "declined": (),
        "replaced": (),
        "withdrawn": (),
        "expired": (),
    },
)
# What a city looks for, at its own node and, as it was told, at its peers.
DEMAND = Lifecycle(
    "LoopDemand",
    ("open",),
    {"open": ("fulfilled", "withdrawn", "expired"), "fulfilled": (), "withdrawn": (), "expired": ()},
)

LIFECYCLES: tuple[Lifecycle, ...] = (OFFER, MATCH, TRANSFER, MATERIAL_STATUS, TRANSACTION, BID, DEMAND)


class MirroredEntity(StrEnum):
    """What the seller's node alone writes, and the other side of the deal mirrors."""

    OFFER = "offer"
    MATCH = "match"
    TRANSFER = "transfer"
    TRANSACTION = "transaction"

    @property
    def lifecycle(self) -> Lifecycle:
        """The statuses that it goes through."""
        return _MIRRORED[self]


_MIRRORED: Mapping[MirroredEntity, Lifecycle] = {
    MirroredEntity.OFFER: OFFER,
    MirroredEntity.MATCH: MATCH,
    MirroredEntity.TRANSFER: TRANSFER,
    MirroredEntity.TRANSACTION: TRANSACTION,
}
