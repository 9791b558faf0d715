"""From an offer to a delivered transaction in a running node that is killed in between; a Match that ends meanwhile."""

import time
from pathlib import Path
from typing import Any

from loopd.protocol.timestamps import format_timestamp
from tests.lifecycle_support import (
    DAY_MS,
    MATCH,
    OFFER,
    TRANSACTION,
    TRANSFER,
    entity_id,
    match_value,
    offer_value,
    transaction_value,
    transfer_value,
)
from tests.nodes import RunningNode, eventually, running

VALUES = {OFFER: offer_value, MATCH: match_value, TRANSFER: transfer_value, TRANSACTION: transaction_value}


def make(node: RunningNode, entity: Any, number: int = 0, **changes: Any) -> None:
    answer = node.post(f"/api/v1/{entity.value}", VALUES[entity](number, **changes), "offer:write")
    assert answer.status == 201, answer.body


def read(node: RunningNode, entity: Any, number: int = 0) -> Any:
    answer = node.get(f"/api/v1/{entity.value}/{entity_id(entity, number)}")
    assert answer.status == 200, answer.body
    return answer.json()


def move(node: RunningNode, entity: Any, status: str, number: int = 0) -> None:
    path = f"/api/v1/{entity.value}/{entity_id(entity, number)}/status"
    answer = node.post(path, {"status": status}, "offer:write")
    assert answer.status == 200, answer.body


def test_what_was_answered_outlives_a_kill(tmp_path: Path) -> None:
    node = RunningNode.init(tmp_path, "a")
    with running(node):
        material = node.register()
        subject = {"material_id": material}
        far = format_timestamp(time.time_ns() // 1_000_000 + DAY_MS)
        make(node, OFFER, available_until=far, **subject)
        make(node, MATCH, to_node=None, **subject)
        make(node, TRANSACTION, material=material, seller=node.node_id, buyer=node.node_id, offer=local_price())
        make(node, TRANSFER, **subject)
        move(node, TRANSFER, "in_transit")
        make(node, OFFER, 1, available_until=far, quantity={"value": 1, "unit": "kg"}, **subject)
        soon = format_timestamp(time.time_ns() // 1_000_000 + 6_000)
        make(node, MATCH, 1, to_node=None, valid_until=soon, **subject)
        before = [read(node, entity) for entity in VALUES]
        node.kill9()
        node.start()
        assert [read(node, entity) for entity in VALUES] == before
        move(node, TRANSFER, "completed")
        node.kill9()
        node.start()
        assert read(node, TRANSACTION)["status"] == "delivered"
        assert read(node, OFFER)["reason"] == "fulfilled"
        part = node.get(f"/api/v1/material/{read(node, TRANSFER)['part_id']}").json()
        assert (part["parent_id"], part["current_city"]) == (material, "Vienna")
        eventually(lambda: read(node, MATCH, 1)["status"] == "expired", "the other match ends at its time")
        left = node.get(f"/api/v1/material/{material}").json()["availability"]
        assert (left["status"], left["quantity"]["value"]) == ("available", registered(node, material) - 200)


def local_price() -> dict[str, int]:
    return {"base_price": 50, "loop_cost": 50}


def registered(node: RunningNode, material: str) -> Any:
    return node.get(f"/api/v1/material/{material}").json()["quantity"]["value"]
