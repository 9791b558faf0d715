"""The flow of §12.1, and a vote after it: nine steps, each giving what it saw as JSON. The nodes decide and compute."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final, Protocol

from loopd.crypto.keys import PublicKey
from loopd.demo.cast import (
    BERLIN,
    CATEGORY,
    CITIES,
    CITY_BIDS,
    FARM,
    FARM_PRICE,
    HANDSHAKES,
    MATERIAL_ID,
    MUNICH,
    NEXT_MATERIAL_ID,
    VIENNA,
    VOTE_RESULT,
    City,
    CityBid,
    signal_proposal,
    spent_grain,
)
from loopd.demo.client import Client
from loopd.demo.nodes import Nodes
from loopd.protocol.limits import FLOOD_TTL_MAX
from loopd.protocol.timestamps import parse_timestamp

Facts = dict[str, Any]

START_PATIENCE_S: Final = 40.0
PATIENCE_S: Final = 20.0
MATERIAL_PATH: Final = f"/api/v1/material/{MATERIAL_ID}"
SCOPES: Final = "material:write,offer:write,admin"
# The vote of a demonstration is short.
VOTING_WINDOW_MS: Final = 1_500

_LISTENERS: Final = (VIENNA, BERLIN)


class Step(StrEnum):
    """What happens, in order."""

    START = "start"
    HANDSHAKE = "handshake"
    REGISTER = "register"
    HEAR = "hear"
    BID = "bid"
    RANK = "rank"
    SELECT = "select"
    TELL = "tell"
    VOTE = "vote"


class Audience(Protocol):
    """Who is shown each step: before it happens, and what came of it."""

    def begins(self, step: Step) -> None: ...

    def happened(self, step: Step, facts: Facts) -> None: ...


class Scenario:
    """Plays the steps on nodes that are not set up yet."""

    def __init__(self, nodes: Nodes, audience: Audience) -> None:
        self._nodes = nodes
        self._audience = audience
        self._token = ""
        self._registered_at_ms = 0
        self._first_bid: Facts = {}

    async def play(self) -> list[Facts]:
        """Every step's facts. DemoFailed where one does not come out."""
        self._audience.begins(Step.START)
        await self._nodes.set_up()
        self._nodes.start()
        async with Client(self._nodes) as client:
            acts: Sequence[tuple[Step, Callable[[Client], Awaitable[Facts]]]] = (
                (Step.START, self._start),
                (Step.HANDSHAKE, self._shake_hands),
                (Step.REGISTER, self._register),
                (Step.HEAR, self._hear),
                (Step.BID, self._bid),
                (Step.RANK, self._rank),
                (Step.SELECT, self._select),
                (Step.TELL, self._tell),
                (Step.VOTE, self._vote),
            )
            played = []
            for step, act in acts:
                if step is not Step.START:
                    self._audience.begins(step)
                facts = await act(client)
                self._audience.happened(step, facts)
                played.append({"step": step.value, **facts})
            return played

    async def _start(self, client: Client) -> Facts:
        async def look(city: City) -> Facts:
            node = self._nodes.of(city)
            await client.until_up(node, START_PATIENCE_S)
            card = await client.get(node, "/api/v1/node/info")
            published = await client.get(node, "/api/v1/signals")
            return {
                "node": card["id"],
                "address": node.address,
                "fingerprint": PublicKey.from_pem(card["public_key"]).fingerprint,
                "signal": published["signals"][CATEGORY],
                "pid": None if node.process is None else node.process.pid,
                "directory": str(node.directory),
            }

        return {"category": CATEGORY, "nodes": await asyncio.gather(*map(look, CITIES))}

    async def _shake_hands(self, _: Client) -> Facts:
        async def shake(caller: City, called: City) -> Facts:
            node, url = self._nodes.of(caller), self._nodes.of(called).endpoint
            words = ("peer", "add", str(node.directory), url)
            answer = await self._nodes.json_command(node, *words)
            return {
                "from": caller.node_id,
                "to": answer["peer"]["id"],
                "status": answer["status"],
                "own_fingerprint": answer["own_fingerprint"],
                "peer_fingerprint": answer["peer_fingerprint"],
                "command": self._nodes.shown(*words),
            }

        return {"links": await asyncio.gather(*(shake(*pair) for pair in HANDSHAKES))}

    async def _register(self, client: Client) -> Facts:
        munich = self._nodes.of(MUNICH)
        words = ("token", "create", str(munich.directory), "--scope", SCOPES)
        self._token = (await self._nodes.command(munich, *words)).decode().strip()
        now_ms = time.time_ns() // 1_000_000
        document = spent_grain(now_ms)
        self._registered_at_ms = now_ms
        answer = await client.post(munich, "/api/v1/material", document, self._token, "application/ld+json")
        record = answer.value
        return {
            "node": MUNICH.node_id,
            "request": f"POST {MUNICH.node_id}/api/v1/material",
            "token_command": self._nodes.shown(*words),
            "answer": answer.status,
            "id": record["id"],
            "status": record["status"],
            "category": record["category"],
            "quantity": record["quantity"],
            "expires": record["expires"],
        }

    async def _hear(self, client: Client) -> Facts:
        return {"material": MATERIAL_ID, "heard": await self._all_hear(client, available=True)}

    async def _all_hear(self, client: Client, *, available: bool) -> list[Facts]:
        async def listen(city: City) -> Facts:
            node = self._nodes.of(city)

            async def look() -> Facts | None:
                for entry in (await client.get(node, "/api/v1/federation/announcements"))["results"]:
                    if entry["subject"] == MATERIAL_ID and entry["available"] is available:
                        return dict(entry)
                return None

            what = "hears that it is available" if available else "hears that it is no longer available"
            entry = await client.until(node, what, look, PATIENCE_S)
            return {
                "node": city.node_id,
                # Who receives the full TTL got it from the origin itself.
                "hop": FLOOD_TTL_MAX + 1 - entry["ttl"],
                **{key: entry[key] for key in ("ttl", "via", "verified", "available", "received_at", "message_id")},
                "after_ms": parse_timestamp(entry["received_at"]) - self._registered_at_ms,
            }

        return await asyncio.gather(*map(listen, _LISTENERS))

    async def _bid(self, client: Client) -> Facts:
        signals = await asyncio.gather(
            *(client.get(self._nodes.of(city), "/api/v1/signals") for city in CITIES),
        )
        signal = {city.node_id: each["signals"][CATEGORY] for city, each in zip(CITIES, signals, strict=True)}

        async def bid(of: CityBid) -> Facts:
            made = await self._make_bid(of, MATERIAL_ID)
            return {"export_signal": signal[MUNICH.node_id], "import_signal": signal[of.city.node_id], **made}

        cities = await asyncio.gather(*map(bid, CITY_BIDS))
        self._first_bid = cities[0]
        munich, path = self._nodes.of(MUNICH), f"{MATERIAL_PATH}/offers"
        answer = await client.post(munich, path, {"bidder": FARM, "base_price": FARM_PRICE}, self._token)
        local = {
            "from": answer.value["from"],
            "breakdown": answer.value["breakdown"],
            "loop_cost": answer.value["loop_cost"],
            "request": f"POST {MUNICH.node_id}{path}",
            "answer": answer.status,
        }
        return {"bids": [*cities, local]}

    async def _rank(self, client: Client) -> Facts:
        munich = self._nodes.of(MUNICH)
        expected = len(CITY_BIDS) + 1

        async def look() -> list[Facts] | None:
            offers: list[Facts] = (await client.get(munich, f"{MATERIAL_PATH}/offers"))["offers"]
            return offers if len(offers) == expected else None

        offers = await client.until(munich, f"has all {expected} bids", look, PATIENCE_S)
        return {"node": MUNICH.node_id, "offers": list(map(_ranked, offers))}

    async def _select(self, client: Client) -> Facts:
        munich, path = self._nodes.of(MUNICH), f"{MATERIAL_PATH}/select"
        answer = await client.post(munich, path, {}, self._token)
        record = await client.get(munich, MATERIAL_PATH)
        return {
            "node": MUNICH.node_id,
            "request": f"POST {MUNICH.node_id}{path}",
            "answer": answer.status,
            "selected": answer.value["selected"],
            "reason": answer.value["reason"],
            "offers": [{key: each[key] for key in ("from", "loop_cost", "status")} for each in answer.value["offers"]],
            "material": {"id": record["id"], "availability": record["availability"]["status"]},
        }

    async def _tell(self, client: Client) -> Facts:
        async def told(of: CityBid) -> Facts:
            node = self._nodes.of(of.city)

            async def look() -> Facts | None:
                for bid in (await client.get_as_operator(node, "/admin/v1/offers"))["results"]:
                    if bid["material"] == MATERIAL_ID and bid["status"] in ("selected", "declined"):
                        return dict(bid)
                return None

            bid = await client.until(node, "learns what became of its bid", look, PATIENCE_S)
            return {"node": of.city.node_id, "status": bid["status"], "reason": bid["reason"]}

        losers, heard = await asyncio.gather(
            asyncio.gather(*map(told, CITY_BIDS)), self._all_hear(client, available=False)
        )
        return {"bidders": losers, "heard": heard}

    async def _vote(self, client: Client) -> Facts:
        munich, proposals = self._nodes.of(MUNICH), "/api/v1/signals/proposals"
        opens_ms = time.time_ns() // 1_000_000
        proposal = signal_proposal(opens_ms, opens_ms + VOTING_WINDOW_MS)
        vote_id = (await client.post(munich, proposals, proposal, self._token)).value["vote_id"]

        async def closed() -> bool | None:
            return (await client.get(munich, f"{proposals}/{vote_id}"))["status"] == "closed" or None

        await client.until(munich, "closes the vote", closed, PATIENCE_S)
        path = f"/api/v1/signals/votes/{vote_id}"
        await client.post(munich, f"{path}/result", VOTE_RESULT, self._token)
        certified = await client.post(munich, f"{path}/certify", {}, self._token)
        published = await client.get(munich, "/api/v1/signals")
        return {
            "node": MUNICH.node_id,
            "category": CATEGORY,
            "results": certified.value["results"],
            "requests": [f"POST {MUNICH.node_id}{place}" for place in (proposals, f"{path}/result", f"{path}/certify")],
            "signals": [MUNICH.signal, published["signals"][CATEGORY]],
            "bids": [self._first_bid, await self._bid_for_the_next_batch(client, published["signals"][CATEGORY])],
        }

    async def _bid_for_the_next_batch(self, client: Client, signal: Decimal) -> Facts:
        """What the same bid costs the same city after the vote."""
        of, munich = CITY_BIDS[0], self._nodes.of(MUNICH)
        bidder = self._nodes.of(of.city)
        document = spent_grain(time.time_ns() // 1_000_000, NEXT_MATERIAL_ID)
        await client.post(munich, "/api/v1/material", document, self._token, "application/ld+json")

        async def ready() -> bool | None:
            heard = (await client.get(bidder, "/api/v1/federation/announcements"))["results"]
            peers = (await client.get_as_operator(bidder, "/admin/v1/signals/peers"))["peers"]
            knows = any(
                peer["node"] == MUNICH.node_id and peer["configuration"]["signals"][CATEGORY] == signal
                for peer in peers
                if peer["configuration"] is not None
            )
            return (knows and any(entry["subject"] == NEXT_MATERIAL_ID for entry in heard)) or None

        await client.until(bidder, "hears of the vote and of the next batch", ready, PATIENCE_S)
        return await self._make_bid(of, NEXT_MATERIAL_ID)

    async def _make_bid(self, of: CityBid, material_id: str) -> Facts:
        node = self._nodes.of(of.city)
        wish = (material_id, str(of.base_price), "--distance-km", str(of.distance_km))
        words = ("offer", "make", str(node.directory), *wish)
        made = await self._nodes.json_command(node, *words)
        return {
            "from": made["from"],
            "distance_km": Decimal(made["distance_km"]),
            "breakdown": made["breakdown"],
            "loop_cost": made["loop_cost"],
            "command": self._nodes.shown(*words),
        }


def _ranked(offer: Facts) -> Facts:
    """A bid as the owner's node ranks it; the reason says why it stands in its place."""
    keys = ("rank", "from", "breakdown", "loop_cost", "claimed_loop_cost", "verified", "reason", "status")
    return {key: offer[key] for key in keys if key in offer}
