"""The whole lifecycle against a small model of it: no sequence breaks an invariant, and a refusal changes nothing."""

import asyncio
import tempfile
from collections.abc import Awaitable
from contextlib import AsyncExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, multiple, rule

from loopd.protocol.errors import Refusal
from tests.lifecycle_model import Model, Refused
from tests.lifecycle_support import MATCH, MATERIAL, OFFER, TRANSACTION, TRANSFER, SellerNode, entity_id, seller_node

BATCH_KG = 12
ENTITIES = {"offer": OFFER, "match": MATCH, "transfer": TRANSFER}
SCALE = {"kg": Decimal(1000), "g": Decimal(1), "t": Decimal(1_000_000)}


class Lifecycle(RuleBasedStateMachine):
    """Drives a node and its model side by side."""

    offers: Bundle[str] = Bundle("offers")
    matches: Bundle[str] = Bundle("matches")
    transfers: Bundle[str] = Bundle("transfers")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.stack = AsyncExitStack()
        self.directory = tempfile.TemporaryDirectory()
        self.numbers = iter(range(1, 1000))
        self.model = Model(BATCH_KG * 1000)

    @initialize()
    def register(self) -> None:
        node = seller_node(Path(self.directory.name))
        self.node: SellerNode = self.run_now(self.stack.enter_async_context(node))
        self.run_now(self.node.register(quantity={"value": BATCH_KG, "unit": "kg"}))

    def teardown(self) -> None:
        self.run_now(self.stack.aclose())
        self.loop.close()
        self.directory.cleanup()

    def run_now(self, work: Awaitable[Any]) -> Any:
        return self.loop.run_until_complete(_awaited(work))

    def both(self, asked: Any, work: Awaitable[Any]) -> bool:
        """Ask the model and the node the same; whether they did it."""
        try:
            asked()
            expected = None
        except Refused as refused:
            expected = refused.answer
        before = self.run_now(self.node.dump()) if expected else None
        try:
            self.run_now(work)
            answer = None
        except Refusal as refusal:
            answer = (refusal.status, refusal.reason)
        assert answer == expected
        if expected:
            assert self.run_now(self.node.dump()) == before
        return expected is None

    @rule(target=offers, grams=st.integers(1, 14_000), unit=st.sampled_from(sorted(SCALE)))
    def make_offer(self, grams: int, unit: str) -> Any:
        number = next(self.numbers)
        name, value = entity_id(OFFER, number), float(Decimal(grams) / SCALE[unit])
        work = self.node.offer(number, quantity={"value": value, "unit": unit})
        return name if self.both(lambda: self.model.make_offer(name, grams), work) else multiple()

    @rule(target=matches, offer=offers, status=st.sampled_from(["proposed", "accepted"]))
    def make_match(self, offer: str, status: str) -> Any:
        number = next(self.numbers)
        name, work = entity_id(MATCH, number), self.node.match(number, offer_id=offer, status=status)
        return name if self.both(lambda: self.model.make_match(name, offer, status), work) else multiple()

    @rule(target=transfers, match=matches)
    def make_transfer(self, match: str) -> Any:
        number = next(self.numbers)
        name, work = entity_id(TRANSFER, number), self.node.transfer(number, match_id=match)
        return name if self.both(lambda: self.model.make_transfer(name, match), work) else multiple()

    @rule(match=matches)
    def make_sale(self, match: str) -> None:
        number = next(self.numbers)
        name, work = entity_id(TRANSACTION, number), self.node.sale(number, match_id=match)
        self.both(lambda: self.model.make_sale(name, match), work)

    @rule(offer=offers, status=st.sampled_from(["open", "reserved", "withdrawn"]))
    def move_offer(self, offer: str, status: str) -> None:
        self.move("offer", offer, status)

    @rule(match=matches, status=st.sampled_from(["accepted", "rejected", "expired"]))
    def move_match(self, match: str, status: str) -> None:
        self.move("match", match, status)

    @rule(transfer=transfers, status=st.sampled_from(["in_transit", "completed", "cancelled"]))
    def move_transfer(self, transfer: str, status: str) -> None:
        self.move("transfer", transfer, status)

    @rule(transfer=consumes(transfers))
    def arrive(self, transfer: str) -> None:
        for status in ("in_transit", "completed"):
            self.move("transfer", transfer, status)

    @rule(state=st.sampled_from(["available", "reserved", "withdrawn"]), chance=st.integers(0, 3))
    def set_state(self, state: str, chance: int) -> None:
        # Withdrawn is the end of everything, so it comes seldom.
        if state != "withdrawn" or chance == 0:
            work = self.node.set_state(next(self.numbers), state)
            self.both(lambda: self.model.set_state(state), work)

    def move(self, entity: str, name: str, status: str) -> None:
        work = self.node.change(ENTITIES[entity], name, status)
        self.both(lambda: self.model.move(entity, name, status), work)

    @invariant()
    def agree(self) -> None:
        if not hasattr(self, "node"):
            return
        assert self.node.left() * 1000 == self.model.left() >= 0
        assert self.node.state() == self.model.state
        points = self.node.database.points
        for entity, entries in (
            (OFFER, self.model.offers),
            (MATCH, self.model.matches),
            (TRANSFER, self.model.transfers),
        ):
            for name, entry in entries.items():
                assert self.node.lifecycle.require(points, entity, name).status == entry.status
        for name, (_, status) in self.model.sales.items():
            assert self.node.lifecycle.require(points, TRANSACTION, name).status == status

    @invariant()
    def histories_are_whole(self) -> None:
        if not hasattr(self, "node"):
            return
        points = self.node.database.points
        for entity, names in ((OFFER, self.model.offers), (MATCH, self.model.matches)):
            for name in names:
                entry = self.node.lifecycle.require(points, entity, name)
                versions = [change.version for change in self.node.lifecycle.history(points, entity, name)]
                assert versions == list(range(1, entry.version + 1))

    @invariant()
    def parts_add_up(self) -> None:
        if not hasattr(self, "node"):
            return
        rows = self.node.database.points.all("SELECT base_quantity FROM record WHERE parent = ?", (MATERIAL,))
        parts = sum((Decimal(row["base_quantity"]) for row in rows), Decimal(0)) * 1000
        record = self.node.registry.find(self.node.database.points, MATERIAL)
        assert record is not None
        moved_whole = record.current_city != "Munich"
        assert parts == (0 if moved_whole else self.model.transferred())


async def _awaited(work: Awaitable[Any]) -> Any:
    return await work


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
