"""The chain as pure rules: it holds as made, and breaks at the entry that anything was done to."""

from dataclasses import replace
from hashlib import sha256
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.audit.rules import GENESIS_HASH, ChainCheck, ChainReport, StoredEntry, entry_hash, payload_digest

CONTENT = st.tuples(st.integers(0, 2**62), st.binary(max_size=20), st.binary(max_size=40), st.binary(max_size=60))


def chain(contents: list[tuple[int, bytes, bytes, bytes]]) -> list[StoredEntry]:
    entries, previous = [], GENESIS_HASH
    for sequence, (at_ms, kind, subject, payload) in enumerate(contents, start=1):
        salt = sequence.to_bytes(16, "big")
        digest = payload_digest(salt, payload)
        previous = entry_hash(previous, sequence, at_ms, kind, subject, digest)
        entries.append(StoredEntry(sequence, at_ms, kind, subject, payload, salt, digest, previous))
    return entries


def check(entries: list[StoredEntry]) -> ChainReport:
    walk = ChainCheck()
    for entry in entries:
        walk.feed(entry)
    return walk.report


def test_the_hash_is_the_documented_one() -> None:
    digest = sha256(b"s" * 16 + b"{}").digest()
    encoded = (
        bytes(32)
        + b"loopd-audit-entry-v1\n"
        + (1).to_bytes(8, "big")
        + (1700).to_bytes(8, "big")
        + b"\0\0\0\x08operator"
        + b"\0\0\0\x03x:1"
        + digest
    )
    assert payload_digest(b"s" * 16, b"{}") == digest
    assert entry_hash(GENESIS_HASH, 1, 1700, b"operator", b"x:1", digest) == sha256(encoded).digest()


def test_an_empty_chain_holds() -> None:
    assert check([]) == ChainReport(entries=0, erased=0, head_hash=GENESIS_HASH, first_break=None)


@settings(max_examples=50)
@given(contents=st.lists(CONTENT, min_size=1, max_size=8), erased=st.sets(st.integers(0, 7)))
def test_a_chain_holds_whatever_is_erased(contents: list[Any], erased: set[int]) -> None:
    entries = chain(contents)
    left = [
        replace(entry, payload=None, salt=None) if index in erased else entry for index, entry in enumerate(entries)
    ]
    report = check(left)
    assert report.first_break is None
    assert report.entries == len(entries)
    assert report.erased == len(erased & set(range(len(entries))))
    assert report.head_hash == entries[-1].entry_hash


def other(value: Any) -> Any:
    return value + 1 if isinstance(value, int) else value + b"x"


@settings(max_examples=100)
@given(
    contents=st.lists(CONTENT, min_size=1, max_size=8),
    field=st.sampled_from(["at_ms", "kind", "subject", "payload", "salt", "payload_digest", "entry_hash"]),
    data=st.data(),
)
def test_a_change_is_found_where_it_was_made(contents: list[Any], field: str, data: st.DataObject) -> None:
    entries = chain(contents)
    index = data.draw(st.integers(0, len(entries) - 1))
    entries[index] = replace(entries[index], **{field: other(getattr(entries[index], field))})
    found = check(entries).first_break
    assert found is not None
    assert found.sequence == index + 1


@settings(max_examples=50)
@given(contents=st.lists(CONTENT, min_size=2, max_size=8), data=st.data())
def test_an_entry_taken_out_is_found_missing(contents: list[Any], data: st.DataObject) -> None:
    entries = chain(contents)
    index = data.draw(st.integers(0, len(entries) - 2))
    del entries[index]
    found = check(entries).first_break
    assert found is not None
    assert found.sequence == index + 1
    assert "missing" in found.problem


def test_rewriting_an_entry_with_its_hash_breaks_the_next() -> None:
    entries = chain([(1, b"a", b"b", b"c")] * 3)
    forged = chain([(1, b"a", b"b", b"c"), (1, b"a", b"b", b"forged")])[1]
    found = check([entries[0], forged, entries[2]]).first_break
    assert found is not None
    assert found.sequence == 3


def test_bytes_cannot_move_between_kind_and_subject() -> None:
    digest = bytes(32)
    assert entry_hash(GENESIS_HASH, 1, 1, b"ab", b"c", digest) != entry_hash(GENESIS_HASH, 1, 1, b"a", b"bc", digest)


def test_payload_and_salt_are_erased_together() -> None:
    (entry,) = chain([(1, b"a", b"b", b"c")])
    for half in (replace(entry, payload=None), replace(entry, salt=None)):
        found = check([half]).first_break
        assert found is not None
        assert "together" in found.problem


def test_a_row_before_the_first_is_named() -> None:
    (entry,) = chain([(1, b"a", b"b", b"c")])
    found = check([replace(entry, sequence=-3), entry]).first_break
    assert found is not None
    assert found.sequence == -3
