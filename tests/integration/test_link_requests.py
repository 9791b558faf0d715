"""Bids and what becomes of them between real processes: over the link, or by HTTP; and once, whoever dies (§9.2)."""

import random
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPException
from typing import Any

import pytest

from tests.nodes import RunningNode, befriend, eventually, init_nodes, linked, running, settled

LIMITS = {"LOOPD_API__USER_REQUESTS_PER_MINUTE": "0", "LOOPD_API__NODE_REQUESTS_PER_MINUTE": "0"}
OFFER, MIRROR = "/api/v1/federate/offer", "/api/v1/federate/mirror"


@pytest.fixture(scope="module", params=["auto", "off"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RunningNode]]:
    """Two peers, with a link and without."""
    base = tmp_path_factory.mktemp("requests")
    nodes = init_nodes(base, "a", "b", **LIMITS, LOOPD_FEDERATION__LINKS=request.param)
    with running(*nodes):
        befriend(*nodes)
        if request.param == "auto":
            linked(*nodes)
        yield nodes


def bid(node: RunningNode, subject: str, price: float) -> None:
    answer = node.admin("POST", "/offers", {"material": subject, "base_price": price})
    assert answer.status == 201, answer.body


def made(node: RunningNode, *subjects: str) -> dict[str, str]:
    """What became of the node's bids on these subjects."""
    results = node.admin("GET", "/offers?limit=100").json()["results"]
    return {entry["material"]: entry["status"] for entry in results if entry["material"] in subjects}


def requests(node: RunningNode, path: str, *, by_link: bool) -> list[str]:
    """The lines of a node's log on requests for a path that came so."""
    lines = [line for line in node.log_text().splitlines() if f'"route":"POST {path}"' in line]
    return [line for line in lines if ('"link":' in line) is by_link]


def test_a_bid_and_its_selection_are_told_by_the_way_there_is(pair: list[RunningNode]) -> None:
    a, b = pair
    has_link = a.environment["LOOPD_FEDERATION__LINKS"] == "auto"
    subject = a.register()
    b.hears(subject)
    bid(b, subject, 10)
    eventually(lambda: made(b, subject)[subject] == "accepted", "B's bid arrives")
    chosen = a.post(f"/api/v1/material/{subject}/select", {}, "offer:write").json()
    assert chosen["selected"] == "b.loop"
    eventually(lambda: made(b, subject)[subject] == "selected", "B is told")
    settled(a, b)
    for node, path in ((a, OFFER), (b, MIRROR)):
        assert requests(node, path, by_link=has_link)
        assert not requests(node, path, by_link=not has_link)


@pytest.mark.parametrize("killed", [0, 1], ids=["owner", "bidder"])
def test_a_kill_between_bid_and_answer_makes_no_second_bid(pair: list[RunningNode], killed: int) -> None:
    a, b = pair
    subjects = [a.register() for _ in range(12)]
    for subject in subjects:
        b.hears(subject)
    moments = random.Random(killed)

    bid(b, subjects[0], 9)

    def bid_on_others() -> None:
        for number, subject in enumerate(subjects[1:]):
            with suppress(HTTPException, OSError):
                bid(b, subject, 10 + number)

    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(bid_on_others)
        time.sleep(moments.uniform(0.05, 0.2))
        pair[killed].kill9()
        under_way.result()
    pair[killed].start()
    queued = made(b, *subjects)
    eventually(lambda: set(made(b, *subjects).values()) == {"accepted"}, "every bid that B took is taken by A", 60)
    settled(b, a)
    taken = rows(a, "SELECT subject FROM bid WHERE bidder = 'b.loop'")
    assert sorted(set(taken) & set(subjects)) == sorted(queued)
    assert len(taken) == len(set(taken))


def rows(node: RunningNode, sql: str) -> list[Any]:
    with closing(sqlite3.connect(node.root / "loopd.db")) as connection:
        return [row[0] for row in connection.execute(sql)]
