"""Munich votes on its signal, and what leaves it costs more (§6, §12.2)."""

import time
from decimal import Decimal
from typing import Final

from rich.text import Text

from loopd.demo.act import PATIENCE_S, Act, Facts, Play
from loopd.demo.cast import CATEGORY, MUNICH, PURCHASE, VOTE_RESULT, signal_proposal
from loopd.demo.page import Page, amount, percent

# The vote of a demonstration is short.
VOTING_WINDOW_MS: Final = 1_000
SCOPES: Final = "material:write,offer:write,admin"


async def _vote(play: Play) -> Facts:
    client, munich, proposals = play.client, play.munich, "/api/v1/signals/proposals"
    words = ("token", "create", str(munich.directory), "--scope", SCOPES)
    play.token = (await play.nodes.command(munich, *words)).decode().strip()
    opens_ms = time.time_ns() // 1_000_000
    proposal = signal_proposal(opens_ms, opens_ms + VOTING_WINDOW_MS)
    vote_id = (await client.post(munich, proposals, proposal, play.token)).value["vote_id"]
    before = await _cost_elsewhere(play, MUNICH.signal)

    async def closed() -> bool | None:
        return (await client.get(munich, f"{proposals}/{vote_id}"))["status"] == "closed" or None

    await client.until(munich, "closes the vote", closed, PATIENCE_S)
    path = f"/api/v1/signals/votes/{vote_id}"
    await client.post(munich, f"{path}/result", VOTE_RESULT, play.token)
    certified = await client.post(munich, f"{path}/certify", {}, play.token)
    signal = (await client.get(munich, "/api/v1/signals"))["signals"][CATEGORY]
    return {
        "node": MUNICH.node_id,
        "category": CATEGORY,
        "token_command": play.nodes.shown(*words),
        "results": certified.value["results"],
        "requests": [f"POST {MUNICH.node_id}{place}" for place in (proposals, f"{path}/result", f"{path}/certify")],
        "signals": [MUNICH.signal, signal],
        "costs": [before, await _cost_elsewhere(play, signal)],
    }


async def _cost_elsewhere(play: Play, signal: Decimal) -> Facts:
    """What a price comes to by the reckoning of another city, once it knows of Munich's signal."""
    city = PURCHASE.city
    node = play.nodes.of(city)
    question = {
        "base_price": PURCHASE.base_price,
        "category": CATEGORY,
        "origin": MUNICH.node_id,
        "destination": city.node_id,
        "distance_km": PURCHASE.distance_km,
    }

    async def look() -> Facts | None:
        peers = (await play.client.get_as_operator(node, "/admin/v1/signals/peers"))["peers"]
        if not any(peer["node"] == MUNICH.node_id and peer["configuration"] is not None for peer in peers):
            return None
        answer = (await play.client.post(node, "/api/v1/loopcost", question)).value
        return dict(answer) if answer["origin"]["signal"] == signal else None

    answer = await play.client.until(node, f"reckons with {MUNICH.name}'s signal {signal}", look, PATIENCE_S)
    [result] = answer["results"]
    return {
        "by": city.node_id,
        "base_price": answer["base_price"],
        "breakdown": result["breakdown"],
        "loop_cost": result["loop_cost"],
    }


def _show_vote(page: Page, facts: Facts) -> None:
    results, (before, after) = facts["results"], facts["signals"]
    page.command(facts["token_command"])
    for request in facts["requests"]:
        page.request(request, "taken")
    counts = f"{results['votes_for']:,} for, {results['votes_against']:,} against: {results['status']}"
    page.say(f"{results['total_voted']:,} of {results['total_eligible']:,} voted, {counts}.")
    rows = [
        (
            when,
            percent(signal),
            amount(cost["base_price"]),
            amount(cost["breakdown"]["export"]),
            Text(amount(cost["loop_cost"]), style="bold"),
        )
        for when, signal, cost in zip(("before", "after"), (before, after), facts["costs"], strict=True)
    ]
    reckons = f"{facts['costs'][0]['by']} reckons"
    page.table((reckons, ">Munich's signal", ">price", ">export", ">LoopCost"), rows)
    page.say("`loopd vote verify` recomputes the outcome from the vote's published record.")


VOTE: Final = Act("vote", "Munich's citizens vote to keep more organic food in the city", _vote, _show_vote)
