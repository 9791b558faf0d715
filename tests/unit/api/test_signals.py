import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path

import pytest

from loopd.protocol.documents import check_document
from tests.exchange_api import ExchangeApi, exchange_api
from tests.exchange_support import MUNICH, Home, exchange_node, signals_document


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[ExchangeApi]:
    signals = {"organic-food": Decimal("0.40"), "default": Decimal("0.0001")}
    async with exchange_node(tmp_path, Home("munich.loop", MUNICH), signals) as node, exchange_api(node) as client:
        yield client


async def test_the_signals_are_open_to_all(api: ExchangeApi) -> None:
    answer = await api.get("/api/v1/signals")
    assert (answer.status, answer.headers["Content-Type"]) == (200, "application/ld+json")
    check_document(answer.body, "LoopSignalConfig")
    published = json.loads(answer.body, parse_float=Decimal)
    assert published["signals"] == {"default": Decimal("0.0001"), "organic-food": Decimal("0.4")}
    # The clock of the tests stands in September 2026.
    assert (published["valid_from"], published["valid_until"]) == ("2026-09-01T00:00:00Z", "2026-10-01T00:00:00Z")


async def test_a_node_tells_its_own_new_signals(api: ExchangeApi) -> None:
    told = signals_document("vienna.loop", {"organic-food": 0.25}).received
    answer = await api.post_as_node("/api/v1/federate/mirror", told, "vienna.loop")
    assert answer.status == 202
    reading = api.node.signals.basis_points(api.node.database.points, "vienna.loop", "organic-food")
    assert reading is not None
    assert reading.basis_points == 2500
    answer = await api.post_as_node("/api/v1/federate/mirror", told, "berlin.loop")
    assert json.loads(answer.body)["error"]["details"]["reason"] == "origin_mismatch"
    assert api.node.signals.basis_points(api.node.database.points, "berlin.loop", "organic-food") is None
