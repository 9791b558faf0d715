"""What is kept of a document as it came, and when a repeat is the same one."""

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from loopd.exchange.entities import Entry
from loopd.protocol.documents import Document
from loopd.protocol.errors import Conflict
from loopd.protocol.json_text import read_json
from loopd.registry.rules import compacted_text, same_json

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


def same_entry(stored: E, document: Document) -> Created[E]:
    """The stored entry where a document of its id says the same; Conflict (409) `other_content`."""
    if stored.document != document.received and not same_json(read_json(stored.document), document.value):
        raise Conflict("other_content", "What is stored under this id has other content.")
    return Created(stored, created=False)
