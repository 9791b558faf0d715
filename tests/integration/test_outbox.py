"""What was to be sent is sent: to peers that were down, by senders that were killed, once (§9.3, §9.4)."""

import json
import random
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.nodes import RunningNode, befriend, chain, eventually, init_nodes, running, settled

KILLS = 3


@pytest.fixture
def three(tmp_path: Path) -> Iterator[list[RunningNode]]:
    """A–B–C, each a peer of its neighbours alone."""
    nodes = init_nodes(tmp_path, "a", "b", "c")
    with running(*nodes):
        chain(nodes)
        yield nodes


def messages(node: RunningNode) -> int:
    """How many announcements the node holds, by its file."""
    with closing(sqlite3.connect(node.root / "loopd.db")) as connection:
        return int(connection.execute("SELECT count(*) FROM message").fetchone()[0])


def test_a_peer_that_was_down_gets_it_without_new_traffic(three: list[RunningNode]) -> None:
    a, b, c = three
    b.stop()
    subjects = [a.register() for _ in range(12)]
    # The sender has noticed that nobody is there.
    eventually(lambda: (a.peer("b.loop") or {})["health"] != "active", "A misses B")
    assert (a.peer("b.loop") or {})["queue"] == 12
    b.start()
    for subject in subjects:
        b.hears(subject, ttl=3)
        c.hears(subject, ttl=2)
    settled(*three)
    assert (b.decisions(), c.decisions()) == (12, 12)
    eventually(lambda: (a.peer("b.loop") or {})["health"] == "active", "A has B back")


def test_also_when_the_sender_was_killed_meanwhile(three: list[RunningNode]) -> None:
    a, b, c = three
    b.kill9()
    subject = a.register()
    a.kill9()
    a.start()
    b.start()
    assert b.hears(subject)["verified"]
    assert c.hears(subject, ttl=2)["verified"]


def test_also_when_relay_and_sender_come_back_in_the_other_order(three: list[RunningNode]) -> None:
    a, b, c = three
    c.kill9()
    subject = a.register()
    b.hears(subject)
    # Now the copy for C is B's to send, and A is needed no more: C asks B for A's key.
    a.kill9()
    b.kill9()
    c.start()
    b.start()
    assert c.hears(subject, ttl=2)["verified"]


def test_a_restart_neither_floods_again_nor_forgets(three: list[RunningNode]) -> None:
    a, b, c = three
    subjects = [a.register() for _ in range(5)]
    for subject in subjects:
        c.hears(subject)
    settled(*three)
    for node in (a, b):
        node.kill9()
        node.start()
    marker = a.register()
    c.hears(marker)
    settled(*three)
    # B's counts began at its restart, C's at the beginning.
    assert (b.decisions(), c.decisions()) == (1, 6)
    assert [node.decisions("duplicate") for node in three] == [0, 0, 0]
    assert all(node.heard(subject) for node in (b, c) for subject in subjects)
    assert [messages(node) for node in three] == [6, 6, 6]


def test_a_withdrawal_reaches_who_was_down_for_all_of_it(three: list[RunningNode]) -> None:
    a, b, c = three
    b.stop()
    subject = a.register()
    a.set_status(subject, "withdrawn")
    b.start()
    b.hears(subject, available=False)
    c.hears(subject, available=False)
    settled(*three)
    # Only the newest state was worth sending.
    assert (b.decisions(), c.decisions()) == (1, 1)


def test_however_often_they_are_killed_nothing_is_lost(tmp_path: Path) -> None:
    a, b = init_nodes(tmp_path, "a", "b")
    moments = random.Random(20261122)
    with running(a, b):
        befriend(a, b)
        told = set()
        for _ in range(KILLS):
            for node in moments.sample((a, b), 2):
                told |= {a.register() for _ in range(10)}
                time.sleep(moments.uniform(0, 0.1))
                node.kill9()
                node.start()
        settled(a, b)
        with closing(sqlite3.connect(b.root / "loopd.db")) as connection:
            heard = [row[0] for row in connection.execute("SELECT subject FROM heard")]
            decided = connection.execute("SELECT payload FROM audit_entry WHERE kind = 'node_interaction'").fetchall()
        assert set(heard) == told
        assert [json.loads(row[0]).get("reason") for row in decided].count("accepted") == len(told)
