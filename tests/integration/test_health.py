"""Health between real processes: a node that hangs, and one that a peer alone cannot reach (§9.4)."""

import re
import signal
import socket
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.nodes import RunningNode, befriend, eventually, free_port, init_nodes, linked, running, settled


def becomes(node: RunningNode, other: RunningNode, health: str) -> dict[str, Any]:
    def look() -> dict[str, Any] | None:
        entry = node.peer(other.node_id)
        return entry if entry is not None and entry["health"] == health else None

    return eventually(look, f"{node} finds {other} {health}", 90)


def all_friends(*nodes: RunningNode) -> None:
    for place, one in enumerate(nodes):
        for other in nodes[place + 1 :]:
            befriend(one, other)


def test_a_node_that_hangs_is_suspected_given_up_and_found_again(tmp_path: Path) -> None:
    a, b, c = init_nodes(tmp_path, "a", "b", "c")
    with running(a, b, c):
        all_friends(a, b, c)
        linked(a, b, c, a)
        b.signal(signal.SIGSTOP)
        try:
            for node in (a, c):
                assert becomes(node, b, "unreachable")["why"] in ("suspicion_ran_out", "still_silent")
            assert '"state":"suspect"' in a.log_text()
            # Those that hear each other think no worse of each other.
            becomes(a, c, "active")
            subject = a.register()
            c.hears(subject)
        finally:
            b.signal(signal.SIGCONT)
        for node in (a, c):
            becomes(node, b, "active")
        b.hears(subject)
        linked(a, b, c)
        listed = a.cli("peer", "list")
        assert "suspected_by" in listed.out
        assert "answered" in listed.out


class Gate:
    """A way to a port that can be closed: then who connects is left without a word."""

    def __init__(self, port: int) -> None:
        self.port = free_port()
        self.is_open = True
        self._target = port
        self._held: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close_way(self) -> None:
        """Carry nothing more, of the open connections neither."""
        self.is_open = False

    def end(self) -> None:
        for held in (self._listening, *self._held):
            # A thread that waits for something from it wakes.
            with suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
            held.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listening.accept()
                self._held.append(near)
                if self.is_open:
                    far = socket.create_connection(("127.0.0.1", self._target))
                    self._held.append(far)
                    for source, sink in ((near, far), (far, near)):
                        threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if self.is_open:
                    sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def gate(to: RunningNode) -> Iterator[Gate]:
    found = Gate(to.port)
    try:
        yield found
    finally:
        found.end()


def send_through(node: RunningNode, way: Gate, to: RunningNode) -> None:
    """Have a node that does not run call another one by that way."""
    with closing(sqlite3.connect(node.root / "loopd.db")) as connection, connection:
        changed = connection.execute(
            "UPDATE node SET endpoint = ? WHERE node_id = ?",
            (f"https://127.0.0.1:{way.port}/api/v1", to.node_id),
        )
        assert changed.rowcount == 1


def registry_was_read(node: RunningNode, times: int) -> None:
    """Wait until so many peers have asked this process of the node whom it knows."""

    def look() -> bool:
        metrics = node.admin("GET", "/metrics").body.decode()
        count = re.search(r'requests_total\{route="GET /api/v1/federation/nodes",status="200"\} (\d+)', metrics)
        return count is not None and int(count[1]) >= times

    eventually(look, f"{node} was asked {times} times whom it knows")


def test_a_node_that_others_reach_stays_suspected_while_one_that_nobody_reaches_is_given_up(tmp_path: Path) -> None:
    a, b, c, d = init_nodes(tmp_path, "a", "b", "c", "d")
    # Over a link B would reach A, and so A would reach B.
    b.environment["LOOPD_FEDERATION__LINKS"] = "off"
    with gate(b) as way, running(a, b, c, d):
        all_friends(a, b, c, d)
        linked(a, c, d, a)
        settled(a, b, c, d)
        registry_was_read(c, 2)
        a.stop()
        send_through(a, way, b)
        a.start()
        linked(a, c)
        becomes(a, b, "active")
        # A knows now whom C knows.
        registry_was_read(c, 3)
        way.close_way()
        assert becomes(a, b, "suspect")["why"] == "only_others_reach_it"
        d.kill9()
        becomes(a, d, "unreachable")
        # What others say of B outlasted a suspicion that nobody contradicts.
        listed = becomes(a, b, "suspect")
        assert listed["why"] == "only_others_reach_it"
        becomes(c, b, "active")
        becomes(b, a, "active")
