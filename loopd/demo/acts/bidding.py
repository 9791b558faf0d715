"""Cities and a farm bid, Munich ranks the bids and selects one, and everybody is told (§3.3, §12.1)."""

import asyncio
from decimal import Decimal
from typing import Any, Final

from rich.text import Text

from loopd.demo.act import PATIENCE_S, Act, Facts, Play
from loopd.demo.cast import (
    CATEGORY,
    CITIES,
    CITY_BIDS,
    FARM,
    FARM_PRICE,
    LISTENERS,
    MATERIAL_ID,
    MUNICH,
    City,
    CityBid,
)
from loopd.demo.page import Page, amount, percent

_PATH: Final = f"/api/v1/material/{MATERIAL_ID}"


async def make_bid(play: Play, of: CityBid, material_id: str, buyer_account: str | None = None) -> Facts:
    """A city bids for a batch of Munich's: the command, and what its node computed. The account is who pays."""
    node = play.nodes.of(of.city)
    wish = (material_id, str(of.base_price), "--distance-km", str(of.distance_km))
    paying = () if buyer_account is None else ("--buyer-account", buyer_account)
    words = ("offer", "make", str(node.directory), *wish, *paying)
    made = await play.nodes.json_command(node, *words)
    return {
        "from": made["from"],
        "distance_km": Decimal(made["distance_km"]),
        "breakdown": made["breakdown"],
        "loop_cost": made["loop_cost"],
        "command": play.nodes.shown(*words),
    }


async def _bid(play: Play) -> Facts:
    signals = await asyncio.gather(*(play.client.get(play.nodes.of(city), "/api/v1/signals") for city in CITIES))
    signal = {city.node_id: each["signals"][CATEGORY] for city, each in zip(CITIES, signals, strict=True)}

    async def bid(of: CityBid) -> Facts:
        made = await make_bid(play, of, MATERIAL_ID)
        return {"export_signal": signal[MUNICH.node_id], "import_signal": signal[of.city.node_id], **made}

    cities = await asyncio.gather(*map(bid, CITY_BIDS))
    path = f"{_PATH}/offers"
    answer = await play.client.post(play.munich, path, {"bidder": FARM, "base_price": FARM_PRICE}, play.token)
    local = {
        "from": answer.value["from"],
        "breakdown": answer.value["breakdown"],
        "loop_cost": answer.value["loop_cost"],
        "request": f"POST {MUNICH.node_id}{path}",
        "answer": answer.status,
    }
    return {"bids": [*cities, local]}


def _show_bids(page: Page, facts: Facts) -> None:
    for bid in facts["bids"]:
        if "command" in bid:
            page.command(bid["command"])
        else:
            page.request(bid["request"], str(bid["answer"]))
    rows = []
    for bid in facts["bids"]:
        parts = bid["breakdown"]
        crosses = "distance_km" in bid
        rows.append(
            (
                bid["from"],
                amount(parts["base"]),
                _part(parts["export"], percent(bid["export_signal"])) if crosses else "",
                _part(parts["import"], percent(bid["import_signal"])) if crosses else "",
                _part(parts["distance"], f"{bid['distance_km']} km") if crosses else "",
                Text(amount(bid["loop_cost"]), style="bold"),
            )
        )
    page.table(("bidder", ">price", ">+ export", ">+ import", ">+ distance", ">= LoopCost"), rows)
    page.say("Export is Munich's signal, import the bidder's own; a kilometre costs 0.02 LC.")
    page.say("Within a city the price alone counts.")


def _part(amount_lc: Decimal, origin: str) -> Text:
    return Text.assemble((f"{origin}  ", "dim"), amount(amount_lc))


async def _rank(play: Play) -> Facts:
    expected = len(CITY_BIDS) + 1

    async def look() -> list[Facts] | None:
        offers: list[Facts] = (await play.client.get(play.munich, f"{_PATH}/offers"))["offers"]
        return offers if len(offers) == expected else None

    offers = await play.client.until(play.munich, f"has all {expected} bids", look, PATIENCE_S)
    return {"node": MUNICH.node_id, "offers": list(map(_ranked, offers))}


def _ranked(offer: Facts) -> Facts:
    """A bid as the owner's node ranks it; the reason says why it stands in its place."""
    keys = ("rank", "from", "breakdown", "loop_cost", "claimed_loop_cost", "verified", "reason", "status")
    return {key: offer[key] for key in keys if key in offer}


def _show_ranking(page: Page, facts: Facts) -> None:
    rows = []
    for offer in facts["offers"]:
        parts = offer["breakdown"] or {}
        rows.append(
            (
                "–" if offer["rank"] is None else str(offer["rank"]),
                offer["from"],
                *(amount(parts.get(part)) for part in ("base", "export", "import", "distance")),
                Text(amount(offer["loop_cost"]), style="bold"),
                _why(offer, offer.get("claimed_loop_cost")),
            )
        )
    page.table((">rank", "bidder", ">base", ">export", ">import", ">distance", ">LoopCost", "reason"), rows)


def _why(offer: Facts, claimed: Decimal | None) -> str:
    """Why a bid stands where it does."""
    if offer["reason"] is not None:
        return str(offer["reason"])
    if claimed is None:
        return f"local to {MUNICH.name}"
    return "figures agree" if claimed == offer["loop_cost"] else f"bidder says {amount(claimed)}"


async def _select(play: Play) -> Facts:
    path = f"{_PATH}/select"
    answer = await play.client.post(play.munich, path, {}, play.token)
    record = await play.client.get(play.munich, _PATH)
    return {
        "node": MUNICH.node_id,
        "request": f"POST {MUNICH.node_id}{path}",
        "answer": answer.status,
        "selected": answer.value["selected"],
        "reason": answer.value["reason"],
        "offers": [{key: each[key] for key in ("from", "loop_cost", "status")} for each in answer.value["offers"]],
        "material": {"id": record["id"], "availability": record["availability"]["status"]},
    }


def _show_selection(page: Page, facts: Facts) -> None:
    page.request(facts["request"], str(facts["answer"]))
    page.put(Text.assemble("selected: ", (facts["selected"], "bold green"), f", reason: {facts['reason']}"))
    page.say(f"The material is now {facts['material']['availability']}.")


async def _tell(play: Play) -> Facts:
    async def told(of: CityBid) -> Facts:
        node = play.nodes.of(of.city)

        async def look() -> Facts | None:
            for bid in (await play.client.get_as_operator(node, "/admin/v1/offers"))["results"]:
                if bid["material"] == MATERIAL_ID and bid["status"] in ("selected", "declined"):
                    return dict(bid)
            return None

        bid = await play.client.until(node, "learns what became of its bid", look, PATIENCE_S)
        return {"node": of.city.node_id, "status": bid["status"], "reason": bid["reason"]}

    async def hears(city: City) -> Facts:
        node = play.nodes.of(city)

        async def look() -> Facts | None:
            for entry in (await play.client.get(node, "/api/v1/federation/announcements"))["results"]:
                if entry["subject"] == MATERIAL_ID and not entry["available"]:
                    return {key: entry[key] for key in ("available", "via", "verified")}
            return None

        heard = await play.client.until(node, "hears that it is no longer available", look, PATIENCE_S)
        return {"node": city.node_id, **heard}

    bidders, heard = await asyncio.gather(asyncio.gather(*map(told, CITY_BIDS)), asyncio.gather(*map(hears, LISTENERS)))
    return {"bidders": bidders, "heard": heard}


def _show_telling(page: Page, facts: Facts) -> None:
    decided: dict[str, Any] = {entry["node"]: entry for entry in facts["bidders"]}
    rows = [
        (
            entry["node"],
            Text(decided[entry["node"]]["status"], style="yellow"),
            str(decided[entry["node"]]["reason"]),
            "yes" if entry["available"] else "no",
            entry["via"],
        )
        for entry in facts["heard"]
    ]
    page.table(("node", "its bid", "because", "available", "heard from"), rows)


BID: Final = Act("bid", "Who wants it computes the LoopCost, and bids", _bid, _show_bids)
RANK: Final = Act("rank", "Munich ranks the bids by its own reckoning", _rank, _show_ranking)
SELECT: Final = Act("select", "Munich selects", _select, _show_selection)
TELL: Final = Act("tell", "Everybody is told", _tell, _show_telling)
