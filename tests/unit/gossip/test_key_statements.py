import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.crypto.keys import NodeKey
from loopd.gossip.key_statements import STATEMENTS, build_revocation, build_rotation, read_statement
from loopd.protocol.documents import check_document
from loopd.protocol.errors import Refusal

CONTEXT = "https://local-loop-io.github.io/projects/loop-protocol/contexts/loop-v0.2.0.jsonld"
NOW_MS = 1_790_000_000_000
OLD, NEW, OTHER = (NodeKey.from_seed(bytes([n]) * 32) for n in (1, 2, 3))
ROTATION, ROTATION_BODY = build_rotation(CONTEXT, "munich.loop", 1, OLD, NEW, NOW_MS)
REVOCATION, REVOCATION_BODY = build_revocation(CONTEXT, "munich.loop", 2, OLD.public.raw, NEW, NOW_MS)


def read(body: bytes) -> Any:
    return read_statement(check_document(body, STATEMENTS).value)


def reason(body: bytes, **changes: Any) -> str:
    with pytest.raises(Refusal) as caught:
        read(json.dumps({**json.loads(body), **changes}).encode())
    return caught.value.reason


@given(
    seeds=st.lists(st.binary(min_size=32, max_size=32), min_size=2, max_size=2, unique=True),
    n=st.integers(1, 2**53 - 1),
)
def test_what_is_built_is_a_document_that_holds(seeds: list[bytes], n: int) -> None:
    old, new = map(NodeKey.from_seed, seeds)
    rotation, body = build_rotation(CONTEXT, "munich.loop", n, old, new, NOW_MS)
    assert read(body) == rotation
    revocation, body = build_revocation(CONTEXT, "munich.loop", n, old.public.raw, new, NOW_MS)
    assert read(body) == revocation


@pytest.mark.parametrize(
    "changes",
    [
        {"node_id": "vienna.loop"},
        {"sequence": 2},
        {"old_key": OTHER.public.raw.hex()},
        {"new_key": OTHER.public.raw.hex()},
        {"issued_at": "2026-09-21T12:00:00Z"},
        {"old_signature": "0" * 128},
        {"new_signature": "0" * 128},
    ],
)
def test_nothing_of_a_rotation_can_be_changed(changes: dict[str, Any]) -> None:
    assert reason(ROTATION_BODY, **changes) == "bad_statement"


@pytest.mark.parametrize(
    "changes",
    [
        {"node_id": "vienna.loop"},
        {"sequence": 3},
        {"revoked_key": OTHER.public.raw.hex()},
        {"signed_by": OTHER.public.raw.hex()},
        {"issued_at": "2026-09-21T12:00:00Z"},
        {"signature": "0" * 128},
    ],
)
def test_nothing_of_a_revocation_can_be_changed(changes: dict[str, Any]) -> None:
    assert reason(REVOCATION_BODY, **changes) == "bad_statement"


def test_one_signature_is_not_enough_and_neither_is_both_by_one_key() -> None:
    by_one = OLD.sign(ROTATION.signed_bytes).hex()
    assert reason(ROTATION_BODY, new_signature=by_one) == "bad_statement"
    by_other = NEW.sign(ROTATION.signed_bytes).hex()
    assert reason(ROTATION_BODY, old_signature=by_other) == "bad_statement"


def test_a_signature_of_one_kind_is_none_of_the_other() -> None:
    signed = NEW.sign(ROTATION.signed_bytes).hex()
    assert reason(REVOCATION_BODY, signature=signed) == "bad_statement"


@pytest.mark.parametrize("field", ["old_key", "new_key"])
def test_what_is_no_key_to_sign_with_is_refused(field: str) -> None:
    assert reason(ROTATION_BODY, **{field: "00" * 32}) == "bad_statement"


def test_a_key_does_not_replace_itself() -> None:
    _, body = build_rotation(CONTEXT, "munich.loop", 1, OLD, OLD, NOW_MS)
    assert reason(body) == "bad_statement"


def test_a_statement_is_known_however_it_is_written() -> None:
    spaced = json.dumps({**json.loads(ROTATION_BODY), "more": 1}, indent=3).encode()
    assert read(spaced).statement_id == ROTATION.statement_id != REVOCATION.statement_id
