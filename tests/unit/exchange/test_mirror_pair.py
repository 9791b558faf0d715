"""Two nodes and a link that loses, repeats and reorders, either of them dying between any two writes."""

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.exchange.mirror_rules import ABSENCE_MS, WHOLE_COMPARISON_MS, EntityKey
from loopd.protocol.errors import Refusal
from loopd.protocol.lifecycle import MirroredEntity
from tests.mirror_support import DEAL, Crash, Link, MirrorNode, made_requests, mirrored_pair

ENTITIES = list(MirroredEntity)
STATUSES = sorted({status for entity in ENTITIES for status in entity.lifecycle.successors})

PLACES = st.integers(0, 40)
DEEDS = st.one_of(
    # The seller decides, as its lifecycle lets it.
    st.tuples(st.just("decide"), st.sampled_from(ENTITIES), PLACES),
    st.tuples(st.just("ask"), st.sampled_from(ENTITIES), st.sampled_from(STATUSES)),
    # Any line of either outbox, in any order: taken, taken with the answer lost, or given up.
    st.tuples(st.sampled_from(["deliver", "repeat", "lose"]), st.booleans(), PLACES),
    st.tuples(st.just("deliver"), st.booleans(), PLACES),
    # Either side dies and comes back; the buyer may die while it fetches, after any number of answers.
    st.tuples(st.just("crash"), st.booleans(), PLACES),
    st.tuples(st.just("fetch"), st.integers(0, 4), PLACES),
    st.tuples(st.just("cut"), st.booleans(), PLACES),
)


async def decide(munich: MirrorNode, entity: MirroredEntity, place: int) -> None:
    lifecycle = entity.lifecycle
    _, current = munich.deals.status(munich.database.points, entity)
    following = lifecycle.initial if current is None else lifecycle.successors[current]
    if following:
        await munich.decide(entity, following[place % len(following)])


async def ask(vienna: MirrorNode, entity: MirroredEntity, status: str) -> None:
    key = EntityKey("munich.loop", entity, DEAL[entity])
    with suppress(Refusal):
        await vienna.database.write(lambda tx: vienna.requests.ask(tx, key, status, None))


async def reopen(node: MirrorNode) -> None:
    await node.close()
    await node.open()


async def fetch(vienna: MirrorNode, link: Link, reads: int) -> None:
    """Fetch what is missing, and die after so many answers."""
    link.reads_until_crash = reads
    try:
        await vienna.keeper.work()
    except Crash:
        await reopen(vienna)
    finally:
        link.reads_until_crash = None


async def do(deed: tuple[Any, ...], munich: MirrorNode, vienna: MirrorNode, link: Link) -> None:
    match deed:
        case ("decide", entity, place):
            await decide(munich, entity, place)
        case ("ask", entity, status):
            await ask(vienna, entity, status)
        case ("deliver" | "repeat" | "lose" as way, of_munich, place):
            sender = munich if of_munich else vienna
            if way == "lose":
                await link.lose(sender, place)
            elif link.up:
                await link.deliver(sender, place, answered=way == "deliver")
        case ("crash", of_munich, _):
            await reopen(munich if of_munich else vienna)
        case ("fetch", reads, _):
            await fetch(vienna, link, reads)
        case ("cut", up, _):
            link.up = up


async def heal(munich: MirrorNode, vienna: MirrorNode, link: Link) -> None:
    """The link holds from now on, and time passes."""
    link.up = True
    munich.clock.advance(max(ABSENCE_MS, WHOLE_COMPARISON_MS))
    for sender in (vienna, munich):
        while sender.waiting():
            await link.deliver(sender, 0)
    await vienna.keeper.contacted("munich.loop")
    for _ in range(100):
        if not await vienna.keeper.work():
            return
    raise AssertionError("something stays due")


async def play(directory: Path, deeds: list[tuple[Any, ...]]) -> None:
    async with mirrored_pair(directory) as (munich, vienna, link):
        for deed in deeds:
            await do(deed, munich, vienna, link)
            munich.clock.advance(1)
            for entity in ENTITIES:
                # What is held was told, and never runs ahead.
                held, told = vienna.held(entity), munich.told(entity)
                assert held is None or (told is not None and held[0] <= told[0])
        await heal(munich, vienna, link)
        for entity in ENTITIES:
            assert vienna.held(entity) == munich.told(entity), entity
        assert vienna.gaps() == []
        assert all(state != "queued" for _, state, _ in made_requests(vienna))


@settings(max_examples=20, deadline=None)
@given(st.lists(DEEDS, min_size=20, max_size=50))
def test_both_sides_end_in_the_same_state(deeds: list[tuple[Any, ...]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(play(Path(directory), deeds))
