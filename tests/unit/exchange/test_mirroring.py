"""One node tells, the other mirrors: what is taken, what is refused, what is fetched."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from loopd.exchange import mirroring
from loopd.exchange.mirror_rules import ABSENCE_MS, REFUSED_RETRY_MS, WHOLE_COMPARISON_MS, EntityKey
from loopd.exchange.ports import NodeAnswer
from loopd.protocol.documents import dump_json, read_json
from loopd.protocol.errors import Conflict, Forbidden, Invalid, NotFound, Refusal
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.limits import MIRROR_DELIVERY_MS, STATUS_REQUEST_DELIVERY_MS
from loopd.protocol.nodes import Standing
from tests.exchange_support import VIENNA, known_node, reason_of
from tests.federation_support import eventually
from tests.mirror_support import DEAL, Link, MirrorNode, entity_document, made_requests, mirrored_pair

OFFER, MATCH, TRANSFER, TRANSACTION = MirroredEntity
OF_MATCH = EntityKey("munich.loop", MATCH, DEAL[MATCH])
Pair = tuple[MirrorNode, MirrorNode, Link]


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    """Munich, who sells, Vienna, who buys, and the link between them."""
    async with mirrored_pair(tmp_path) as nodes:
        yield nodes


def updates(node: MirrorNode) -> list[dict[str, Any]]:
    return [read_json(bytes(line["body"])) for line in node.waiting()]


def dump(node: MirrorNode) -> list[Any]:
    tables = ("mirror", "mirror_gap", "mirror_told", "mirror_granted", "mirror_request", "audit_entry", "event")
    return [tuple(row) for table in tables for row in node.database.points.all(f"SELECT * FROM {table}")]


async def refused(node: MirrorNode, body: dict[str, Any], caller: str = "munich.loop") -> str:
    """The reason for which a document is refused; nothing else comes of it."""
    before = dump(node)
    with pytest.raises(Refusal) as refusal:
        await node.receive(dump_json(body), caller)
    assert dump(node) == before
    return reason_of(refusal)


async def test_each_version_is_told_once_and_held(pair: Pair) -> None:
    munich, vienna, link = pair
    for status in ("proposed", "accepted", "expired"):
        await munich.decide(MATCH, status)
        await link.deliver(munich, 0)
        assert vienna.held(MATCH) == munich.told(MATCH)
    assert munich.waiting() == []
    kinds = [row["kind"] for row in vienna.database.points.all("SELECT kind FROM event ORDER BY id")]
    assert kinds == ["match.created", "match.status", "match.status"]


async def test_a_told_version_says_what_it_follows_and_waits_a_week(pair: Pair) -> None:
    munich, _, _ = pair
    await munich.decide(MATCH, "proposed")
    await munich.decide(MATCH, "accepted")
    assert [(each["version"], each["follows"], each["counterpart"]) for each in updates(munich)] == [
        (1, 0, "vienna.loop"),
        (2, 1, "vienna.loop"),
    ]
    rows = munich.database.points.all("SELECT expires_at_ms FROM outbox")
    assert {row["expires_at_ms"] for row in rows} == {munich.clock.now_ms() + MIRROR_DELIVERY_MS}


async def test_who_was_told_of_an_offer_is_told_how_it_ends(pair: Pair) -> None:
    munich, _, _ = pair
    for version, status, counterpart in ((2, "reserved", "vienna.loop"), (3, "open", "vienna.loop")):
        document = entity_document(OFFER, status)
        await munich.database.write(
            lambda tx, v=version, d=document, c=counterpart: munich.telling.changed(tx, OFFER, DEAL[OFFER], v, d, c)
        )
    document = entity_document(OFFER, "reserved")
    await munich.database.write(lambda tx: munich.telling.changed(tx, OFFER, DEAL[OFFER], 4, document, "berlin.loop"))
    told = [(each["counterpart"], each["version"], each["follows"]) for each in updates(munich)]
    # Berlin is not known here: it is kept for it all the same.
    assert told == [("vienna.loop", 2, 0), ("vienna.loop", 3, 2), ("vienna.loop", 4, 3)]
    page = await munich.telling.versions(munich.database, "berlin.loop", OFFER, DEAL[OFFER], 0, 10)
    assert [(each["version"], each["follows"]) for each in page.results] == [(4, 0)]


@pytest.mark.parametrize(("features", "lines"), [(frozenset(), 1), (frozenset({"interop-v0.2.0"}), 0)])
async def test_who_cannot_mirror_is_not_told(pair: Pair, features: frozenset[str], lines: int) -> None:
    munich, _, _ = pair
    munich.directory.nodes["vienna.loop"] = known_node("vienna.loop", VIENNA, features=features)
    await munich.decide(MATCH, "proposed")
    assert len(munich.waiting()) == lines


async def test_a_document_too_large_for_a_message_is_refused_where_it_comes_in(pair: Pair) -> None:
    munich, _, _ = pair
    before = dump(munich)
    document = entity_document(MATCH, "proposed", metadata={"x": "y" * 300_000})
    with pytest.raises(Invalid) as refusal:
        await munich.database.write(
            lambda tx: munich.telling.changed(tx, MATCH, DEAL[MATCH], 1, document, "vienna.loop")
        )
    assert reason_of(refusal) == "too_large_to_mirror"
    assert dump(munich) == before


async def test_a_version_is_never_told_twice(pair: Pair) -> None:
    munich, _, _ = pair
    await munich.decide(MATCH, "proposed")
    document = entity_document(MATCH, "proposed")
    with pytest.raises(RuntimeError):
        await munich.database.write(
            lambda tx: munich.telling.changed(tx, MATCH, DEAL[MATCH], 1, document, "vienna.loop")
        )


async def test_a_repeat_and_an_older_version_change_nothing(pair: Pair) -> None:
    munich, vienna, link = pair
    await munich.decide(MATCH, "proposed")
    await munich.decide(MATCH, "accepted")
    await link.deliver(munich, 0, answered=False)
    await link.deliver(munich, 1, answered=False)
    before = dump(vienna)
    for place in (0, 1, 1, 0):
        await link.deliver(munich, place, answered=False)
    assert dump(vienna) == before


async def test_what_came_too_early_is_fetched_with_what_it_follows(pair: Pair) -> None:
    munich, vienna, link = pair
    for status in ("proposed", "accepted", "expired"):
        await munich.decide(MATCH, status)
    await link.deliver(munich, 2)
    assert (vienna.held(MATCH), vienna.gaps()) == (None, [("match", 3)])
    assert await vienna.keeper.work()
    assert (vienna.held(MATCH), vienna.gaps()) == (munich.told(MATCH), [])
    assert not await vienna.keeper.work()


async def test_a_gap_outlives_a_crash_and_an_owner_that_does_not_answer(pair: Pair) -> None:
    munich, vienna, link = pair
    await munich.decide(MATCH, "proposed")
    await munich.decide(MATCH, "accepted")
    await link.deliver(munich, 1)
    link.up = False
    await vienna.close()
    await vienna.open()
    assert await vienna.keeper.work()
    assert vienna.gaps() == [("match", 2)]
    link.up = True
    assert not await vienna.keeper.work()
    munich.clock.advance(2_000)
    assert await vienna.keeper.work()
    assert (vienna.held(MATCH), vienna.gaps()) == (munich.told(MATCH), [])


async def test_an_owner_that_returns_is_asked_at_once(pair: Pair) -> None:
    munich, vienna, link = pair
    await munich.decide(MATCH, "proposed")
    await link.lose(munich, 0)
    await vienna.keeper.contacted("munich.loop")
    assert await vienna.keeper.work()
    assert vienna.held(MATCH) == munich.told(MATCH)
    await munich.decide(MATCH, "rejected")
    await link.lose(munich, 0)
    munich.clock.advance(ABSENCE_MS - 1)
    await vienna.keeper.contacted("munich.loop")
    assert not await vienna.keeper.work()
    munich.clock.advance(ABSENCE_MS)
    await vienna.keeper.contacted("munich.loop")
    assert await vienna.keeper.work()
    assert vienna.held(MATCH) == munich.told(MATCH)


async def test_everything_is_compared_daily(pair: Pair) -> None:
    munich, vienna, link = pair
    await munich.decide(MATCH, "proposed")
    await link.deliver(munich, 0)
    await munich.decide(MATCH, "accepted")
    await link.lose(munich, 0)
    assert not await vienna.keeper.work()
    munich.clock.advance(WHOLE_COMPARISON_MS)
    assert await vienna.keeper.work()
    assert vienna.held(MATCH) == munich.told(MATCH)


async def test_many_entities_are_compared_page_by_page(pair: Pair) -> None:
    munich, vienna, _ = pair
    ids = [f"MCH-{number:08}" for number in range(130)]

    def tell_all(tx: Any) -> None:
        for entity_id in ids:
            document = entity_document(MATCH, "proposed", entity_id)
            munich.telling.changed(tx, MATCH, entity_id, 1, document, "vienna.loop")

    await munich.database.write(tell_all)
    await vienna.keeper.contacted("munich.loop")
    assert await vienna.keeper.work()
    page = await vienna.mirroring.page(vienna.database, 100, None, MATCH, "munich.loop")
    rest = await vienna.mirroring.page(vienna.database, 100, page.before, MATCH, "munich.loop")
    assert [each["id"] for each in page.results + rest.results] == ids[::-1]
    assert rest.before is None
    assert (await vienna.mirroring.page(vienna.database, 100, None, OFFER, None)).results == []
    assert (await vienna.mirroring.page(vienna.database, 100, None, None, "graz.loop")).results == []


async def test_a_long_history_is_fetched_page_by_page(pair: Pair) -> None:
    munich, vienna, link = pair
    for version in range(2, 51):
        status = "open" if version % 2 else "reserved"
        document = entity_document(OFFER, status)
        await munich.database.write(
            lambda tx, v=version, d=document: munich.telling.changed(tx, OFFER, DEAL[OFFER], v, d, "vienna.loop")
        )
    await link.deliver(munich, 48)
    assert await vienna.keeper.work()
    assert vienna.held(OFFER) == munich.told(OFFER)


async def test_large_versions_fill_a_page_early(pair: Pair) -> None:
    munich, vienna, link = pair
    for version in range(2, 8):
        document = entity_document(OFFER, "open" if version % 2 else "reserved", metadata={"x": "y" * 200_000})
        await munich.database.write(
            lambda tx, v=version, d=document: munich.telling.changed(tx, OFFER, DEAL[OFFER], v, d, "vienna.loop")
        )
    page = await munich.telling.versions(munich.database, "vienna.loop", OFFER, DEAL[OFFER], 0, 100)
    assert ([each["version"] for each in page.results], page.after) == ([2, 3, 4], 4)
    await link.deliver(munich, 5)
    assert await vienna.keeper.work()
    assert vienna.held(OFFER) == munich.told(OFFER)


async def test_versions_that_are_refused(pair: Pair) -> None:
    munich, vienna, _ = pair
    await munich.decide(MATCH, "proposed")
    await munich.decide(MATCH, "accepted")
    first, second = updates(munich)
    await vienna.receive(dump_json(first), "munich.loop")
    assert await refused(vienna, second, "graz.loop") == "origin_mismatch"
    assert await refused(vienna, {**second, "owner": "graz.loop"}) == "origin_mismatch"
    assert await refused(vienna, {**second, "counterpart": "graz.loop"}) == "not_counterpart"
    assert await refused(vienna, {**first, "updated_at": "2020-01-01T00:00:00Z"}) == "other_content"
    rejected = entity_document(MATCH, "rejected")
    assert await refused(vienna, {**first, "status": "rejected", "document": rejected}) == "other_content"
    assert await refused(vienna, {**second, "follows": 0}) == "bad_version"
    expired = entity_document(MATCH, "expired")
    assert await refused(vienna, {**second, "status": "expired", "document": expired}) == "transition"
    assert await refused(vienna, {**second, "version": 2**53}) == "schema"
    assert await refused(vienna, {**second, "more": 1}) == "schema"
    await vienna.receive(dump_json(second), "munich.loop")
    assert vienna.held(MATCH) == munich.told(MATCH)


@pytest.mark.parametrize(("ceiling", "value"), [("MIRRORED_PER_NODE_MAX", 1), ("MIRRORED_PER_NODE_MAX_BYTES", 600)])
async def test_a_node_tells_so_much_and_no_more(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, ceiling: str, value: int
) -> None:
    munich, vienna, _ = pair
    monkeypatch.setattr(mirroring, ceiling, value)
    await munich.decide(MATCH, "proposed")
    await munich.decide(TRANSFER, "scheduled")
    await munich.decide(MATCH, "accepted")
    match, transfer, accepted = updates(munich)
    await vienna.receive(dump_json(match), "munich.loop")
    assert await refused(vienna, transfer) == "too_many_mirrored"
    # What is held already is told on.
    await vienna.receive(dump_json(accepted), "munich.loop")
    assert vienna.held(MATCH) == munich.told(MATCH)


@pytest.mark.parametrize(
    "answer",
    [
        NodeAnswer(500, b""),
        NodeAnswer(200, b"{"),
        NodeAnswer(200, b"[]"),
        NodeAnswer(200, b'{"results": 7, "next": null}'),
        NodeAnswer(429, b""),
        None,
    ],
)
async def test_answers_that_are_none_are_asked_for_again(pair: Pair, answer: NodeAnswer | None) -> None:
    munich, vienna, link = pair
    await munich.decide(MATCH, "proposed")
    await munich.decide(MATCH, "accepted")
    await link.deliver(munich, 1)
    await vienna.keeper.contacted("munich.loop")
    reading = link.read

    async def read(asker: MirrorNode, node_id: str, path: str) -> NodeAnswer | None:
        return answer

    link.read = read  # type: ignore[method-assign]
    assert await vienna.keeper.work()
    assert vienna.gaps() == [("match", 2)]
    link.read = reading  # type: ignore[method-assign]
    munich.clock.advance(2_000)
    assert await vienna.keeper.work()
    assert (vienna.held(MATCH), vienna.gaps()) == (munich.told(MATCH), [])


async def test_an_owner_that_tells_what_cannot_be_is_asked_again_a_day_later(pair: Pair) -> None:
    munich, vienna, link = pair
    await munich.decide(MATCH, "proposed")
    await munich.decide(MATCH, "accepted")
    await link.deliver(munich, 1)
    forged = b'{"results": [{"@type": "MirrorUpdate"}], "next": null}'

    async def read(asker: MirrorNode, node_id: str, path: str) -> NodeAnswer | None:
        return NodeAnswer(200, forged)

    reading, link.read = link.read, read  # type: ignore[method-assign]
    assert await vienna.keeper.work()
    munich.clock.advance(600_000)
    assert not await vienna.keeper.work()
    link.read = reading  # type: ignore[method-assign]
    munich.clock.advance(REFUSED_RETRY_MS)
    assert await vienna.keeper.work()
    assert vienna.held(MATCH) == munich.told(MATCH)


async def test_a_version_that_the_owner_knows_nothing_of_is_given_up(pair: Pair) -> None:
    munich, vienna, _ = pair
    await munich.decide(MATCH, "proposed")
    await munich.decide(MATCH, "accepted")
    _, second = updates(munich)
    other = "MCH-00000009"
    unheard = {**second, "id": other, "document": {**second["document"], "id": other}}
    await vienna.receive(dump_json(unheard), "munich.loop")
    assert vienna.gaps() == [("match", 2)]
    assert await vienna.keeper.work()
    assert vienna.gaps() == []


async def test_a_suspended_owner_is_not_asked(pair: Pair) -> None:
    munich, vienna, link = pair
    await munich.decide(MATCH, "proposed")
    await munich.decide(MATCH, "accepted")
    await link.deliver(munich, 1)
    suspended = known_node("munich.loop", VIENNA, standing=Standing.SUSPENDED)
    vienna.directory.nodes["munich.loop"] = suspended
    assert await vienna.keeper.work()
    assert vienna.gaps() == [("match", 2)]


async def test_a_node_that_does_not_answer_holds_up_no_other(pair: Pair) -> None:
    munich, vienna, link = pair
    await munich.decide(MATCH, "proposed")
    vienna.directory.nodes["graz.loop"] = known_node("graz.loop", VIENNA)
    await vienna.database.write(lambda tx: vienna.mirroring.returned(tx, "graz.loop"))
    await vienna.keeper.contacted("munich.loop")
    reading, silence = link.read, asyncio.Event()

    async def read(asker: MirrorNode, node_id: str, path: str) -> NodeAnswer | None:
        if node_id == "graz.loop":
            await silence.wait()
        return await reading(asker, node_id, path)

    link.read = read  # type: ignore[method-assign]
    vienna.keeper.start()
    try:
        await eventually(lambda: vienna.held(MATCH) is not None, timeout_s=20)
        await munich.decide(MATCH, "accepted")
        await munich.decide(MATCH, "expired")
        await link.deliver(munich, 2)
        await eventually(lambda: vienna.held(MATCH) == munich.told(MATCH), timeout_s=20)
    finally:
        await vienna.keeper.stop()


async def test_who_decides_on_a_bid_is_compared_with_a_day_later(pair: Pair) -> None:
    munich, vienna, link = pair
    await munich.decide(MATCH, "accepted")
    await link.lose(munich, 0)
    for _ in range(2):
        await vienna.database.write(lambda tx: vienna.mirroring.expect(tx, "munich.loop"))
    assert not await vienna.keeper.work()
    munich.clock.advance(WHOLE_COMPARISON_MS)
    assert await vienna.keeper.work()
    assert vienna.held(MATCH) == munich.told(MATCH)


async def test_only_the_other_side_reads_what_it_was_told(pair: Pair) -> None:
    munich, _, _ = pair
    await munich.decide(MATCH, "proposed")
    with pytest.raises(NotFound) as refusal:
        await munich.telling.versions(munich.database, "graz.loop", MATCH, DEAL[MATCH], 0, 10)
    assert reason_of(refusal) == "unknown_mirror"
    assert (await munich.telling.newest(munich.database, "graz.loop", 0, 10)).results == []


# Wishes


async def under_way(pair: Pair) -> Pair:
    """A Transfer that Munich sent off, held by Vienna."""
    munich, vienna, link = pair
    for status in ("scheduled", "in_transit"):
        await munich.decide(TRANSFER, status)
        await link.deliver(munich, 0)
    return munich, vienna, link


async def ask(vienna: MirrorNode, entity: MirroredEntity, status: str, reason: str | None = None) -> dict[str, Any]:
    key = EntityKey("munich.loop", entity, DEAL[entity])
    return await vienna.database.write(lambda tx: vienna.requests.ask(tx, key, status, reason))


async def test_a_buyer_acknowledges_a_transfer(pair: Pair) -> None:
    munich, vienna, link = await under_way(pair)
    asked = await ask(vienna, TRANSFER, "completed", "all of it came")
    assert (asked["status"], asked["state"], asked["answer"]) == ("completed", "queued", None)
    await link.deliver(vienna, 0)
    await link.deliver(munich, 0)
    assert vienna.held(TRANSFER) == munich.told(TRANSFER)
    shown = vienna.mirroring.view(vienna.database.points, EntityKey("munich.loop", TRANSFER, DEAL[TRANSFER]))
    assert (shown["status"], shown["request"]["state"], shown["document"]["metadata"]["by"]) == (
        "completed",
        "granted",
        "vienna.loop",
    )


async def test_a_wish_whose_answer_got_lost_has_one_effect(pair: Pair) -> None:
    munich, vienna, link = await under_way(pair)
    await ask(vienna, TRANSFER, "completed")
    await link.deliver(vienna, 0, answered=False)
    before = dump(munich)
    await link.deliver(vienna, 0)
    assert dump(munich) == before
    assert made_requests(vienna) == [("completed", "granted", None)]


async def test_a_refusal_is_told_back(pair: Pair) -> None:
    munich, vienna, link = await under_way(pair)
    await ask(vienna, TRANSFER, "completed")
    await munich.decide(TRANSFER, "cancelled")
    await link.deliver(vienna, 0)
    assert made_requests(vienna) == [("completed", "refused", "terminal")]
    await link.deliver(munich, 0)
    assert vienna.held(TRANSFER) == munich.told(TRANSFER)


async def test_one_wish_at_a_time(pair: Pair) -> None:
    munich, vienna, link = pair
    await munich.decide(TRANSACTION, "pending")
    await link.deliver(munich, 0)
    await ask(vienna, TRANSACTION, "cancelled")
    with pytest.raises(Conflict) as refusal:
        await ask(vienna, TRANSACTION, "disputed")
    assert reason_of(refusal) == "already_asked"
    munich.clock.advance(STATUS_REQUEST_DELIVERY_MS)
    await link.lose(vienna, 0)
    await ask(vienna, TRANSACTION, "disputed")
    await link.deliver(vienna, 0)
    assert made_requests(vienna) == [("cancelled", "expired", "expired"), ("disputed", "granted", None)]


async def test_wishes_that_are_refused_here(pair: Pair) -> None:
    _, vienna, _ = await under_way(pair)
    before = dump(vienna)
    for entity, status, kind, reason in (
        (OFFER, "withdrawn", NotFound, "unknown_mirror"),
        (TRANSFER, "cancelled", Forbidden, "owner_decides"),
        (TRANSFER, "scheduled", Conflict, "transition"),
        (TRANSFER, "stolen", Invalid, "bad_status"),
    ):
        with pytest.raises(kind) as refusal:
            await ask(vienna, entity, status)
        assert reason_of(refusal) == reason
    assert dump(vienna) == before


async def test_wishes_that_are_refused_there(pair: Pair) -> None:
    munich, vienna, _ = await under_way(pair)
    await ask(vienna, TRANSFER, "completed")
    wish = read_json(bytes(vienna.waiting()[0]["body"]))
    assert await refused(munich, wish, "graz.loop") == "origin_mismatch"
    assert await refused(munich, {**wish, "from": "graz.loop"}, "vienna.loop") == "origin_mismatch"
    assert await refused(munich, {**wish, "owner": "graz.loop"}, "vienna.loop") == "origin_mismatch"
    assert await refused(munich, {**wish, "from": "graz.loop"}, "graz.loop") == "unknown_mirror"
    assert await refused(munich, {**wish, "subject": "TRF-00000009"}, "vienna.loop") == "unknown_mirror"
    assert await refused(munich, {**wish, "status": "cancelled"}, "vienna.loop") == "owner_decides"
    assert await refused(munich, {**wish, "status": "scheduled"}, "vienna.loop") == "transition"
    assert await refused(munich, {**wish, "reason": "ask maria@vienna.example"}, "vienna.loop") == "personal_data"
    assert await refused(munich, {**wish, "entity": "bid"}, "vienna.loop") == "schema"
    await munich.receive(dump_json(wish), "vienna.loop")
    assert await refused(munich, {**wish, "reason": "another"}, "vienna.loop") == "other_content"


async def test_what_is_not_held_is_not_shown(pair: Pair) -> None:
    _, vienna, _ = pair
    with pytest.raises(NotFound) as refusal:
        vienna.mirroring.view(vienna.database.points, OF_MATCH)
    assert reason_of(refusal) == "unknown_mirror"
