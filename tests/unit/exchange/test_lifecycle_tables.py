"""What the database itself refuses, whoever writes: the published transitions, versions, what needs what."""

import itertools
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from loopd.protocol.lifecycle import MirroredEntity
from tests.lifecycle_support import MATCH, OFFER, TRANSACTION, TRANSFER, SellerNode, entity_id, seller_node

TABLES = {OFFER: "offer", MATCH: "loop_match", TRANSFER: "transfer", TRANSACTION: "material_transaction"}


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[SellerNode]:
    async with seller_node(tmp_path) as opened:
        await opened.register()
        await opened.offer()
        yield opened


@pytest.mark.parametrize("entity", list(MirroredEntity))
async def test_only_the_published_transitions(node: SellerNode, entity: MirroredEntity) -> None:
    await node.match()
    await node.transfer()
    await node.sale()
    table, lifecycle = TABLES[entity], entity.lifecycle
    received = "received_at_ms = CASE WHEN ?1 = 'completed' THEN 1 END," if entity is TRANSFER else ""
    await node.write(lambda tx: tx.execute("DROP TRIGGER loop_match_with_transfer_stays"))
    await node.write(lambda tx: tx.execute("DROP TRIGGER offer_with_match_is_not_open"))
    trigger = await node.database.one("SELECT sql FROM sqlite_schema WHERE name = ?", (f"{table}_moves",))
    assert trigger is not None
    for current, following in itertools.product(lifecycle.successors, repeat=2):

        def unit(tx: object, current: str = current, following: str = following) -> None:
            assert hasattr(tx, "execute")
            tx.execute(f"DROP TRIGGER {table}_moves")
            tx.execute(f"UPDATE {table} SET {received} status = ?1", (current,))
            tx.execute(trigger["sql"])
            tx.execute(f"UPDATE {table} SET {received} status = ?1, version = version + 1", (following,))
            raise LookupError

        expected = LookupError if lifecycle.allows(current, following) else sqlite3.IntegrityError
        with pytest.raises(expected):
            await node.write(unit)


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE offer SET version = version + 2, status = 'withdrawn'",
        "UPDATE offer SET status = 'withdrawn'",
        "UPDATE offer SET received = x'00'",
        "UPDATE offer SET version = version + 1",
        "UPDATE offer SET counterpart = 'vienna.loop', version = version + 2",
        "UPDATE exchange_change SET status = 'sold'",
        "DELETE FROM exchange_change",
    ],
)
async def test_what_was_written_stays(node: SellerNode, change: str) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        await node.write(lambda tx: tx.execute(change))


async def test_what_needs_what(node: SellerNode) -> None:
    def copy(table: str) -> str:
        return f"""INSERT INTO {table} SELECT * FROM
            (SELECT * FROM {table} LIMIT 1) WHERE number IS NOT NULL"""

    await node.match()
    with pytest.raises(sqlite3.IntegrityError, match="not open"):
        await node.write(lambda tx: tx.execute(copy("loop_match")))
    await node.transfer()
    await node.change(TRANSFER, entity_id(TRANSFER), "cancelled")
    await node.change(MATCH, entity_id(MATCH), "expired")
    with pytest.raises(sqlite3.IntegrityError, match="not accepted"):
        await node.write(lambda tx: tx.execute(copy("transfer")))
