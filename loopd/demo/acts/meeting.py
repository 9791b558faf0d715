"""Three nodes start, and become peers in a chain."""

import asyncio
from typing import Final

from loopd.crypto.keys import PublicKey
from loopd.demo.act import Act, Facts, Play
from loopd.demo.cast import CATEGORY, CITIES, HANDSHAKES, City
from loopd.demo.page import Page, percent, short

START_PATIENCE_S: Final = 40.0


async def _start(play: Play) -> Facts:
    async def look(city: City) -> Facts:
        node = play.nodes.of(city)
        await play.client.until_up(node, START_PATIENCE_S)
        card = await play.client.get(node, "/api/v1/node/info")
        published = await play.client.get(node, "/api/v1/signals")
        return {
            "node": card["id"],
            "address": node.address,
            "fingerprint": PublicKey.from_pem(card["public_key"]).fingerprint,
            "signal": published["signals"][CATEGORY],
            "pid": None if node.process is None else node.process.pid,
            "directory": str(node.directory),
        }

    return {"category": CATEGORY, "nodes": await asyncio.gather(*map(look, CITIES))}


def _show_start(page: Page, facts: Facts) -> None:
    page.say("`loopd init` and `loopd run` for each: its own process, key and database. They speak TLS 1.3.")
    rows = [
        (node["node"], node["address"], short(node["fingerprint"]), percent(node["signal"])) for node in facts["nodes"]
    ]
    page.table(("node", "address", "fingerprint of its key", ">its signal"), rows)
    page.say(f"The signal is what a city voted to add to the price when {facts['category']} leaves or enters.")


async def _shake_hands(play: Play) -> Facts:
    async def shake(caller: City, called: City) -> Facts:
        node, url = play.nodes.of(caller), play.nodes.of(called).endpoint
        words = ("peer", "add", str(node.directory), url)
        answer = await play.nodes.json_command(node, *words)
        return {
            "from": caller.node_id,
            "to": answer["peer"]["id"],
            "status": answer["status"],
            "own_fingerprint": answer["own_fingerprint"],
            "peer_fingerprint": answer["peer_fingerprint"],
            "command": play.nodes.shown(*words),
        }

    return {"links": await asyncio.gather(*(shake(*pair) for pair in HANDSHAKES))}


def _show_hands(page: Page, facts: Facts) -> None:
    for link in facts["links"]:
        page.command(link["command"])
    rows = [(link["from"], link["to"], short(link["peer_fingerprint"]), link["status"]) for link in facts["links"]]
    page.table(("node", "its peer", "shows the key", "handshake"), rows)
    page.say("Munich and Berlin have not met: what they know of each other, they know through Vienna.")


START: Final = Act("start", "Three nodes start", _start, _show_start)
HANDSHAKE: Final = Act("handshake", "They shake hands, in a chain: Munich, Vienna, Berlin", _shake_hands, _show_hands)
