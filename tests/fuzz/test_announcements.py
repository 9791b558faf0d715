"""A real daemon under announcements with bytes changed: taken, or refused with a reason, and nothing else.

The bytes are changed before the peer signs, so that what is inside is looked at, or after, so that nothing may be.
"""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.stage import LD_JSON, OWN, Stage, staged
from tests.hostile.wire import Reply, request
from tests.peer import ANNOUNCE

# What matters in JSON, in dates and in numbers, beside bytes at random.
TELLING = [b"", b'"', b"\\", b"{", b"]", b",", b":", b"null", b"-", b"e9", b"0", b"Z", b"\x00", b"\xff", b"\\ud800"]
PIECES = st.sampled_from(TELLING) | st.binary(max_size=3)
# Where, how much of what is there goes, and what comes instead.
EDITS = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 12), PIECES), min_size=1, max_size=4)
BOUNDED = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("fuzz")) as made:
        yield made


def edited(data: bytes, edits: list[tuple[float, int, bytes]]) -> bytes:
    for place, length, piece in edits:
        at = int(place * len(data))
        data = data[:at] + piece + data[at + length :]
    return data


def send(stage: Stage, body: bytes, headers: dict[str, str]) -> Reply:
    reply = stage.send(request("POST", ANNOUNCE, {**LD_JSON, **headers}, body))
    assert reply.status == 202 or 400 <= reply.status < 500, (body, headers, reply)
    assert bool(reply.reason) == (reply.status >= 400)
    return reply


def test_what_a_peer_signs_may_be_anything(stage: Stage) -> None:
    statuses: list[int] = []

    @BOUNDED
    @given(EDITS)
    def examples(edits: list[tuple[float, int, bytes]]) -> None:
        whole = stage.vienna.announcement(stage.fresh_id("FUZZED"))
        message = stage.vienna.signed_message(edited(whole.body, edits), whole.chain)
        headers = {**message.headers(), **stage.vienna.headers(ANNOUNCE, message.body, OWN)}
        statuses.append(send(stage, message.body, headers).status)

    examples()
    assert {202, 400} <= set(statuses)


def test_what_was_changed_after_it_was_signed_is_never_taken(stage: Stage) -> None:
    @BOUNDED
    @given(EDITS)
    def examples(edits: list[tuple[float, int, bytes]]) -> None:
        message = stage.vienna.announcement(stage.fresh_id("CHANGED"))
        body = edited(message.body, edits)
        headers = {**message.headers(), **stage.vienna.headers(ANNOUNCE, message.body, OWN)}
        assert (send(stage, body, headers).status == 202) == (body == message.body)

    examples()


def test_headers_may_be_anything(stage: Stage) -> None:
    names = sorted({*stage.vienna.headers("", b"", OWN), *stage.vienna.announcement("").headers()})
    text = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=90)

    @BOUNDED
    @given(st.dictionaries(st.sampled_from(names), text, min_size=1, max_size=3))
    def examples(changes: dict[str, str]) -> None:
        message = stage.vienna.announcement(stage.fresh_id("HEADED"))
        right = {**message.headers(), **stage.vienna.headers(ANNOUNCE, message.body, OWN)}
        send(stage, message.body, {**right, **changes})

    examples()


def test_the_node_serves_on(stage: Stage) -> None:
    assert stage.get("/health")
    assert "Traceback" not in stage.node.log_text()
