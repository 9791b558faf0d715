"""Hostile requests to a real daemon: each gets its documented status and reason, and afterwards nothing shows of it.

The table is in tests/hostile. All rows play on one node, one after the other, so that what one leaves behind would
show in those that follow.
"""

import ssl
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.hostile import announcements, documents, doors, mirrors, money, peers, searches, signatures, transport
from tests.hostile.stage import LD_JSON, OWN, REFUSED, Row, Stage, copy_of, listed_reasons, signed, staged
from tests.hostile.wire import PATIENCE_S, Reply, Wire, read_reply, request
from tests.nodes import RunningNode, running
from tests.peer import ABSENT, ANNOUNCE, HANDSHAKE, FakePeer, utc

MODULES = {
    module.__name__.rpartition(".")[2]: module.ROWS
    for module in (documents, doors, searches, signatures, announcements, peers, mirrors, money, transport)
}
TABLE = [pytest.param(row, id=f"{name}: {row.name}") for name, rows in MODULES.items() for row in rows]

# Refusals of the door itself, before any route is found: no route describes them.
OF_THE_DOOR = {"unknown_path", "method_not_allowed", "bad_http", "expectation_failed"}


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("hostile")) as made:
        yield made


@pytest.fixture(scope="module")
def description(stage: Stage) -> Any:
    return stage.get("/openapi.json")


def test_no_two_rows_have_one_name() -> None:
    names = [param.id for param in TABLE]
    assert len(names) == len(set(names)) >= 120


@pytest.mark.parametrize("row", TABLE)
def test_each_is_answered_as_documented(row: Row, stage: Stage, description: Any) -> None:
    data = row.bytes_for(stage)
    started_s = time.monotonic()
    reply = stage.send(data)
    assert time.monotonic() - started_s < PATIENCE_S
    assert (reply.status, _reason(reply, data)) == (row.status, row.reason), reply
    if reply.status >= 400 and row.reason and row.reason not in OF_THE_DOOR:
        method, target = data.split(b" ", 2)[:2]
        listed = listed_reasons(description, method.decode(), target.decode("latin-1").partition("?")[0])
        assert listed is not None
        assert row.reason in listed
    if reply.status == 503:
        assert int(reply.headers["Retry-After"]) >= 1


def _reason(reply: Reply, data: bytes) -> str:
    return "" if data.startswith(b"HEAD ") else reply.reason


# What takes more than one request


def test_a_repeat_is_answered_as_the_first_was_and_has_no_second_effect(stage: Stage) -> None:
    subject = stage.fresh_id("REPEATED")
    data = copy_of(stage.vienna, stage.vienna.announcement(subject))
    first, before = stage.send(data), _heard(stage)
    decided = stage.node.decisions()
    for _ in range(3):
        again = stage.send(data)
        assert (again.status, again.body) == (202, first.body)
    assert _heard(stage) == before
    assert stage.node.decisions() == decided
    assert subject in before


def test_a_repeat_with_another_ttl_is_another_request(stage: Stage) -> None:
    message = stage.vienna.announcement(stage.fresh_id("REPEATED"))
    own = stage.vienna.headers(ANNOUNCE, message.body, OWN)
    first = stage.send(copy_of(stage.vienna, message, 3, own))
    raised = stage.send(copy_of(stage.vienna, message, 2, own))
    assert (first.status, raised.status, raised.reason) == (202, 400, "bad_hop")


def test_a_refused_request_is_no_answer_to_the_same_one_later(stage: Stage) -> None:
    body = stage.stranger.handshake()
    subject = stage.fresh_id("LATER")
    stranger = stage.stranger
    data = copy_of(stranger, stranger.announcement(subject))
    assert stage.send(data).reason == "unknown_node"
    assert stage.send(signed(stranger, HANDSHAKE, body)).json()["status"] == "accepted"
    assert stage.send(data).status == 202
    assert subject in _heard(stage)


def test_an_older_revision_changes_nothing(stage: Stage) -> None:
    subject = stage.fresh_id("REVISED")
    newer = stage.vienna.announcement(subject, revision=7, available=False)
    older = stage.vienna.announcement(subject, revision=6, x=REFUSED)
    for message in (newer, older):
        assert stage.send(copy_of(stage.vienna, message)).status == 202
    assert _heard(stage)[subject]["message_id"] == newer.message_id
    assert not _heard(stage)[subject]["available"]


def test_a_higher_ttl_is_not_delivered_again(stage: Stage) -> None:
    subject = stage.fresh_id("RAISED")
    message = stage.introduced.announcement(subject)
    low = stage.send(copy_of(stage.vienna, message, 1))
    before = _heard(stage)[subject]
    high = stage.send(copy_of(stage.vienna, message, 2))
    assert (low.status, high.status) == (202, 202)
    assert {**before, "ttl": 2} == _heard(stage)[subject]


def test_an_origin_of_two_keys_is_heard_when_it_has_shown_its_own(stage: Stage) -> None:
    """Vienna and Berlin introduce Linz with different keys; what Berlin relays waits until Linz shakes hands."""
    first, second = stage.fresh_id("DISPUTED"), stage.fresh_id("DISPUTED")
    assert stage.send(copy_of(stage.vienna, stage.disputed.announcement(first), 2)).status == 202
    twin = stage.disputed_twin
    assert stage.send(copy_of(stage.berlin, twin.announcement(second), 2)).status == 202
    assert first in _heard(stage)
    assert second not in _heard(stage)
    assert stage.send(signed(twin, HANDSHAKE, twin.handshake())).json()["status"] == "accepted"
    assert second in _heard(stage)


def test_an_old_handshake_moves_nobody(stage: Stage) -> None:
    vienna = stage.vienna
    stale = vienna.handshake(timestamp="2026-01-01T00:00:00Z", endpoint="https://refused.example/api/v1")
    assert stage.send(signed(vienna, HANDSHAKE, stale)).json()["status"] == "accepted"
    listed = stage.node.peer("vienna.loop")
    assert listed is not None
    assert (listed["endpoint"], listed["status"]) == (vienna.endpoint, "peer")


def test_who_is_set_aside_stays_so(stage: Stage) -> None:
    answer = stage.send(signed(stage.suspended, HANDSHAKE, stage.suspended.handshake())).json()
    assert (answer["status"], stage.node.standing("salzburg.loop")) == ("rejected", "suspended")


def test_an_unsigned_handshake_does_not_stand_in_the_way_of_a_signed_one(tmp_path: Path) -> None:
    node = RunningNode.init(tmp_path, "munich", development=False)
    vienna = FakePeer("vienna.loop", 48.2082, 16.3738, "https://vienna.example/api/v1")
    wire = Wire(node.port, node.ca_file)
    with running(node):
        unsigned = vienna.handshake(public_key=ABSENT, timestamp=utc(200), endpoint="https://refused.example/api/v1")
        for data in (request("POST", HANDSHAKE, LD_JSON, unsigned), signed(vienna, HANDSHAKE, vienna.handshake())):
            answer = wire.exchange(data).json()
            assert (answer["status"], answer["message"].partition(":")[0]) == ("rejected", "pending")
        waiting = node.peer("vienna.loop")
        assert waiting is not None
        assert waiting["fingerprint"]
        assert waiting["endpoint"] == vienna.endpoint
        late = wire.exchange(request("POST", HANDSHAKE, LD_JSON, unsigned))
        assert (late.status, late.reason) == (401, "bad_signature")


# Below HTTP


def test_two_requests_in_one_breath_get_two_answers_in_order(stage: Stage) -> None:
    first = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    with stage.wire.connect() as sock:
        sock.sendall(first + request("GET", "/nowhere"))
        with sock.makefile("rb") as stream:
            assert [read_reply(stream).status for _ in range(3)] == [200, 404, 0]


def test_a_body_that_was_refused_is_no_second_request(stage: Stage) -> None:
    smuggled = b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"
    head = request("POST", "/api/v1/material", {"Content-Length": str(len(smuggled)), "Content-Type": "text/plain"})
    with stage.wire.connect() as sock:
        sock.sendall(head.replace(b"Connection: close\r\n", b"") + smuggled + request("GET", "/nowhere"))
        with sock.makefile("rb") as stream:
            assert [read_reply(stream).status for _ in range(3)] == [401, 404, 0]


def test_tls_1_2_is_refused(stage: Stage) -> None:
    with pytest.raises((ssl.SSLError, ConnectionError)):
        stage.wire.connect(ssl.TLSVersion.TLSv1_2)


def test_http_without_tls_is_refused(stage: Stage) -> None:
    with closing(stage.wire.plain()) as sock:
        sock.sendall(request("GET", "/health"))
        with suppress(ConnectionError):
            assert b"200 OK" not in sock.recv(1024)


def test_heads_that_trickle_in_end_and_hold_up_nobody(stage: Stage) -> None:
    slow = [stage.wire.connect() for _ in range(20)]
    try:
        for sock in slow:
            # On a busy machine the first may have been cut off before the last has connected.
            with suppress(OSError):
                sock.sendall(b"GET /health HTTP/1.1\r\nX-Slow: ")
        assert stage.send(request("GET", "/health")).status == 200
        for sock in slow:
            with sock.makefile("rb") as stream:
                assert read_reply(stream).status == 0
    finally:
        for sock in slow:
            sock.close()


# Afterwards


def test_what_was_heard_is_listed_as_described(stage: Stage, description: Any) -> None:
    described = description["paths"]["/api/v1/federation/announcements"]["get"]["responses"]["200"]
    listed = stage.get("/api/v1/federation/announcements?limit=100")
    assert len(listed["results"]) >= 10
    jsonschema.validate(listed, described["content"]["application/json"]["schema"])


def test_the_node_serves_on(stage: Stage) -> None:
    assert stage.get("/health")
    assert stage.node.peer("vienna.loop") is not None
    assert (
        stage.send(stage.post("/api/v1/material", documents.material(id="MAT-DE-MUC-2026-FOOD-AFTER1"))).status == 201
    )


def test_the_log_tells_of_no_failure_of_ours(stage: Stage) -> None:
    words = ("internal_error", "traceback", '"level":"error"', "never retrieved", "a request failed")
    lines = stage.node.log_text().splitlines()
    assert [line for line in lines if any(word in line.lower() for word in words)] == []


def test_what_was_refused_is_nowhere(stage: Stage) -> None:
    """Every document to be refused carries one word; no list and no page of the database does."""
    lists = ("material", "product", "federation/announcements", "federation/nodes")
    for name in lists:
        query = "" if name.endswith("nodes") else "?limit=100"
        assert REFUSED.lower() not in str(stage.get(f"/api/v1/{name}{query}")).lower()
    assert stage.get(f"/api/v1/material/{doors.HERE}/offers")["offers"] == []
    for name in (REFUSED, "refused.loop", "refused.example", "refused-farm"):
        assert name.encode() not in _database(stage)


def test_secrets_and_people_are_nowhere(stage: Stage) -> None:
    held = {
        "log": stage.node.log_text().encode(),
        "database": _database(stage),
        "answers": b"\n".join(reply.body + str(reply.headers).encode() for reply in stage.replies),
    }
    words = [*stage.tokens.values(), *documents.PERSONAL, documents.PERSONAL[2].replace(" ", "")]
    for place, text in held.items():
        for word in words:
            assert word.encode() not in text, (place, word)


def _heard(stage: Stage) -> dict[str, Any]:
    entries = stage.get("/api/v1/federation/announcements?limit=100")["results"]
    return {entry["subject"]: entry for entry in entries}


def _database(stage: Stage) -> bytes:
    return b"".join(path.read_bytes() for path in stage.node.root.glob("loopd.db*"))


@pytest.mark.parametrize("path", ["/api/v1/federate/offer", "/api/v1/federate/mirror"])
def test_junk_for_any_door_of_nodes_leads_to_a_ban_that_the_operator_lifts(path: str, stage: Stage) -> None:
    berlin = stage.berlin
    # Beside the stage, which forgives after each refusal.
    replies = [stage.wire.exchange(signed(berlin, path, b"{%d" % number)) for number in range(30)]
    assert (replies[0].status, replies[-1].status, replies[-1].reason) == (400, 403, "banned")
    listed = stage.node.peer(berlin.node_id)
    assert listed is not None
    assert listed["conduct"] == "banned"
    assert stage.node.admin("POST", f"/peers/{berlin.node_id}/resume").status == 200
    assert stage.send(signed(berlin, path, b"{31")).status == 400


def test_a_signature_that_does_not_hold_counts_against_nobody(stage: Stage) -> None:
    forged = stage.berlin.with_other_key()
    for number in range(30):
        reply = stage.wire.exchange(signed(forged, "/api/v1/federate/offer", b'{"number": %d}' % number))
        assert (reply.status, reply.reason) == (401, "bad_signature")
    listed = stage.node.peer(forged.node_id)
    assert listed is not None
    assert listed["conduct"] == "clear"
