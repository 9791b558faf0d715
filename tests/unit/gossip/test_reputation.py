import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.gossip.reputation import (
    BAN_POINTS,
    HALF_LIFE_MS,
    OFFENCE_OF_REASON,
    POINTS,
    POINTS_MAX,
    Conduct,
    Offence,
    Reputation,
)

NOW_MS = 1_790_000_000_000


def after(offence: Offence, times: int, start: Reputation | None = None, now_ms: int = NOW_MS) -> Reputation:
    reputation = start or Reputation(as_of_ms=now_ms)
    for _ in range(times):
        reputation = reputation.after(offence, now_ms)
    return reputation


@pytest.mark.parametrize("offence", Offence)
def test_every_offence_has_points_and_a_reason(offence: Offence) -> None:
    assert POINTS[offence] > 0
    assert offence in OFFENCE_OF_REASON.values()


@pytest.mark.parametrize(
    "reason",
    ["bad_times", "clock_skew", "bad_signature", "unknown_origin", "key_conflict", "rate_limited", "overloaded",
     "not_a_peer", "suspended", "too_many_messages", "floods_over_share", "changed_meanwhile",
     "unknown_context", "wrong_target"],
)  # fmt: skip
def test_slowness_clocks_and_what_somebody_else_may_have_sent_are_no_offence(reason: str) -> None:
    assert reason not in OFFENCE_OF_REASON


@pytest.mark.parametrize(
    ("offence", "greylisted_at", "banned_at"),
    [(Offence.FORGED_HOP, 3, 5), (Offence.WRONG_ORIGIN, 5, 10), (Offence.JUNK, 10, 20)],
)
def test_first_the_greylist_then_the_ban(offence: Offence, greylisted_at: int, banned_at: int) -> None:
    assert after(offence, greylisted_at - 1).conduct is Conduct.CLEAR
    assert after(offence, greylisted_at).conduct is Conduct.GREYLISTED
    assert after(offence, banned_at - 1).conduct is Conduct.GREYLISTED
    assert after(offence, banned_at).conduct is Conduct.BANNED


def test_points_halve_and_a_mark_is_left_lower_than_it_was_reached() -> None:
    banned = after(Offence.FORGED_HOP, 5)
    assert banned.points == BAN_POINTS
    # 100 points are 70.7 after half a half-life: still banned; 50 after one: at the mark; 49.9 a moment later.
    assert banned.at(NOW_MS + HALF_LIFE_MS // 2).conduct is Conduct.BANNED
    assert banned.at(NOW_MS + HALF_LIFE_MS).points == 50.0
    assert banned.at(NOW_MS + HALF_LIFE_MS).conduct is Conduct.BANNED
    assert banned.at(NOW_MS + HALF_LIFE_MS + 10_000).conduct is Conduct.GREYLISTED
    greylisted = after(Offence.JUNK, 10)
    assert greylisted.at(NOW_MS + HALF_LIFE_MS).conduct is Conduct.GREYLISTED
    assert greylisted.at(NOW_MS + HALF_LIFE_MS + 10_000).conduct is Conduct.CLEAR


def test_no_ban_lasts_longer_than_four_half_lives() -> None:
    worst = after(Offence.FORGED_HOP, 10_000)
    assert worst.points == POINTS_MAX
    assert worst.at(NOW_MS + 4 * HALF_LIFE_MS + 10_000).conduct is Conduct.GREYLISTED


def test_a_flood_beyond_the_share_never_bans_and_lifts_no_other_points() -> None:
    assert after(Offence.OVER_SHARE, 10_000).conduct is Conduct.GREYLISTED
    worst = after(Offence.FORGED_HOP, 10_000)
    assert after(Offence.OVER_SHARE, 10, worst).points == POINTS_MAX


def test_a_clock_set_back_fades_nothing() -> None:
    banned = after(Offence.FORGED_HOP, 5)
    assert banned.at(NOW_MS - 10 * HALF_LIFE_MS).points == banned.points


@given(
    offences=st.lists(st.tuples(st.sampled_from(Offence), st.integers(0, HALF_LIFE_MS)), max_size=30),
    wait_ms=st.integers(0, 20 * HALF_LIFE_MS),
)
def test_points_stay_in_bounds_and_looking_twice_is_looking_once(
    offences: list[tuple[Offence, int]], wait_ms: int
) -> None:
    now_ms, reputation = NOW_MS, Reputation(as_of_ms=NOW_MS)
    for offence, pause_ms in offences:
        now_ms += pause_ms
        before = reputation.at(now_ms)
        reputation = reputation.after(offence, now_ms)
        assert before.points <= reputation.points <= POINTS_MAX
    looked_between = reputation.at(now_ms + wait_ms // 2).at(now_ms + wait_ms)
    at_once = reputation.at(now_ms + wait_ms)
    assert looked_between.points == pytest.approx(at_once.points)
