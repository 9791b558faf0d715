"""What lies between both cities: signed by both as one run, then paid from reserve to reserve."""

import asyncio
from typing import Final

from loopd.demo.act import PATIENCE_S, Act, Facts, Play
from loopd.demo.acts.settling import BUYER, SIDES, between
from loopd.demo.cast import BACKED_BY, MUNICH, PAYMENT_REFERENCE, City
from loopd.demo.page import Page, amount


async def _discharge(play: Play) -> Facts:
    """Munich's id is the smaller one, so it proposes the run; Vienna bought, so it pays."""
    before = await asyncio.gather(*(_standing(play, city) for city in SIDES))
    proposing = _words(play, MUNICH, "propose", BUYER)
    number = (await play.nodes.json_command(play.munich, *proposing))["run"]
    run = await _signed(play, number)
    paying = _words(play, BUYER, "pay", MUNICH, str(number), PAYMENT_REFERENCE)
    discharge_id = (await play.nodes.json_command(play.nodes.of(BUYER), *paying))["id"]
    await _announced(play, discharge_id)
    confirming = _words(play, MUNICH, "confirm", BUYER, discharge_id)
    discharge = await play.nodes.json_command(play.munich, *confirming)
    await _nothing_owed(play)
    after = await asyncio.gather(*(_standing(play, city) for city in SIDES))
    return {
        "commands": [play.nodes.shown(*words) for words in (proposing, paying, confirming)],
        "run": run,
        "discharge": discharge,
        "before": before,
        "after": after,
    }


def _words(play: Play, city: City, verb: str, peer: City, *rest: str) -> tuple[str, ...]:
    return ("clearing", verb, str(play.nodes.of(city).directory), peer.node_id, *rest)


async def _standing(play: Play, city: City) -> Facts:
    """What a city owes the other one, and what it has in its reserve."""
    figures = await play.client.get_as_operator(play.nodes.of(city), "/api/v1/loopcoin/issuance")
    owed = (await between(play, city))["owes"]
    return {"node": city.node_id, "currency": city.currency_code, "owes": owed, "reserve": figures["reserve"]}


async def _signed(play: Play, number: int) -> Facts:
    """The run, once both have signed it: what is to be paid for it, and who signed."""
    path = f"/api/v1/loopcoin/clearing/{BUYER.node_id}/runs"

    async def look() -> Facts | None:
        runs = (await play.client.get_as_operator(play.munich, path))["results"]
        return next((run for run in runs if run["run"] == number and run["state"] == "agreed"), None)

    run = await play.client.until(play.munich, f"and {BUYER.node_id} have signed run {number}", look, PATIENCE_S)
    document = await play.client.get_as_operator(play.munich, f"{path}/{number}")
    signatures = {node_id: each["key_id"] for node_id, each in document["signatures"].items()}
    return {**run, "payments": len(document["transfers"]), "signatures": signatures}


async def _announced(play: Play, discharge_id: str) -> None:
    path = f"/api/v1/loopcoin/clearing/{BUYER.node_id}/discharges"

    async def look() -> bool | None:
        found = (await play.client.get_as_operator(play.munich, path))["results"]
        return any(each["id"] == discharge_id for each in found) or None

    await play.client.until(play.munich, f"has heard of {BUYER.node_id}'s payment", look, PATIENCE_S)


async def _nothing_owed(play: Play) -> None:
    async def look() -> bool | None:
        return (await between(play, BUYER))["owes"] == 0 or None

    await play.client.until(play.nodes.of(BUYER), "has heard that its payment came", look, PATIENCE_S)


def _show(page: Page, facts: Facts) -> None:
    proposing, paying, confirming = facts["commands"]
    run = facts["run"]
    page.command(proposing)
    payments = f"{run['payments']} payment{'' if run['payments'] == 1 else 's'}"
    signers = " and ".join(f"{node_id} ({key_id})" for node_id, key_id in run["signatures"].items())
    page.say(f"Run {run['run']}, {payments}, signed by {signers}.")
    for claim in run["claims"]:
        page.say(f"{claim['debtor']} is to pay {amount(claim['amount'])} {BACKED_BY} to {claim['creditor']}.")
    page.command(paying)
    page.command(confirming)
    rows = [
        (before["node"], amount(before["owes"]), amount(after["owes"]), before["currency"],
         amount(before["reserve"]), amount(after["reserve"]), BACKED_BY)
        for before, after in zip(facts["before"], facts["after"], strict=True)
    ]  # fmt: skip
    page.table(("city", ">owes", ">now", "currency", ">reserve", ">now", "currency"), rows)
    page.say("The bank pays outside; the books follow once the city that is paid has seen the money.")


DISCHARGE: Final = Act(
    "discharge", "Both cities sign what lies between them, and Vienna's reserve pays it", _discharge, _show
)
