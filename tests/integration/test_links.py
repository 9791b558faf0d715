"""Links between real processes: what goes over them, what happens when they break, and what is repaired (§9.4)."""

import json
import random
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from http.client import HTTPException
from pathlib import Path

import pytest

from loopd.crypto.hop_chain import next_hop_value, reaches_anchor
from tests.nodes import (
    DOCUMENT,
    RunningNode,
    befriend,
    eventually,
    init_nodes,
    linked,
    material,
    running,
    send,
    settled,
)

BURST = 200
LINKS = {"LOOPD_FEDERATION__LINKS": "auto", "LOOPD_API__USER_REQUESTS_PER_MINUTE": "0"}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[RunningNode]]:
    """Two nodes with a link."""
    nodes = init_nodes(tmp_path, "a", "b", **LINKS)
    with running(*nodes):
        befriend(*nodes)
        linked(*nodes)
        yield nodes


def burst(node: RunningNode, count: int = BURST) -> set[str]:
    """Register that many materials over one connection, until the node is gone; the ids of those that it took."""
    subjects: set[str] = set()
    headers = {"Content-Type": DOCUMENT, "Authorization": f"Bearer {node.token('material:write')}"}
    with closing(node.connection()) as connection, suppress(HTTPException, OSError):
        for _ in range(count):
            document = material(node.city)
            answer = send(connection, "POST", "/api/v1/material", json.dumps(document).encode(), headers)
            assert answer.status == 201, answer.body
            subjects.add(document["id"])
    return subjects


def heard(node: RunningNode) -> list[str]:
    """The subjects of which the node heard, by its file."""
    with closing(sqlite3.connect(node.root / "loopd.db")) as connection:
        return [row[0] for row in connection.execute("SELECT subject FROM heard")]


def deliveries(node: RunningNode) -> int:
    """How often the node has delivered an announcement, by its audit log."""
    with closing(sqlite3.connect(node.root / "loopd.db")) as connection:
        rows = connection.execute("SELECT payload FROM audit_entry WHERE kind = 'node_interaction'").fetchall()
    return [json.loads(row[0]).get("reason") for row in rows].count("accepted")


def hears_all(node: RunningNode, subjects: set[str]) -> None:
    eventually(lambda: subjects <= set(heard(node)), f"{node} hears of everything", 60)


def came_as_requests(node: RunningNode) -> bool:
    """Whether this process of the node was sent an announcement as a request."""
    return "/api/v1/federate/announce" in node.admin("GET", "/metrics").body.decode()


def test_announcements_go_over_the_link_and_not_as_requests(pair: list[RunningNode]) -> None:
    a, b = pair
    hears_all(b, burst(a, 20))
    hears_all(a, burst(b, 20))
    settled(a, b)
    assert (a.decisions(), b.decisions()) == (20, 20)
    assert not came_as_requests(a)
    assert not came_as_requests(b)


def test_where_no_link_can_be_made_everything_goes_as_requests(tmp_path: Path) -> None:
    a, b = init_nodes(tmp_path, "a", "b", **LINKS)
    with running(a, b):
        befriend(a, b)
        linked(a, b)
        subjects = {a.register()}
        hears_all(b, subjects)
        b.stop()
        # The route refuses, while the peer still thinks that there is one.
        b.start(LOOPD_FEDERATION__LINKS="off")
        subjects.add(a.register())
        hears_all(b, subjects)
        settled(a)
        assert not (a.peer(b.node_id) or {})["linked"]
        assert came_as_requests(b)
        back = b.register()
        a.hears(back)
        b.stop()
        b.start(LOOPD_FEDERATION__LINKS="auto")
        linked(a, b)
        subjects.add(a.register())
        hears_all(b, subjects)
        settled(a, b)
        assert not came_as_requests(b)
        assert deliveries(b) == len(subjects)


@pytest.mark.parametrize("killed", [0, 1], ids=["sender", "receiver"])
def test_a_kill_in_the_middle_of_a_burst_loses_nothing_and_delivers_once(pair: list[RunningNode], killed: int) -> None:
    a, b = pair
    subjects: set[str] = set()
    moments = random.Random(killed)
    with ThreadPoolExecutor(1) as pool:
        for _ in range(2):
            under_way = pool.submit(burst, a, BURST // 2)
            time.sleep(moments.uniform(0.05, 0.3))
            pair[killed].kill9()
            subjects |= under_way.result()
            pair[killed].start()
    hears_all(b, subjects)
    settled(a, b)
    # What the sender stored but had no time left to confirm was announced, too.
    told = heard(b)
    assert len(told) == len(set(told)) == deliveries(b)
    linked(a, b)


def test_a_link_that_was_cut_is_made_again(pair: list[RunningNode]) -> None:
    a, b = pair
    before = b.log_text().count('"event":"link_up"')
    assert a.admin("POST", f"/peers/{b.node_id}/suspend").status == 200
    eventually(lambda: not (b.peer(a.node_id) or {})["linked"], "B sees the end of the link")
    subject = a.register()
    assert a.admin("POST", f"/peers/{b.node_id}/resume").status == 200
    linked(a, b)
    b.hears(subject)
    assert b.log_text().count('"event":"link_up"') > before


def test_repair_finds_what_the_log_does_not_hold(tmp_path: Path) -> None:
    a, b, c = init_nodes(tmp_path, "a", "b", "c", **LINKS)
    with running(a, b, c):
        befriend(a, b)
        befriend(b, c)
        linked(a, b, c)
        subjects = burst(a, 30)
        hears_all(c, subjects)
        settled(a, b, c)
        for node in (c, b):
            assert node.stop() == 0
        # C lost what it held, as from an older backup; B's log and cursor know nothing of that.
        with closing(sqlite3.connect(c.root / "loopd.db")) as connection, connection:
            connection.execute("DELETE FROM heard")
            connection.execute("DELETE FROM message")
        # Nothing of it is sent again by the log.
        with closing(sqlite3.connect(b.root / "loopd.db")) as connection, connection:
            connection.execute("DELETE FROM outbox")
        for node in (b, c):
            node.start()
        hears_all(c, subjects)
        settled(a, b, c)
        for subject in subjects:
            c.hears(subject, ttl=2, verified=True)
        assert not came_as_requests(c)


def lower(node: RunningNode, ttl: int, draw: random.Random) -> set[str]:
    """Let a node that is down hold half of what it heard with that TTL, as if the better copy had been lost."""
    with closing(sqlite3.connect(node.root / "loopd.db")) as connection, connection:
        rows = connection.execute("SELECT message_id, subject, best_ttl, hop_value FROM message").fetchall()
        lowered = draw.sample(rows, len(rows) // 2)
        for message_id, _, best_ttl, hop_value in lowered:
            for _ in range(best_ttl - ttl):
                hop_value = next_hop_value(hop_value)
            lower_row = "UPDATE message SET best_ttl = ?, hop_value = ? WHERE message_id = ?"
            connection.execute(lower_row, (ttl, hop_value, message_id))
    return {subject for _, subject, _, _ in lowered}


def proven_ttls(node: RunningNode) -> set[int]:
    """The TTLs of what a node holds, each proven by its hop value."""
    with closing(sqlite3.connect(node.root / "loopd.db")) as connection:
        rows = connection.execute("SELECT body, best_ttl, hop_value FROM message").fetchall()
    for body, best_ttl, hop_value in rows:
        assert reaches_anchor(hop_value, best_ttl, bytes.fromhex(json.loads(body)["hop_anchor"]))
    return {best_ttl for _, best_ttl, _ in rows}


def test_a_better_ttl_that_was_lost_is_repaired_and_nothing_delivered_again(tmp_path: Path) -> None:
    a, b, c = init_nodes(tmp_path, "a", "b", "c", **LINKS)
    draw = random.Random(2)
    with running(a, b, c):
        befriend(a, b)
        befriend(b, c)
        linked(a, b, c)
        subjects = burst(a, 12)
        hears_all(c, subjects)
        settled(a, b, c)
        assert (proven_ttls(b), proven_ttls(c)) == ({3}, {2})
        for node in (c, b):
            assert node.stop() == 0
        at_b, at_c = lower(b, 2, draw), lower(c, 1, draw)
        assert (proven_ttls(b), proven_ttls(c)) == ({3, 2}, {2, 1})
        for node in (b, c):
            node.start()
        eventually(lambda: (proven_ttls(b), proven_ttls(c)) == ({3}, {2}), "the TTLs are what they were", 60)
        settled(a, b, c)
        assert deliveries(b) == deliveries(c) == len(subjects)
        assert (upgraded(b), upgraded(c)) == (at_b, at_c)


def upgraded(node: RunningNode) -> set[str]:
    """The subjects of which the node took a copy for its better TTL alone."""
    query = "SELECT m.subject FROM decision d JOIN message m USING (message_id) WHERE reason = 'upgraded'"
    with closing(sqlite3.connect(node.root / "loopd.db")) as connection:
        return {subject for (subject,) in connection.execute(query)}
