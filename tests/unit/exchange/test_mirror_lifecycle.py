"""Whatever the seller's lifecycle does, its mirror takes: the real one, driven at random, told in any order."""

import asyncio
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.exchange import mirror_tables as tables
from loopd.exchange.lifecycle import Lifecycle
from loopd.exchange.mirror_requests import StatusRequests
from loopd.exchange.mirror_rules import EntityKey
from loopd.federation.outbox import Outbox
from loopd.protocol.errors import NotFound, Refusal
from loopd.protocol.lifecycle import MirroredEntity
from tests.exchange_support import VIENNA, known_node
from tests.lifecycle_support import (
    DAY_MS,
    MATCH,
    MATCH_VALIDITY_MS,
    OFFER,
    PRODUCT_ID,
    TRANSACTION,
    TRANSFER,
    SellerNode,
    entity_id,
    match_value,
    offer_value,
    transaction_value,
    transfer_value,
)
from tests.mirror_support import Link, MirrorNode, mirrored_pair

ENTITIES = list(MirroredEntity)
VALUES = {OFFER: offer_value, MATCH: match_value, TRANSFER: transfer_value, TRANSACTION: transaction_value}
# Of deals with odd numbers a product changes hands, and who takes it is known from the transaction on.
PRODUCT: Mapping[MirroredEntity, Mapping[str, Any]] = {
    OFFER: {"material_id": None, "product_id": PRODUCT_ID, "quantity": {"value": 3, "unit": "piece"}},
    MATCH: {"material_id": None, "product_id": PRODUCT_ID, "to_node": None},
    TRANSFER: {"material_id": None, "product_id": PRODUCT_ID},
    TRANSACTION: {"material": None, "product": PRODUCT_ID, "quantity": {"value": 3, "unit": "piece"}},
}
NUMBERS = st.integers(0, 1)
PLACES = st.integers(0, 20)
DEEDS = st.one_of(
    # The part of a deal that comes next, and the status that may follow.
    st.tuples(st.just("deal"), NUMBERS),
    st.tuples(st.just("change"), st.sampled_from(ENTITIES), NUMBERS, PLACES),
    st.tuples(st.just("change"), st.just(TRANSFER), NUMBERS, st.just(0)),
    st.tuples(st.just("ask"), st.sampled_from(ENTITIES), NUMBERS, PLACES),
    st.tuples(st.just("pass"), st.integers(0, MATCH_VALIDITY_MS // DAY_MS)),
    st.tuples(st.just("deliver"), st.booleans(), PLACES),
    st.tuples(st.just("fetch")),
)


class Seller(SellerNode):
    """Munich, whose lifecycle tells a real mirror, and carries out what it is asked over it."""

    def __init__(self, node: MirrorNode) -> None:
        super().__init__(node.database, node.clock, known_node("vienna.loop", VIENNA, name="Vienna"))
        self.lifecycle = Lifecycle(replace(self.ports, mirror=node.telling), MATCH_VALIDITY_MS)
        node.requests = StatusRequests(
            node.home, node.clock, self.ports.audit, Outbox(lambda target: None), self.lifecycle, self.ports.random_hex
        )

    async def deal(self, number: int) -> None:
        """Make the part of a deal that comes next."""
        for entity in (OFFER, MATCH, TRANSACTION, TRANSFER):
            if not self.has(entity, number):
                await self.create(entity, VALUES[entity](number, **(PRODUCT[entity] if number % 2 else {})))
                return

    async def move(self, entity: MirroredEntity, number: int, place: int) -> None:
        following = entity.lifecycle.successors[self.status(entity, number)]
        if following:
            await self.change(entity, entity_id(entity, number), following[place % len(following)])

    def has(self, entity: MirroredEntity, number: int) -> bool:
        """Whether there is such an entity."""
        try:
            self.read(entity, entity_id(entity, number))
        except NotFound:
            return False
        return True


async def ask(vienna: MirrorNode, entity: MirroredEntity, number: int, place: int) -> None:
    key = EntityKey("munich.loop", entity, entity_id(entity, number))
    held = tables.find_mirrored(vienna.database.points, key)
    following = () if held is None else entity.lifecycle.successors[held.version.status]
    if following:
        status = following[place % len(following)]
        await vienna.database.write(lambda tx: vienna.requests.ask(tx, key, status, None))


async def play(directory: Path, deeds: list[tuple[Any, ...]]) -> dict[tuple[MirroredEntity, int], str]:
    """What Vienna holds once everything has been told."""
    async with mirrored_pair(directory) as (munich, vienna, link):
        seller = Seller(munich)
        await seller.register()
        await seller.register_product(quantity={"value": 12, "unit": "piece"})
        for deed in deeds:
            with suppress(Refusal):
                await do(deed, seller, munich, vienna, link)
        for sender in (vienna, munich):
            while sender.waiting():
                await link.deliver(sender, 0)
        for _ in range(20):
            if not await vienna.keeper.work():
                break
        assert vienna.gaps() == []
        return checked(seller, vienna)


async def do(deed: tuple[Any, ...], seller: Seller, munich: MirrorNode, vienna: MirrorNode, link: Link) -> None:
    match deed:
        case ("deal", number):
            await seller.deal(number)
        case ("change", entity, number, place):
            await seller.move(entity, number, place)
        case ("ask", entity, number, place):
            await ask(vienna, entity, number, place)
        case ("pass", days):
            seller.clock.advance(days * DAY_MS)
            await seller.tick()
        case ("fetch",):
            await vienna.keeper.work()
        case ("deliver", of_munich, place):
            await link.deliver(munich if of_munich else vienna, place)


def checked(seller: Seller, vienna: MirrorNode) -> dict[tuple[MirroredEntity, int], str]:
    """The statuses that Vienna holds: of everything with it on the other side, as it stands here."""
    found = {}
    for entity in ENTITIES:
        for number in (0, 1):
            told = tables.find_told(seller.database.points, "vienna.loop", entity, entity_id(entity, number))
            key = EntityKey("munich.loop", entity, entity_id(entity, number))
            held = tables.find_mirrored(vienna.database.points, key)
            if told is None:
                assert held is None
                continue
            own = seller.read(entity, entity_id(entity, number))
            assert held is not None
            assert (held.version.number, held.version.status) == (own["version"], own["status"])
            found[entity, number] = held.version.status
    return found


@settings(max_examples=20, deadline=None)
@given(st.lists(DEEDS, min_size=20, max_size=60))
def test_whatever_a_seller_does_the_other_side_holds(deeds: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(play(Path(directory), deeds))


async def test_a_deal_of_each_kind_from_its_offer_to_its_end(tmp_path: Path) -> None:
    deeds: list[tuple[Any, ...]] = []
    for number in (0, 1):
        # The Transfer is sent off; its versions come in a wild order, and what misses one before it is fetched.
        deeds += [("deal", number)] * 4 + [("change", TRANSFER, number, 0)]
        deeds += [("deliver", True, place) for place in (5, 1, 3, 0, 2, 7, 4, 0, 1, 0, 0, 0)]
        deeds += [("fetch",), ("ask", TRANSFER, number, 0), ("deliver", False, 0)]
    statuses = await play(tmp_path, deeds)
    ended = {OFFER: "withdrawn", MATCH: "accepted", TRANSFER: "completed", TRANSACTION: "delivered"}
    assert statuses == {(entity, number): status for entity, status in ended.items() for number in (0, 1)}
