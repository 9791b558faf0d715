"""Every outcome of a flood's decision, and every reason why a peer is or is not sent a message."""

from dataclasses import replace
from itertools import pairwise

import pytest

from loopd.crypto.hop_chain import hop_anchor, next_hop_value
from loopd.gossip.flood import (
    Copy,
    HopState,
    Newest,
    Outgoing,
    Reason,
    Relay,
    Route,
    View,
    decide,
    forward_targets,
    read_hop_headers,
    route,
)
from loopd.protocol.announcement import Announcement
from loopd.protocol.errors import Invalid
from loopd.protocol.geo import Location, between_km
from loopd.protocol.nodes import KnownNode, PeerAuth, Standing
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import Feature

NOW_MS = 1_800_000_000_000
DAY_MS = 86_400_000
MUNICH, VIENNA, BERLIN = Location(48.1351, 11.582), Location(48.2082, 16.3738), Location(52.52, 13.405)
SEED = bytes(range(32))
ONE, TWO = next_hop_value(SEED), next_hop_value(next_hop_value(SEED))
MESSAGE_ID = b"\x50" * 32

FULL = Announcement(
    subject="MAT-DE-MUC-2026-FOOD-B847F3",
    subject_kind=SubjectKind.MATERIAL,
    origin="munich.loop",
    available=True,
    state="available",
    category="organic-food",
    quantity=None,
    unit=None,
    location=None,
    available_from_ms=None,
    expires_ms=None,
    revision=5,
    issued_at_ms=NOW_MS,
    valid_until_ms=NOW_MS + DAY_MS,
    ttl=3,
    radius_km=1000.0,
    origin_location=MUNICH,
    hop_anchor=hop_anchor(SEED, 3),
)
PLAIN = replace(FULL, revision=0, radius_km=None, origin_location=None, hop_anchor=None)
DIRECT = Copy(FULL, MESSAGE_ID, "munich.loop", "munich.loop", NOW_MS, 3, SEED)
RELAYED = replace(DIRECT, sender="vienna.loop", ttl=2, hop_value=ONE)
PLAIN_DIRECT = replace(DIRECT, announcement=PLAIN, ttl=None, hop_value=None)
PLAIN_RELAYED = replace(PLAIN_DIRECT, sender="vienna.loop", ttl=2)
EMPTY = View("berlin.loop", BERLIN, None, None)


def test_a_new_message_is_delivered_and_passed_on_with_one_ttl_less() -> None:
    decision = decide(DIRECT, EMPTY, NOW_MS)
    assert (decision.reason, decision.deliver, decision.relay) == (Reason.ACCEPTED, True, Relay.FORWARDED)
    assert decision.held == HopState(3, SEED)
    assert decision.forward == HopState(2, ONE)
    assert decision.refusal() is None


def test_who_receives_ttl_1_passes_nothing_on() -> None:
    decision = decide(replace(RELAYED, ttl=1, hop_value=TWO), EMPTY, NOW_MS)
    assert (decision.reason, decision.relay, decision.forward) == (Reason.ACCEPTED, Relay.LAST_HOP, None)


def test_a_body_with_a_lower_ttl_travels_less_far() -> None:
    short = replace(FULL, ttl=1, hop_anchor=hop_anchor(SEED, 1))
    assert decide(replace(DIRECT, announcement=short, ttl=1), EMPTY, NOW_MS).relay is Relay.LAST_HOP
    assert decide(replace(RELAYED, announcement=short, ttl=1), EMPTY, NOW_MS).reason is Reason.BAD_HOP


@pytest.mark.parametrize(
    "copy",
    [
        replace(DIRECT, ttl=2, hop_value=ONE),
        replace(DIRECT, ttl=1, hop_value=TWO),
        replace(DIRECT, ttl=4),
        replace(DIRECT, ttl=0),
        replace(DIRECT, hop_value=ONE),
        replace(DIRECT, hop_value=None),
        replace(DIRECT, hop_value=bytes(31)),
        replace(RELAYED, ttl=3, hop_value=SEED),
        replace(RELAYED, ttl=2, hop_value=SEED),
        replace(RELAYED, ttl=2, hop_value=TWO),
        replace(RELAYED, ttl=1, hop_value=ONE),
        replace(RELAYED, ttl=1, hop_value=FULL.hop_anchor),
        replace(RELAYED, ttl=0, hop_value=FULL.hop_anchor),
        replace(RELAYED, ttl=-1),
        replace(RELAYED, hop_value=None),
        replace(PLAIN_RELAYED, ttl=3),
        replace(PLAIN_RELAYED, ttl=0),
        replace(PLAIN_DIRECT, ttl=2),
    ],
)
def test_a_ttl_that_the_copy_cannot_have_is_bad_hop(copy: Copy) -> None:
    decision = decide(copy, EMPTY, NOW_MS)
    assert decision.reason is Reason.BAD_HOP
    assert (decision.deliver, decision.held, decision.forward) == (False, None, None)
    refusal = decision.refusal()
    assert refusal is not None
    assert (refusal.status, refusal.reason) == (400, "bad_hop")


@pytest.mark.parametrize(
    "copy",
    [
        replace(DIRECT, origin="vienna.loop"),
        replace(DIRECT, origin="vienna.loop", sender="vienna.loop"),
        replace(RELAYED, announcement=replace(FULL, origin="linz.loop")),
        # The short form, from another than its origin.
        replace(DIRECT, sender="vienna.loop", ttl=None, hop_value=None),
        replace(PLAIN_DIRECT, sender="vienna.loop"),
        # A node without signatures speaks for itself alone.
        replace(RELAYED, verified=False),
    ],
)
def test_an_origin_that_did_not_sign_is_a_mismatch(copy: Copy) -> None:
    decision = decide(copy, EMPTY, NOW_MS)
    assert decision.reason is Reason.ORIGIN_MISMATCH
    refusal = decision.refusal()
    assert refusal is not None
    assert (refusal.status, refusal.reason) == (400, "origin_mismatch")


def test_a_plain_message_starts_as_if_received_with_ttl_3() -> None:
    decision = decide(PLAIN_DIRECT, EMPTY, NOW_MS)
    assert decision.reason is Reason.ACCEPTED
    assert (decision.held, decision.forward) == (HopState(3, None), HopState(2, None))


def test_a_plain_message_is_relayed_without_hop_values() -> None:
    assert decide(PLAIN_RELAYED, EMPTY, NOW_MS).forward == HopState(1, None)
    assert decide(replace(PLAIN_RELAYED, ttl=1), EMPTY, NOW_MS).relay is Relay.LAST_HOP


def test_a_full_form_without_a_hop_value_is_delivered_and_stays_here() -> None:
    decision = decide(replace(DIRECT, ttl=None, hop_value=None), EMPTY, NOW_MS)
    assert (decision.reason, decision.relay) == (Reason.ACCEPTED, Relay.NO_HOP_PROOF)
    assert (decision.held, decision.forward) == (HopState(1, None), None)
    # A copy with its proof, which comes the long way, is worth more.
    later = decide(RELAYED, replace(EMPTY, seen=decision.held), NOW_MS)
    assert (later.reason, later.deliver, later.forward) == (Reason.UPGRADED, False, HopState(1, TWO))


def test_what_a_node_without_signatures_says_is_delivered_and_stays_here() -> None:
    for copy in (PLAIN_DIRECT, DIRECT):
        decision = decide(replace(copy, verified=False), EMPTY, NOW_MS)
        assert (decision.reason, decision.deliver) == (Reason.ACCEPTED, True)
        assert (decision.relay, decision.forward) == (Relay.UNVERIFIED, None)


@pytest.mark.parametrize("ttl", [1, 2, 3])
def test_no_better_copy_of_a_known_message_is_a_duplicate(ttl: int) -> None:
    copies = {3: DIRECT, 2: RELAYED, 1: replace(RELAYED, ttl=1, hop_value=TWO)}
    seen = replace(EMPTY, seen=HopState(ttl, None))
    reasons = {received: decide(copy, seen, NOW_MS).reason for received, copy in copies.items()}
    assert reasons == {received: Reason.DUPLICATE if received <= ttl else Reason.UPGRADED for received in copies}


def test_a_better_copy_is_passed_on_again_but_never_delivered_again() -> None:
    decision = decide(DIRECT, replace(EMPTY, seen=HopState(1, TWO)), NOW_MS)
    assert (decision.reason, decision.deliver) == (Reason.UPGRADED, False)
    assert (decision.held, decision.forward) == (HopState(3, SEED), HopState(2, ONE))


def test_ones_own_message_coming_back_is_a_duplicate() -> None:
    assert decide(RELAYED, View("munich.loop", MUNICH, None, None), NOW_MS).reason is Reason.DUPLICATE


def test_validity_has_no_grace() -> None:
    end_ms = FULL.valid_until_ms
    assert decide(DIRECT, EMPTY, end_ms - 1).reason is Reason.ACCEPTED
    assert decide(DIRECT, EMPTY, end_ms).reason is Reason.EXPIRED
    # Neither is a better copy of it passed on.
    assert decide(DIRECT, replace(EMPTY, seen=HopState(1, TWO)), end_ms).reason is Reason.EXPIRED


def test_at_the_radius_is_inside() -> None:
    distance_km = between_km(MUNICH, BERLIN)
    at, short_of = (replace(FULL, radius_km=radius_km) for radius_km in (distance_km, distance_km - 0.001))
    assert decide(replace(DIRECT, announcement=at), EMPTY, NOW_MS).reason is Reason.ACCEPTED
    outside = decide(replace(DIRECT, announcement=short_of), EMPTY, NOW_MS)
    assert (outside.reason, outside.deliver, outside.held, outside.forward) == (Reason.OUT_OF_SCOPE, False, None, None)
    unbounded = replace(FULL, radius_km=None)
    sydney = View("sydney.loop", Location(-33.87, 151.21), None, None)
    assert decide(replace(DIRECT, announcement=unbounded), sydney, NOW_MS).reason is Reason.ACCEPTED


MINUTE_MS = 60_000


@pytest.mark.parametrize(
    ("issued_ms", "origin_ms", "valid_ms", "sound"),
    [
        (0, 0, DAY_MS, True),
        (0, 5 * MINUTE_MS, DAY_MS, True),
        (5 * MINUTE_MS, 5 * MINUTE_MS, DAY_MS, True),
        (0, 5 * MINUTE_MS + 1, DAY_MS, False),
        (0, -5 * MINUTE_MS, DAY_MS, True),
        (0, -5 * MINUTE_MS - 1, DAY_MS, False),
        (5 * MINUTE_MS + 1, 5 * MINUTE_MS, DAY_MS, False),
        (-3 * DAY_MS, -3 * DAY_MS, DAY_MS, True),
        (0, 0, 7 * DAY_MS, True),
        (0, 0, 7 * DAY_MS + 1, False),
        (0, 0, 0, False),
        (0, 0, -DAY_MS, False),
    ],
)
def test_times_must_agree(issued_ms: int, origin_ms: int, valid_ms: int, sound: bool) -> None:
    announcement = replace(FULL, issued_at_ms=NOW_MS + issued_ms, valid_until_ms=max(NOW_MS + issued_ms + valid_ms, 0))
    copy = replace(DIRECT, announcement=announcement, origin_timestamp_ms=NOW_MS + origin_ms)
    assert (decide(copy, EMPTY, NOW_MS).reason is not Reason.BAD_TIMES) is sound


# From the oldest state of a subject to the newest.
RISING = [
    Newest(9, NOW_MS + 9, b"\x99" * 32, verified=False),
    Newest(0, NOW_MS, MESSAGE_ID),
    Newest(4, NOW_MS + 1, b"\x60" * 32),
    Newest(5, NOW_MS - 1, b"\x60" * 32),
    Newest(5, NOW_MS, b"\x40" * 32),
    Newest(5, NOW_MS, MESSAGE_ID),
    Newest(5, NOW_MS, b"\x60" * 32),
    Newest(5, NOW_MS + 1, b"\x40" * 32),
    Newest(6, NOW_MS - 1, b"\x40" * 32),
]


@pytest.mark.parametrize("newest", RISING)
def test_a_newer_state_supersedes_and_an_older_one_gives_way(newest: Newest) -> None:
    newer = RISING.index(newest) > RISING.index(Newest(5, NOW_MS, MESSAGE_ID))
    decision = decide(DIRECT, replace(EMPTY, newest=newest), NOW_MS)
    assert decision.reason is (Reason.SUPERSEDED if newer else Reason.ACCEPTED)
    # A better copy of what is superseded by now is not passed on either.
    again = decide(DIRECT, replace(EMPTY, newest=newest, seen=HopState(1, TWO)), NOW_MS)
    assert again.reason is (Reason.SUPERSEDED if newer else Reason.UPGRADED)
    assert (again.forward is None) is newer


def test_all_nodes_end_with_the_same_state_whatever_came_first() -> None:
    for older, newer in pairwise(RISING):
        copies = [
            replace(
                PLAIN_DIRECT,
                announcement=replace(PLAIN, revision=state.revision, issued_at_ms=state.issued_at_ms),
                message_id=state.message_id,
                verified=state.verified,
            )
            for state in (older, newer)
        ]
        assert decide(copies[0], replace(EMPTY, newest=newer), NOW_MS).reason is Reason.SUPERSEDED
        assert decide(copies[1], replace(EMPTY, newest=older), NOW_MS).reason is Reason.ACCEPTED


def test_the_first_check_that_fails_names_the_reason() -> None:
    """Each step repairs the one thing that the reason before it named."""
    bad = replace(FULL, origin="x.loop", issued_at_ms=NOW_MS + DAY_MS, valid_until_ms=NOW_MS - 1, radius_km=1.0)
    signed = replace(bad, origin="munich.loop")
    timely = replace(signed, issued_at_ms=NOW_MS - DAY_MS)
    valid = replace(timely, valid_until_ms=NOW_MS + 1)
    inside = replace(valid, radius_km=None)
    known = View("berlin.loop", BERLIN, HopState(2, ONE), Newest(6, NOW_MS, MESSAGE_ID))
    worse = replace(known, seen=HopState(1, TWO))
    current = replace(worse, newest=None)
    steps = [
        (bad, 3, known),
        (signed, 3, known),
        (signed, 2, known),
        (timely, 2, known),
        (timely, 2, worse),
        (valid, 2, worse),
        (inside, 2, worse),
        (inside, 2, current),
        (inside, 2, EMPTY),
    ]
    reasons = [
        decide(
            replace(RELAYED, announcement=announcement, ttl=ttl, origin_timestamp_ms=announcement.issued_at_ms),
            view,
            NOW_MS,
        ).reason
        for announcement, ttl, view in steps
    ]
    assert reasons == list(Reason)


@pytest.mark.parametrize("ttl", ["1", "2", "3"])
def test_hop_headers_are_read(ttl: str) -> None:
    assert read_hop_headers(ttl, SEED.hex()) == (int(ttl), SEED)
    assert read_hop_headers(ttl, None) == (int(ttl), None)
    assert read_hop_headers(None, None) == (None, None)


@pytest.mark.parametrize(
    ("ttl", "hop"),
    [
        *((ttl, SEED.hex()) for ttl in ("", "0", "4", "03", "+3", "-1", "3.0", " 3", "3\n", "３", "9" * 9999, None)),
        *(("3", hop) for hop in ("", "00", SEED.hex().upper(), SEED.hex() + "0", "0x" + "0" * 62)),
    ],
)
def test_other_hop_headers_are_refused(ttl: str | None, hop: str) -> None:
    with pytest.raises(Invalid) as caught:
        read_hop_headers(ttl, hop)
    assert caught.value.reason == "bad_hop"


def peer(
    node_id: str,
    location: Location | None = VIENNA,
    features: frozenset[str] = frozenset({Feature.FLOOD, Feature.PRODUCTS}),
    standing: Standing = Standing.PEER,
) -> KnownNode:
    """A neighbour; what it is not told is as between loopd nodes."""
    return KnownNode(
        node_id=node_id,
        standing=standing,
        auth=PeerAuth.SIGNED,
        endpoint=f"https://{node_id}/api/v1",
        public_key=None,
        location=location,
        features=features,
        named_by_operator=False,
    )


PLAIN_FEATURES = frozenset({Feature.INTEROP})
NEIGHBOURS = {
    "vienna.loop": (peer("vienna.loop"), Route.CAME_FROM),
    "munich.loop": (peer("munich.loop"), Route.ORIGIN),
    "plain.loop": (peer("plain.loop", features=PLAIN_FEATURES), Route.PLAIN_PEER),
    "materials.loop": (peer("materials.loop", features=frozenset({Feature.FLOOD})), Route.NO_PRODUCTS),
    "tokyo.loop": (peer("tokyo.loop", Location(35.68, 139.69)), Route.OUTSIDE_RADIUS),
    "nowhere.loop": (peer("nowhere.loop", None), Route.SEND),
    "linz.loop": (peer("linz.loop"), Route.SEND),
    **{
        f"{standing}.loop": (peer(f"{standing}.loop", standing=standing), Route.NOT_A_PEER)
        for standing in Standing
        if standing is not Standing.PEER
    },
}


def test_each_neighbour_has_its_reason() -> None:
    product = replace(FULL, subject_kind=SubjectKind.PRODUCT)
    targets = forward_targets(product, [node for node, _ in NEIGHBOURS.values()], "vienna.loop")
    assert targets == [(node_id, reason) for node_id, (_, reason) in NEIGHBOURS.items()]


def test_materials_go_to_peers_that_know_no_products() -> None:
    assert forward_targets(FULL, [NEIGHBOURS["materials.loop"][0]], "vienna.loop") == [("materials.loop", Route.SEND)]


def test_ones_own_message_goes_to_plain_peers_too() -> None:
    plain = NEIGHBOURS["plain.loop"][0]
    assert route(Outgoing.of(FULL, None), plain) is Route.SEND
    assert route(Outgoing.of(replace(FULL, subject_kind=SubjectKind.PRODUCT), None), plain) is Route.NO_PRODUCTS


def test_an_unbounded_message_goes_anywhere() -> None:
    assert route(Outgoing.of(PLAIN, "vienna.loop"), NEIGHBOURS["tokyo.loop"][0]) is Route.SEND
