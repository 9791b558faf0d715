"""The numbers of failure detection: time-outs from round trips, presets, doubt."""

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.gossip.probing import PRESETS, WAN, Doubt, Preset, RoundTrip, Waits

WIDE = Waits(1_000, 1, 60_000)


def test_the_time_out_follows_rfc_6298() -> None:
    trip = RoundTrip(WIDE)
    assert (trip.timeout_ms, trip.smoothed_ms) == (1_000, None)
    trip.measured(200)
    assert (trip.timeout_ms, trip.smoothed_ms) == (200 + 4 * 100, 200)
    trip.measured(280)
    # RTTVAR = 3/4 × 100 + 1/4 × 80 = 95; SRTT = 7/8 × 200 + 1/8 × 280 = 210.
    assert (trip.timeout_ms, trip.smoothed_ms) == (210 + 4 * 95, 210)


@given(st.lists(st.integers(-5, 10**9), max_size=50))
def test_the_time_out_stays_within_its_bounds(samples: list[int]) -> None:
    trip = RoundTrip(WAN.link_waits)
    for sample_ms in samples:
        trip.measured(sample_ms)
        assert WAN.link_waits.least_ms <= trip.timeout_ms <= WAN.link_waits.most_ms


def test_a_way_that_became_slow_is_followed_and_a_single_stall_forgotten() -> None:
    trip = RoundTrip(WAN.link_waits)
    for _ in range(50):
        trip.measured(40)
    assert trip.timeout_ms == 300
    trip.measured(10_000)
    for _ in range(20):
        trip.measured(40)
    assert trip.timeout_ms < 400
    for _ in range(20):
        trip.measured(900)
    assert trip.timeout_ms > 900


def test_between_cities_a_failure_is_confirmed_within_30_seconds_and_a_stall_of_10_is_none() -> None:
    assert WAN.detection_bound_ms(WAN.link_waits.most_ms) <= 30_000
    assert WAN.detection_bound_ms(WAN.http_waits.least_ms) <= 30_000
    # A node that has reason for a little doubt still makes it on a usual way.
    assert WAN.detection_bound_ms(WAN.link_waits.least_ms, doubt=1) <= 30_000
    assert WAN.suspicion_ms(100, 0) > 10_000


@pytest.mark.parametrize("preset", PRESETS.values())
def test_suspicions_shorten_with_company_and_lengthen_with_doubt(preset: Preset) -> None:
    shared = [preset.suspicion_ms(count, 0) for count in range(10)]
    assert (shared[0], shared[preset.confirmations]) == (preset.suspicion_most_ms, preset.suspicion_least_ms)
    assert shared == sorted(shared, reverse=True)
    assert min(shared) == preset.suspicion_least_ms
    doubted = [preset.suspicion_ms(0, doubt) for doubt in range(preset.doubt_most + 1)]
    assert doubted == sorted(set(doubted))


def test_the_presets_go_from_impatient_to_patient() -> None:
    bounds_ms = [
        PRESETS[name].detection_bound_ms(PRESETS[name].link_waits.first_ms) for name in ("local", "lan", "wan")
    ]
    assert bounds_ms == sorted(bounds_ms)


def test_doubt_stays_within_its_bounds() -> None:
    doubt = Doubt(3)
    doubt.fall()
    assert doubt.level == 0
    doubt.rise(10)
    assert doubt.level == 3
    doubt.fall()
    assert doubt.level == 2


@pytest.mark.parametrize(
    "change",
    [
        {"suspicion_least_ms": 0},
        {"suspicion_least_ms": 15_001},
        {"interval_ms": 0},
        {"confirmations": 0},
        {"detours": 0},
        {"helpers": -1},
        {"doubt_step": -0.1},
    ],
)
def test_presets_that_contradict_themselves_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError):
        replace(WAN, **change)  # type: ignore[arg-type]


@pytest.mark.parametrize("waits", [(0, 0, 0), (5, 6, 7), (8, 6, 7)])
def test_bounds_out_of_order_are_refused(waits: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="between"):
        Waits(*waits)


def test_the_presets_are_as_the_notes_show_them() -> None:
    text = (Path(__file__).parents[3] / "docs" / "gossip.md").read_text(encoding="utf-8")
    table = text.partition("| `federation.health_preset` |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    assert rows[0] == list(PRESETS)
    shown = {row[0]: row[1:] for row in rows[2:]}

    def seconds(*amounts_ms: int) -> str:
        return ", ".join(f"{amount_ms / 1000:g}" for amount_ms in amounts_ms) + " s"

    def waits(bounds: Waits) -> str:
        return seconds(bounds.first_ms, bounds.least_ms, bounds.most_ms)

    for place, preset in enumerate(PRESETS.values()):
        assert {name: cells[place] for name, cells in shown.items()} == {
            "interval (`federation.probe_interval_s`)": seconds(preset.interval_ms),
            "W over a link: first, least, most": waits(preset.link_waits),
            "W by NodeInfo": waits(preset.http_waits),
            "helpers": str(preset.helpers),
            "nack_after": seconds(preset.nack_after_ms),
            "suspected_pace": seconds(preset.suspected_pace_ms),
            "suspicion: most, least, at so many confirmations": (
                f"{seconds(preset.suspicion_most_ms, preset.suspicion_least_ms)}, {preset.confirmations}"
            ),
            "only others reach it so many rounds: suspect": str(preset.detours),
            "a timer so late is a stall of one's own": seconds(preset.stall_tolerance_ms),
        }
        assert (preset.doubt_most, preset.doubt_step) == (8, 0.25)
