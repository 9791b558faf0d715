"""Munich votes on its signal, and the next bid costs more (§6, §12.2)."""

import time
from decimal import Decimal
from typing import Final

from rich.text import Text

from loopd.demo.act import PATIENCE_S, Act, Facts, Play
from loopd.demo.acts.bidding import make_bid
from loopd.demo.cast import (
    CATEGORY,
    CITY_BIDS,
    MUNICH,
    NEXT_MATERIAL_ID,
    VOTE_RESULT,
    signal_proposal,
    spent_grain,
)
from loopd.demo.page import Page, amount, percent

# The vote of a demonstration is short.
VOTING_WINDOW_MS: Final = 1_500


async def _vote(play: Play) -> Facts:
    client, munich, proposals = play.client, play.munich, "/api/v1/signals/proposals"
    opens_ms = time.time_ns() // 1_000_000
    proposal = signal_proposal(opens_ms, opens_ms + VOTING_WINDOW_MS)
    vote_id = (await client.post(munich, proposals, proposal, play.token)).value["vote_id"]
    # While people vote the next batch is registered: its rings have to reach the bidder.
    document = spent_grain(opens_ms, NEXT_MATERIAL_ID)
    await client.post(munich, "/api/v1/material", document, play.token, "application/ld+json")

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
        "results": certified.value["results"],
        "requests": [f"POST {MUNICH.node_id}{place}" for place in (proposals, f"{path}/result", f"{path}/certify")],
        "signals": [MUNICH.signal, signal],
        "bids": [play.first_bid, await _bid_for_the_next_batch(play, signal)],
    }


async def _bid_for_the_next_batch(play: Play, signal: Decimal) -> Facts:
    """What the same bid costs the same city after the vote."""
    of = CITY_BIDS[0]
    bidder = play.nodes.of(of.city)

    async def ready() -> bool | None:
        heard = (await play.client.get(bidder, "/api/v1/federation/announcements"))["results"]
        peers = (await play.client.get_as_operator(bidder, "/admin/v1/signals/peers"))["peers"]
        knows = any(
            peer["node"] == MUNICH.node_id and peer["configuration"]["signals"][CATEGORY] == signal
            for peer in peers
            if peer["configuration"] is not None
        )
        return (knows and any(entry["subject"] == NEXT_MATERIAL_ID for entry in heard)) or None

    await play.client.until(bidder, "hears of the vote and of the next batch", ready, PATIENCE_S)
    return await make_bid(play, of, NEXT_MATERIAL_ID)


def _show_vote(page: Page, facts: Facts) -> None:
    results, (before, after) = facts["results"], facts["signals"]
    for request in facts["requests"]:
        page.request(request, "taken")
    counts = f"{results['votes_for']:,} for, {results['votes_against']:,} against: {results['status']}"
    page.say(f"{results['total_voted']:,} of {results['total_eligible']:,} voted, {counts}.")
    rows = [
        (when, percent(signal), amount(bid["breakdown"]["export"]), Text(amount(bid["loop_cost"]), style="bold"))
        for when, signal, bid in zip(("before", "after"), (before, after), facts["bids"], strict=True)
    ]
    page.table((f"{facts['bids'][0]['from']}'s bid", ">Munich's signal", ">export", ">LoopCost"), rows)
    page.say("`loopd vote verify` recomputes the outcome from the vote's published record.")


VOTE: Final = Act("vote", "Munich votes to keep more of it, and the next bid costs more", _vote, _show_vote)
