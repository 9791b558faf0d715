"""The ids that the ledger gives by itself follow from what they are for. Nobody may take one before the ledger does."""

from pathlib import Path
from uuid import UUID

import pytest

from loopd.ledger.movements import Kind, Phase
from loopd.ledger.orders import own_id
from tests.ledger_api import ADMIN, TRANSFERS, ledger_api
from tests.ledger_support import ANNA, BREWERY, CURRENCY, DAY_MS, MARIA, NODE, START_MS, ledger_node, parse_day

DECAY = own_id(Kind.DECAY, MARIA, CURRENCY, START_MS // DAY_MS, parse_day("2026-08-15") * DAY_MS)


@pytest.mark.parametrize(
    "taken",
    [
        DECAY,
        own_id("settlement", NODE, "TXN-2026-01-15-001", "seller_receives"),
        own_id("bonus", NODE, "TXN-2026-01-15-001"),
        own_id(Phase.EXPIRE, "5f0c1a52-7d3e-4b86-9a41-0c2f6f5b9e10"),
    ],
)
async def test_an_order_has_no_id_of_the_ledgers_own(tmp_path: Path, taken: str) -> None:
    assert UUID(taken).version == 8
    async with ledger_api(tmp_path) as api:
        await api.node.issue(MARIA, 100)
        before = await api.node.books()
        for payer in (ANNA, MARIA):
            order = {**api.node.order(payer, BREWERY, 1), "id": taken}
            assert (await api.post(TRANSFERS, order, payer)).refusal == (400, "reserved_id")
            linked = {"transfers": [order]}
            assert (await api.post(f"{TRANSFERS}/linked", linked, payer)).refusal == (400, "reserved_id")
        issue = {"id": taken, "to": MARIA, "amount": 1, "backing": 1}
        assert (await api.post("/api/v1/loopcoin/issuance", issue, ADMIN)).refusal == (400, "reserved_id")
        assert await api.node.books() == before


async def test_what_the_ledger_does_has_the_id_that_was_wanted(tmp_path: Path) -> None:
    """So the test above is of the ids that count."""
    async with ledger_node(tmp_path) as node:
        await node.issue(MARIA, 100)
        node.clock.advance(220 * DAY_MS)
        await node.charge()
        assert node.ledger.find_transfer(node.database.points, DECAY).kind is Kind.DECAY
