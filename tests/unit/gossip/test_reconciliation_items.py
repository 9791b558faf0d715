"""The structure, held against a sorted list."""

import tracemalloc
from hashlib import sha256
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.gossip.reconciliation import Items, ItemSet
from loopd.gossip.reconciliation.items import CHUNK_ITEMS_MAX
from loopd.gossip.reconciliation.wire import item_key
from tests.negentropy import digest

Model = dict[tuple[int, bytes], tuple[int, int]]


def an_id(number: int) -> bytes:
    return sha256(b"%d" % number).digest()


def check(found: ItemSet, model: Model, random: Random) -> None:
    ordered = sorted(model)
    assert len(found) == len(ordered)
    assert [found.key(index) for index in range(len(found))] == [item_key(*pair) for pair in ordered]
    assert list(found.ids(0, len(found))) == [item_id for _, item_id in ordered]
    assert list(found.ttls(0, len(found))) == [model[pair][0] for pair in ordered]
    for _ in range(10):
        lower = random.randint(0, len(ordered))
        upper = random.randint(lower, min(len(ordered), lower + 40))
        ids = [item_id for _, item_id in ordered[lower:upper]]
        assert found.fingerprint(lower, upper) == digest(ids)
        assert list(found.ids(lower, upper)) == ids
    for pair in random.sample(ordered, min(10, len(ordered))):
        assert ordered[found.find(item_key(*pair))] == pair
        assert found.ttl(found.find(item_key(*pair))) == model[pair][0]


@pytest.mark.parametrize("seed", range(6))
def test_items_come_and_go_in_any_order(seed: int) -> None:
    random = Random(seed)
    items, model = Items(), dict[tuple[int, bytes], tuple[int, int]]()
    times = 40 if seed % 2 else 10**12
    for step in range(3000):
        growing = step < 2000
        if random.random() < (0.8 if growing else 0.15) or not model:
            pair = (random.randrange(times), an_id(random.randrange(2500)))
            mark = (random.randint(1, 4), random.randrange(5))
            items.put(*pair, *mark)
            model[pair] = mark
        else:
            pair = random.choice(list(model)) if random.random() < 0.9 else (1, an_id(-1))
            assert items.remove(*pair) == (pair in model)
            model.pop(pair, None)
        assert len(items) == len(model)
    check(items.snapshot(), model, random)
    inside = {pair: mark for pair, mark in model.items() if mark[1] in {1, 3}}
    check(items.snapshot({1, 3}), inside, random)
    check(items.snapshot(set()), {}, random)
    for pair in list(model)[:20]:
        assert items.ttl(*pair) == model[pair][0]
    assert items.ttl(1, an_id(-1)) is None


@given(st.dictionaries(st.tuples(st.integers(0, 2**64 - 2), st.binary(min_size=32, max_size=32)), st.integers(1, 4)))
@settings(max_examples=50, deadline=None)
def test_built_at_once_is_as_built_one_by_one(model: dict[tuple[int, bytes], int]) -> None:
    one_by_one = Items()
    for (timestamp, item_id), ttl in model.items():
        one_by_one.put(timestamp, item_id, ttl)
    at_once = Items((timestamp, item_id, ttl, 0) for (timestamp, item_id), ttl in model.items())
    for items in (one_by_one, at_once):
        check(items.snapshot(), {pair: (ttl, 0) for pair, ttl in model.items()}, Random(1))


def test_a_snapshot_stands_still() -> None:
    items = Items((number, an_id(number), 3, number % 2) for number in range(1000))
    before = items.snapshot()
    fingerprint = before.fingerprint(0, 1000)
    items.put(500, an_id(-5), 2)
    items.put(7, an_id(7), 1)
    items.remove(900, an_id(900))
    assert len(before) == 1000
    assert before.fingerprint(0, 1000) == fingerprint == digest([an_id(number) for number in range(1000)])
    assert before.ttl(7) == 3
    assert items.snapshot().ttl(7) == 1


def test_nothing_is_found_in_an_empty_set() -> None:
    nothing = Items().snapshot()
    assert (len(nothing), nothing.find(item_key(5, an_id(1))), list(nothing.ids(0, 0))) == (0, 0, [])
    assert nothing.fingerprint(0, 0) == digest([])
    with pytest.raises(IndexError):
        nothing.key(0)
    assert not Items().remove(5, an_id(1))


@pytest.mark.parametrize(("ttl", "scope"), [(0, 0), (5, 0), (1, -1), (1, 2**29)])
def test_a_mark_that_no_item_can_have_is_a_mistake_of_ours(ttl: int, scope: int) -> None:
    with pytest.raises(ValueError):
        Items().put(1, an_id(1), ttl, scope)


def test_the_newest_leave_full_chunks_behind_and_the_expired_leave_none() -> None:
    items = Items()
    for number in range(10 * CHUNK_ITEMS_MAX):
        items.put(number, an_id(number), 3)
    assert {len(chunk) for chunk in items._chunks} == {CHUNK_ITEMS_MAX}
    for number in range(10 * CHUNK_ITEMS_MAX):
        if number % 50:
            items.remove(number, an_id(number))
    assert len(items._chunks) == 1


def test_a_hundred_thousand_ids_take_less_than_sixteen_mebibytes() -> None:
    random = Random(1)
    tracemalloc.start()
    items = Items((1_800_000_000_000 + number * 10, random.randbytes(32), 3, number % 100) for number in range(100_000))
    at_rest = tracemalloc.get_traced_memory()[0]
    snapshot = items.snapshot()
    for index in range(0, len(snapshot), CHUNK_ITEMS_MAX - 1):
        snapshot.fingerprint(index, index + 1)
    compared = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert at_rest < 6 * 2**20
    assert compared < 10 * 2**20
