"""Kinds of events: how filters name them, and who may see them."""

from decimal import Decimal

import pytest

from loopd.events.rules import ALL_KINDS, PUBLIC_KINDS, Event, EventKind, event_text, kinds_named
from loopd.protocol.json_text import read_json


def test_a_noun_with_a_star_stands_for_all_its_kinds() -> None:
    assert kinds_named(["material.*"]) == {EventKind.MATERIAL_REGISTERED, EventKind.MATERIAL_STATUS}
    assert kinds_named(["bid.told", "signals.changed"]) == {EventKind.BID_TOLD, EventKind.SIGNALS_CHANGED}
    assert kinds_named(["*"]) == ALL_KINDS
    assert kinds_named([]) == frozenset()


@pytest.mark.parametrize("name", ["", "material", "material.", "material.gone", "mat.*", "*.status", "material.**"])
def test_another_name_is_no_kind(name: str) -> None:
    with pytest.raises(ValueError, match="there are no events"):
        kinds_named(["material.*", name])


def test_bids_demand_money_and_peers_are_the_operators() -> None:
    assert kinds_named(["bid.*", "wanted.*", "transaction.*", "ledger.*", "peer.*"]) == ALL_KINDS - PUBLIC_KINDS


def test_an_event_is_shown_with_its_numbers_as_they_were() -> None:
    event = Event(7, EventKind.OFFER_STATUS, "OFFER-1", 1_790_000_000_123, b'{"quantity":0.10,"status":"open"}')
    assert read_json(event_text(event)) == {
        "id": 7,
        "kind": "offer.status",
        "subject": "OFFER-1",
        "at": "2026-09-21T14:13:20.123Z",
        "data": {"quantity": Decimal("0.10"), "status": "open"},
    }
