"""What an exchange is about, a material or a product, as the modules speak of it to each other."""

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from loopd.protocol.geo import Location


class SubjectKind(StrEnum):
    """Which of the two layers of §4.5 a subject belongs to; also the name of its key in federation messages."""

    MATERIAL = "material"
    PRODUCT = "product"


class SubjectState(StrEnum):
    """A subject's availability, as MaterialStatusUpdate names it."""

    AVAILABLE = "available"
    RESERVED = "reserved"
    WITHDRAWN = "withdrawn"


@dataclass(frozen=True, slots=True)
class Subject:
    """The flow metadata of a record: all that is ever announced of it (no raw record leaves the node)."""

    subject_id: str
    kind: SubjectKind
    category: str
    quantity: Decimal
    unit: str
    available_from_ms: int
    expires_ms: int | None
    location: Location | None
    state: SubjectState

    @property
    def available(self) -> bool:
        return self.state is SubjectState.AVAILABLE


@dataclass(frozen=True, slots=True)
class HeardSubject:
    """The newest valid announcement of another node's subject, as this node holds it.

    A plain node's announcement may leave out everything but the subject and whether it is available.
    """

    subject_id: str
    kind: SubjectKind
    origin: str
    message_id: bytes
    category: str | None
    quantity: Decimal | None
    unit: str | None
    location: Location | None
    available: bool
    valid_until_ms: int
    verified: bool
    state: str | None = None
    available_from_ms: int | None = None
    expires_ms: int | None = None
