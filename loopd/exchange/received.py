"""What is kept of a document as it came, and when a repeat is the same one."""

from dataclasses import dataclass, replace
from typing import Final, Generic, TypeVar

from loopd.exchange.entities import Entry
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict, Invalid
from loopd.protocol.json_text import dump_json, read_json
from loopd.protocol.limits import DEAL_DOCUMENT_MAX_BYTES
from loopd.registry.rules import compacted_text, same_json

# The reason of a refusal: what does not fit a message between nodes.
TOO_LARGE: Final = "too_large_to_mirror"

E = TypeVar("E", bound=Entry)


@dataclass(frozen=True, slots=True)
class Created(Generic[E]):
    """What came of a document: the entry, and whether it is new."""

    entry: E
    created: bool = True


@dataclass(frozen=True, slots=True)
class ReceivedText:
    """The bytes as sent, and the same in LOOP's own terms where they came in another form of JSON-LD."""

    received: bytes
    compacted: bytes | None = None

    @classmethod
    def of(cls, document: Document) -> "ReceivedText":
        """The text of a document from outside."""
        return cls(document.received, compacted_text(document))

    def read(self, entry: E) -> E:
        """An entry with the text that is read again later."""
        return replace(entry, document=self.received if self.compacted is None else self.compacted)


def check_size(document: Document) -> None:
    """Invalid (400) `too_large_to_mirror` for what could not be told to the other side, whoever that will be."""
    if len(dump_json(document.value)) > DEAL_DOCUMENT_MAX_BYTES:
        message = f"A document of the type {document.type} is too large to be told to another node."
        raise Invalid(TOO_LARGE, message, {"max_bytes": DEAL_DOCUMENT_MAX_BYTES})


def same_entry(stored: E, document: Document) -> Created[E]:
    """The stored entry where a document of its id says the same; Conflict (409) `other_content`."""
    if stored.document != document.received and not same_json(read_json(stored.document), document.value):
        raise Conflict("other_content", "What is stored under this id has other content.")
    return Created(stored, created=False)
