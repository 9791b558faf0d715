"""`/api/v1/federate/mirror` and `/api/v1/mirror`: what nodes tell each other of deals, and what users see of it."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from loopd.protocol.documents import dump_json, read_json
from loopd.protocol.lifecycle import MirroredEntity
from tests.mirror_api import MirrorApi, mirror_api
from tests.mirror_support import DEAL, Link, MirrorNode, entity_document, mirrored_pair

OFFER, MATCH, TRANSFER, TRANSACTION = MirroredEntity
MIRROR = "/api/v1/federate/mirror"
OF_MUNICH = "/api/v1/mirror/munich.loop"
TRANSFER_PATH = f"{OF_MUNICH}/transfer/{DEAL[TRANSFER]}"
Cities = tuple[MirrorNode, MirrorNode, Link]


@pytest.fixture
async def cities(tmp_path: Path) -> AsyncIterator[Cities]:
    """Munich, whose Transfer to Vienna is under way; nothing was delivered yet."""
    async with mirrored_pair(tmp_path) as pair:
        munich = pair[0]
        for entity, status in ((MATCH, "accepted"), (TRANSFER, "scheduled"), (TRANSFER, "in_transit")):
            await munich.decide(entity, status)
        yield pair


@pytest.fixture
async def vienna(cities: Cities) -> AsyncIterator[MirrorApi]:
    """A client of Vienna, who was told everything."""
    munich, vienna, link = cities
    while munich.waiting():
        await link.deliver(munich, 0)
    async with mirror_api(vienna) as client:
        yield client


@pytest.fixture
async def munich(cities: Cities) -> AsyncIterator[MirrorApi]:
    async with mirror_api(cities[0]) as client:
        yield client


def update(cities: Cities, place: int = 0) -> dict[str, Any]:
    value: dict[str, Any] = read_json(bytes(cities[0].waiting()[place]["body"]))
    return value


async def test_a_version_is_taken_and_a_repeat_answered_alike(cities: Cities) -> None:
    async with mirror_api(cities[1]) as vienna:
        body = dump_json(update(cities))
        first = await vienna.tell(MIRROR, body, "munich.loop")
        assert (first.status, first.json["status"]) == (202, "accepted")
        assert (await vienna.tell(MIRROR, body, "munich.loop")).json == first.json
        shown = (await vienna.get(f"{OF_MUNICH}/match/{DEAL[MATCH]}")).json
        assert (shown["version"], shown["status"], shown["request"]) == (1, "accepted", None)


REFUSED_VERSIONS = [
    ({}, None, 401, "missing_header"),
    ({}, "graz.loop", 400, "origin_mismatch"),
    ({"owner": "graz.loop"}, "munich.loop", 400, "origin_mismatch"),
    ({"counterpart": "graz.loop"}, "munich.loop", 400, "not_counterpart"),
    ({"entity": "bid"}, "munich.loop", 400, "schema"),
    ({"version": 0}, "munich.loop", 400, "schema"),
    ({"version": 2**53}, "munich.loop", 400, "schema"),
    ({"version": 1.5}, "munich.loop", 400, "schema"),
    ({"follows": -1}, "munich.loop", 400, "schema"),
    ({"follows": 1}, "munich.loop", 400, "bad_version"),
    ({"id": "no id"}, "munich.loop", 400, "schema"),
    ({"id": "A" * 300}, "munich.loop", 400, "schema"),
    ({"status": "stolen"}, "munich.loop", 400, "bad_status"),
    ({"status": "rejected"}, "munich.loop", 400, "document_mismatch"),
    ({"updated_at": "yesterday"}, "munich.loop", 400, "schema"),
    ({"document": {}}, "munich.loop", 400, "schema"),
    ({"document": []}, "munich.loop", 400, "schema"),
    ({"document": entity_document(OFFER, "open")}, "munich.loop", 400, "schema"),
    ({"more": True}, "munich.loop", 400, "schema"),
    ({"@context": "https://example.org/context"}, "munich.loop", 400, "unknown_context"),
    ({"@type": "Match"}, "munich.loop", 400, "schema"),
    (
        {"status": "expired", "document": entity_document(MATCH, "expired")},
        "munich.loop",
        409,
        "transition",
    ),
    (
        {"document": entity_document(MATCH, "accepted", metadata={"x": "maria@munich.example"})},
        "munich.loop",
        400,
        "personal_data",
    ),
]


async def test_versions_that_are_refused(cities: Cities) -> None:
    async with mirror_api(cities[1]) as vienna:
        for changes, caller, status, reason in REFUSED_VERSIONS:
            answer = await vienna.tell(MIRROR, {**update(cities), **changes}, caller)
            assert (answer.status, answer.reason) == (status, reason), changes
        assert (await vienna.get("/api/v1/mirror")).json == {"results": [], "next": None}


async def test_the_other_side_reads_what_it_was_told(munich: MirrorApi) -> None:
    answer = await munich.get(f"{MIRROR}?after=0&limit=1", "vienna.loop")
    [entry] = answer.json["results"]
    assert (entry["entity"], entry["id"], entry["version"]) == ("match", DEAL[MATCH], 1)
    rest = await munich.get(answer.json["next"], "vienna.loop")
    assert [(each["entity"], each["version"]) for each in rest.json["results"]] == [("transfer", 2)]
    assert rest.json["next"] is None
    path = f"{MIRROR}/transfer/{DEAL[TRANSFER]}"
    page = await munich.get(f"{path}?limit=1", "vienna.loop")
    assert [(each["version"], each["status"]) for each in page.json["results"]] == [(1, "scheduled")]
    page = await munich.get(page.json["next"], "vienna.loop")
    assert [(each["version"], each["status"]) for each in page.json["results"]] == [(2, "in_transit")]
    assert page.json["next"] is None
    assert (await munich.get(f"{path}?after=2", "vienna.loop")).json["results"] == []


UNREADABLE = [
    (MIRROR, None, 401, "missing_header"),
    (f"{MIRROR}?after=-1", "vienna.loop", 400, "bad_cursor"),
    (f"{MIRROR}?limit=101", "vienna.loop", 400, "bad_limit"),
    (f"{MIRROR}/transfer/{DEAL[TRANSFER]}", "graz.loop", 404, "unknown_mirror"),
    (f"{MIRROR}/transfer/{DEAL[MATCH]}", "vienna.loop", 404, "unknown_mirror"),
    (f"{MIRROR}/bid/{DEAL[MATCH]}", "vienna.loop", 404, "unknown_mirror"),
    (f"{MIRROR}/transfer/{DEAL[TRANSFER]}?after=x", "vienna.loop", 400, "bad_cursor"),
]


async def test_what_others_do_not_read(munich: MirrorApi) -> None:
    for path, caller, status, reason in UNREADABLE:
        answer = await munich.get(path, caller)
        assert (answer.status, answer.reason) == (status, reason), path


async def test_deals_of_other_nodes_are_listed_page_by_page(vienna: MirrorApi) -> None:
    first = (await vienna.get("/api/v1/mirror?limit=1&node=munich.loop")).json
    assert [each["entity"] for each in first["results"]] == ["transfer"]
    second = (await vienna.get(first["next"])).json
    assert ([each["entity"] for each in second["results"]], second["next"]) == (["match"], None)
    matches = (await vienna.get("/api/v1/mirror?entity=match&limit=1")).json
    assert ([each["entity"] for each in matches["results"]], matches["next"]) == (["match"], None)
    assert (await vienna.get("/api/v1/mirror?node=graz.loop")).json["results"] == []


async def test_persons_accounts_are_not_for_everybody(cities: Cities, vienna: MirrorApi) -> None:
    seller, buyer, link = cities
    accounts = {"buyer_account": "user:maria@vienna.loop", "seller_account": "node:a@b.loop"}
    sale = entity_document(TRANSACTION, "pending", **accounts)
    await seller.database.write(
        lambda tx: seller.telling.changed(tx, TRANSACTION, DEAL[TRANSACTION], 1, sale, buyer.home.node_id)
    )
    await link.deliver(seller, 0)
    shown = (await vienna.get(f"{OF_MUNICH}/transaction/{DEAL[TRANSACTION]}")).json["document"]
    assert ("buyer_account" in shown, shown["seller_account"]) == (False, "node:a@b.loop")


async def test_a_wish_goes_to_the_seller_once(cities: Cities, vienna: MirrorApi) -> None:
    answer = await vienna.post(f"{TRANSFER_PATH}/status", {"status": "completed", "reason": "all came"})
    assert (answer.status, answer.json["state"], answer.json["reason"]) == (202, "queued", "all came")
    again = await vienna.post(f"{TRANSFER_PATH}/status", {"status": "completed"})
    assert (again.status, again.reason) == (409, "already_asked")
    [line] = cities[1].waiting()
    assert read_json(bytes(line["body"]))["subject"] == DEAL[TRANSFER]
    assert (await vienna.get(TRANSFER_PATH)).json["request"] == answer.json


REFUSED_WISHES = [
    (f"{TRANSFER_PATH}/status", {"status": "cancelled"}, 403, "owner_decides"),
    (f"{TRANSFER_PATH}/status", {"status": "scheduled"}, 409, "transition"),
    (f"{TRANSFER_PATH}/status", {"status": "stolen"}, 400, "bad_status"),
    (f"{TRANSFER_PATH}/status", {}, 400, "schema"),
    (f"{TRANSFER_PATH}/status", {"status": 7}, 400, "schema"),
    (f"{TRANSFER_PATH}/status", {"status": "completed", "by": "me"}, 400, "schema"),
    (f"{TRANSFER_PATH}/status", {"status": "completed", "reason": "x" * 281}, 400, "schema"),
    (
        f"{TRANSFER_PATH}/status",
        {"status": "completed", "reason": "ask maria@vienna.example"},
        400,
        "personal_data",
    ),
    (f"{OF_MUNICH}/offer/{DEAL[OFFER]}/status", {"status": "withdrawn"}, 404, "unknown_mirror"),
    (f"{OF_MUNICH}/bid/{DEAL[OFFER]}/status", {"status": "withdrawn"}, 404, "unknown_mirror"),
    ("/api/v1/mirror/graz.loop/transfer/TRF-00000001/status", {"status": "completed"}, 404, "unknown_mirror"),
]


async def test_wishes_that_are_refused(cities: Cities, vienna: MirrorApi) -> None:
    for path, wish, status, reason in REFUSED_WISHES:
        answer = await vienna.post(path, wish)
        assert (answer.status, answer.reason) == (status, reason), wish
    assert cities[1].waiting() == []


async def test_only_who_may_trade_may_wish(vienna: MirrorApi) -> None:
    answer = await vienna.post(f"{TRANSFER_PATH}/status", {"status": "completed"}, authorised=False)
    assert (answer.status, answer.reason) == (401, "missing_token")


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        (f"{OF_MUNICH}/offer/{DEAL[OFFER]}", 404, "unknown_mirror"),
        (f"{OF_MUNICH}/bid/{DEAL[OFFER]}", 404, "unknown_mirror"),
        ("/api/v1/mirror?entity=bid", 400, "unknown_entity"),
        ("/api/v1/mirror?cursor=0", 400, "bad_cursor"),
        ("/api/v1/mirror?limit=0", 400, "bad_limit"),
    ],
)
async def test_what_is_not_there(vienna: MirrorApi, path: str, status: int, reason: str) -> None:
    answer = await vienna.get(path)
    assert (answer.status, answer.reason) == (status, reason)


async def test_a_wish_is_carried_out_over_the_wire(cities: Cities, munich: MirrorApi) -> None:
    seller, buyer, link = cities
    while seller.waiting():
        await link.deliver(seller, 0)
    async with mirror_api(buyer) as vienna:
        await vienna.post(f"{TRANSFER_PATH}/status", {"status": "completed"})
        body = bytes(buyer.waiting()[0]["body"])
        assert (await munich.tell(MIRROR, body, "graz.loop")).reason == "origin_mismatch"
        assert (await munich.tell(MIRROR, body, "vienna.loop")).status == 202
        await link.deliver(seller, 0)
        assert (await vienna.get(TRANSFER_PATH)).json["status"] == "completed"
