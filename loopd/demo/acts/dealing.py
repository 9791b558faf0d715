"""Munich sells to Vienna: Offer, Match, Transfer and transaction, alike on both sides until it is paid (§4.6, §8.1)."""

import asyncio
import time
from typing import Final

from rich.text import Text

from loopd.demo.act import PATIENCE_S, Act, Facts, Play
from loopd.demo.acts.bidding import make_bid
from loopd.demo.acts.settling import BUYER, held, paid, show_held, show_paid
from loopd.demo.cast import BUYER_ACCOUNT, MUNICH, NEXT_MATERIAL_ID, PURCHASE, handover
from loopd.demo.page import Page, amount

_PATH: Final = f"/api/v1/material/{NEXT_MATERIAL_ID}"
# What belongs to a deal, in the order in which it comes to be.
_PARTS: Final = ("offer", "match", "transaction", "transfer")


async def _sell(play: Play) -> Facts:
    client, munich, buyer = play.client, play.munich, play.nodes.of(BUYER)

    async def hears() -> bool | None:
        heard = (await client.get(buyer, "/api/v1/federation/announcements"))["results"]
        return any(entry["subject"] == NEXT_MATERIAL_ID for entry in heard) or None

    async def has_bid() -> bool | None:
        return bool((await client.get(munich, f"{_PATH}/offers"))["offers"]) or None

    await client.until(buyer, "hears of the next batch", hears, PATIENCE_S)
    bid = await make_bid(play, PURCHASE, NEXT_MATERIAL_ID, BUYER_ACCOUNT)
    await client.until(munich, "has the bid for the next batch", has_bid, PATIENCE_S)
    answer = await client.post(munich, f"{_PATH}/select", {}, play.token)
    [sale] = (await client.get(munich, f"/api/v1/transaction?material={NEXT_MATERIAL_ID}"))["results"]
    match = await client.get(munich, f"/api/v1/match/{sale['match_id']}")
    play.deal = {"offer": match["offer_id"], "match": match["id"], "transaction": sale["transaction_id"]}
    return {
        "seller": MUNICH.node_id,
        "buyer": BUYER.node_id,
        "command": bid["command"],
        "request": f"POST {MUNICH.node_id}{_PATH}/select",
        "answer": answer.status,
        "selected": answer.value["selected"],
        "loop_cost": sale["transaction"]["offer"]["loop_cost"],
        "parts": await _same_on_both_sides(play, transaction="pending"),
        "payment": await held(play),
    }


async def _same_on_both_sides(play: Play, **expected: str) -> list[Facts]:
    """Wait until Vienna holds what Munich decided, and some of it is as expected; gives both."""
    buyer = play.nodes.of(BUYER)

    async def part(entity: str) -> Facts:
        entity_id = play.deal[entity]
        own = await play.client.get(play.munich, f"/api/v1/{entity}/{entity_id}")
        listed = (await play.client.get(buyer, f"/api/v1/mirror?entity={entity}&node={MUNICH.node_id}"))["results"]
        mirrored = next((entry for entry in listed if entry["id"] == entity_id), None)
        return {
            "entity": entity,
            "id": entity_id,
            MUNICH.node_id: {"status": own["status"], "version": own["version"]},
            BUYER.node_id: None if mirrored is None else {key: mirrored[key] for key in ("status", "version")},
        }

    async def look() -> list[Facts] | None:
        parts = await asyncio.gather(*(part(entity) for entity in _PARTS if entity in play.deal))
        alike = all(each[MUNICH.node_id] == each[BUYER.node_id] for each in parts)
        reached = all(
            each[MUNICH.node_id]["status"] == expected.get(each["entity"], each[MUNICH.node_id]["status"])
            for each in parts
        )
        return parts if alike and reached else None

    return await play.client.until(buyer, f"holds what {MUNICH.name} decided", look, PATIENCE_S)


async def _deliver(play: Play) -> Facts:
    client, munich, buyer = play.client, play.munich, play.nodes.of(BUYER)
    transfer = handover(time.time_ns() // 1_000_000, play.deal["match"])
    play.deal["transfer"] = transfer["id"]
    made = await client.post(munich, "/api/v1/transfer", transfer, play.token, "application/ld+json")
    sent_path = f"/api/v1/transfer/{transfer['id']}/status"
    sent = await client.post(munich, sent_path, {"status": "in_transit"}, play.token)
    under_way = await _same_on_both_sides(play, transfer="in_transit")
    words = ("mirror", "ask", str(buyer.directory), MUNICH.node_id, "transfer", transfer["id"], "completed")
    await play.nodes.json_command(buyer, *words)
    payment = await paid(play)
    delivered = await _same_on_both_sides(play, transfer="completed", transaction="completed")
    record = await client.get(munich, _PATH)
    return {
        "seller": MUNICH.node_id,
        "buyer": BUYER.node_id,
        "requests": [
            {"request": f"POST {MUNICH.node_id}/api/v1/transfer", "answer": made.status},
            {"request": f"POST {MUNICH.node_id}{sent_path}", "answer": sent.status},
        ],
        "command": play.nodes.shown(*words),
        "under_way": under_way,
        "delivered": delivered,
        "payment": payment,
        "material": {"id": record["id"], "current_city": record["current_city"]},
    }


def _show_sale(page: Page, facts: Facts) -> None:
    page.command(facts["command"])
    page.request(facts["request"], str(facts["answer"]))
    cost = amount(facts["loop_cost"])
    page.put(Text.assemble("selected: ", (facts["selected"], "bold green"), f", LoopCost {cost}"))
    _show_parts(page, facts, facts["parts"])
    page.say("Munich, which sells, alone decides on these; Vienna holds each version as Munich tells it.")
    show_held(page, facts["payment"])


def _show_delivery(page: Page, facts: Facts) -> None:
    for each in facts["requests"]:
        page.request(each["request"], str(each["answer"]))
    _show_parts(page, facts, facts["under_way"])
    page.command(facts["command"])
    _show_parts(page, facts, facts["delivered"])
    page.say(f"The goods have come: in Munich's registry too they are now in {facts['material']['current_city']}.")
    show_paid(page, facts["payment"])


def _show_parts(page: Page, facts: Facts, parts: list[Facts]) -> None:
    rows = [
        (each["entity"], each["id"], *(_standing(each[facts[side]]) for side in ("seller", "buyer"))) for each in parts
    ]
    page.table(("part", "id", f"at {facts['seller']}", f"at {facts['buyer']}"), rows)


def _standing(standing: Facts) -> str:
    return f"{standing['status']} (v{standing['version']})"


SELL: Final = Act("sell", "Munich sells the next batch to Vienna, and the money is held", _sell, _show_sale)
DELIVER: Final = Act("deliver", "It goes to Vienna, and is paid once it is there", _deliver, _show_delivery)
