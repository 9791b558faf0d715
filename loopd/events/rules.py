"""What events there are, who may see them, and how one is shown. Pure."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, Final

import orjson

from loopd.protocol.json_text import dump_json
from loopd.protocol.limits import EVENT_QUEUE_MAX
from loopd.protocol.timestamps import format_timestamp


class EventKind(StrEnum):
    """What happened. The part before the dot names the noun; `noun.*` stands for all of it in filters."""

    MATERIAL_REGISTERED = "material.registered"
    MATERIAL_STATUS = "material.status"
    PRODUCT_REGISTERED = "product.registered"
    PRODUCT_STATUS = "product.status"
    SUBJECT_HEARD = "subject.heard"
    OFFER_CREATED = "offer.created"
    OFFER_STATUS = "offer.status"
    MATCH_CREATED = "match.created"
    MATCH_STATUS = "match.status"
    TRANSFER_CREATED = "transfer.created"
    TRANSFER_STATUS = "transfer.status"
    TRANSACTION_CREATED = "transaction.created"
    TRANSACTION_STATUS = "transaction.status"
    BID_RECEIVED = "bid.received"
    BID_SELECTED = "bid.selected"
    BID_DECLINED = "bid.declined"
    BID_TOLD = "bid.told"
    WANTED_CREATED = "wanted.created"
    WANTED_MATCHED = "wanted.matched"
    WANTED_CLOSED = "wanted.closed"
    SIGNALS_CHANGED = "signals.changed"
    PEER_STATUS = "peer.status"
    LEDGER_POSTED = "ledger.posted"
    LEDGER_SETTLEMENT = "ledger.settlement"
    LEDGER_RUN = "ledger.run"
    LEDGER_DISCHARGE = "ledger.discharge"


# Who may see a kind follows from what the API shows to everybody: records, what was heard, offers and what came of
# them, signals. Bids, demand, money and the state of peers are the operator's.
_PUBLIC_NOUNS: Final = frozenset({"material", "product", "subject", "offer", "match", "transfer", "signals"})
ALL_KINDS: Final = frozenset(EventKind)
PUBLIC_KINDS: Final = frozenset(kind for kind in EventKind if kind.partition(".")[0] in _PUBLIC_NOUNS)


@dataclass(frozen=True, slots=True)
class Event:
    """One entry of the log. `event_id` rises in the order of commits; `data` is JSON text."""

    event_id: int
    kind: EventKind
    subject: str
    at_ms: int
    data: bytes


def event_json(event: Event) -> dict[str, Any]:
    """An event as lists, streams and webhooks show it; for `dump_json`, since its data is JSON text already."""
    return {
        "id": event.event_id,
        "kind": event.kind.value,
        "subject": event.subject,
        "at": format_timestamp(event.at_ms),
        "data": orjson.Fragment(event.data),
    }


# As many as one follower may have waiting: whoever follows at the same pace shares one text.
@lru_cache(maxsize=EVENT_QUEUE_MAX)
def event_text(event: Event) -> bytes:
    """The same as JSON text, on one line."""
    return dump_json(event_json(event))


def kinds_named(names: Collection[str]) -> frozenset[EventKind]:
    """The kinds that names like `material.registered`, `material.*` or `*` stand for. ValueError for another name."""
    found: set[EventKind] = set()
    for name in names:
        noun, dot, rest = name.partition(".")
        kinds = [
            kind
            for kind in EventKind
            if name in ("*", kind.value) or (dot and rest == "*" and kind.value.startswith(f"{noun}."))
        ]
        if not kinds:
            raise ValueError(f"there are no events {name[:60]!r}")
        found.update(kinds)
    return frozenset(found)
