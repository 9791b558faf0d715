"""Two batches are registered and announced: first nearby, then in wider and wider rings (§9.3)."""

import asyncio
import time
from functools import partial
from typing import Final

from rich.text import Text

from loopd.demo.act import PATIENCE_S, Act, Facts, Play
from loopd.demo.cast import LISTENERS, MATERIAL_ID, MUNICH, NEXT_MATERIAL_ID, RINGS, City, spent_grain
from loopd.demo.page import Page
from loopd.protocol.limits import FLOOD_TTL_MAX
from loopd.protocol.timestamps import parse_timestamp


async def _register(play: Play) -> Facts:
    play.registered_at_ms = time.time_ns() // 1_000_000

    async def register(material_id: str) -> Facts:
        document = spent_grain(play.registered_at_ms, material_id)
        answer = await play.client.post(play.munich, "/api/v1/material", document, play.token, "application/ld+json")
        kept = ("id", "status", "category", "quantity", "expires")
        paid_to = answer.value["metadata"]["seller_account"]
        return {"answer": answer.status, "seller_account": paid_to, **{key: answer.value[key] for key in kept}}

    return {
        "node": MUNICH.node_id,
        "request": f"POST {MUNICH.node_id}/api/v1/material",
        # One after the other: the rings of the first are what is watched.
        "materials": [await register(material_id) for material_id in (MATERIAL_ID, NEXT_MATERIAL_ID)],
    }


def _show_registration(page: Page, facts: Facts) -> None:
    rows = []
    for each in facts["materials"]:
        page.request(facts["request"], f"{each['answer']} {each['status']}")
        quantity, expires = each["quantity"], each["expires"]
        quantity_text, expires_text = f"{quantity['value']} {quantity['unit']}", f"{expires[:10]} {expires[11:16]} UTC"
        rows.append((each["id"], each["category"], quantity_text, expires_text))
    page.table(("material", "category", ">quantity", "expires"), rows)
    page.say(f"Each names who is paid: {facts['materials'][0]['seller_account']}. Watch the first.")


async def _open_ring(number: int, play: Play) -> Facts:
    """Wait until a ring has opened, and until nobody who holds its announcement has still to send it."""
    ring = RINGS[number]

    async def announced() -> str | None:
        for entry in play.munich.logged("announced"):
            if entry["subject"] == MATERIAL_ID and entry["radius_km"] == ring.radius_km:
                return str(entry["message_id"])
        return None

    message_id = await play.client.until(play.munich, f"opens its ring of {ring.radius_km} km", announced, PATIENCE_S)

    async def settled() -> dict[City, Facts] | None:
        holders = {}
        for city in (MUNICH, *LISTENERS):
            told = await play.client.find_as_operator(play.nodes.of(city), f"/admin/v1/messages/{message_id}")
            if told is not None and told["held"]:
                holders[city] = told
        waiting = any(entry["outcome"] == "waiting" for told in holders.values() for entry in told["peers"])
        return None if waiting else holders

    holders = await play.client.until(play.munich, f"and who hears it tell all of {message_id}", settled, PATIENCE_S)
    opened_at_ms = parse_timestamp(holders[MUNICH]["received_at"])
    hearing = [_heard(play, city, told, opened_at_ms) for city, told in holders.items() if city is not MUNICH]
    return {
        "material": MATERIAL_ID,
        "message_id": message_id,
        "radius_km": ring.radius_km,
        "opened_after_ms": opened_at_ms - play.registered_at_ms,
        "heard": await asyncio.gather(*hearing),
        "left_out": [
            {"node": entry["peer"], "by": city.node_id}
            for city, told in holders.items()
            for entry in told["peers"]
            if entry["reason"] == "outside_radius"
        ],
    }


async def _heard(play: Play, city: City, told: Facts, opened_at_ms: int) -> Facts:
    """How a city came to a message, out of what its node tells of it."""
    copy = next(copy for copy in told["copies"] if copy["reason"] == "accepted")
    listed = await play.client.get(play.nodes.of(city), "/api/v1/federation/announcements")
    return {
        "node": city.node_id,
        # Who receives the full TTL got it from the origin itself.
        "hop": FLOOD_TTL_MAX + 1 - copy["ttl"],
        "ttl": copy["ttl"],
        "via": copy["peer"],
        "verified": next(entry["verified"] for entry in listed["results"] if entry["subject"] == MATERIAL_ID),
        "after_ms": parse_timestamp(copy["first_at"]) - opened_at_ms,
    }


def _show_ring(last_words: str, page: Page, facts: Facts) -> None:
    page.say(f"The ring opened {facts['opened_after_ms'] / 1000:.1f} s after the registration.")
    rows = [
        (
            entry["node"],
            str(entry["hop"]),
            str(entry["ttl"]),
            entry["via"],
            Text("verified", style="green") if entry["verified"] else Text("not verified", style="red"),
            f"{entry['after_ms']} ms",
        )
        for entry in facts["heard"]
    ]
    if rows:
        page.table(("who heard it", ">hop", ">TTL", "from whom", "Munich's signature", ">after"), rows)
    for entry in facts["left_out"]:
        page.say(f"{entry['node']} lies outside: {entry['by']} does not send it there.")
    page.say(last_words)


REGISTER: Final = Act(
    "register", "Munich registers two batches of spent grain, 500 kg each", _register, _show_registration
)
INNER_RING: Final = Act(
    "inner-ring",
    "The announcement goes nearby first: a ring of 50 km",
    partial(_open_ring, 0),
    partial(_show_ring, "Nobody has heard of it, and nobody has taken it. So it flows over."),
)
MIDDLE_RING: Final = Act(
    "middle-ring",
    "Three seconds later, nobody selected yet: 400 km",
    partial(_open_ring, 1),
    partial(_show_ring, "Each ring is a new revision of the announcement, signed anew."),
)
OUTER_RING: Final = Act(
    "outer-ring",
    "And three seconds later: 1000 km",
    partial(_open_ring, 2),
    partial(_show_ring, "Vienna passed it on as Munich signed it, and Berlin checked that signature itself."),
)
