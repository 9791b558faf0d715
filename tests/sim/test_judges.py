"""The judges find fault where there is one: each is shown an engine that does something wrong."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from loopd.gossip import flood
from loopd.gossip.flood import Copy, Decision, HopState, Reason, Relay, View
from loopd.sim import node as node_room
from loopd.sim.checks import violations
from loopd.sim.disk import Then, Unit, Writer
from loopd.sim.node import Node
from loopd.sim.repair import Repair
from loopd.sim.scenario import Attack, Cut, Kill, Kind, Scenario, draw
from loopd.sim.seeds import play_through
from loopd.sim.watch import Watch


def findings_of(scenarios: Iterator[Scenario]) -> str:
    """What was found in these runs, together."""
    return "\n".join(finding for scenario in scenarios for finding in violations(play_through(scenario)))


def static(**changes: Any) -> Scenario:
    return replace(Scenario(5, nodes=40, messages=3, radius_km=(600.0,)), **changes)


def decide_wrongly(monkeypatch: pytest.MonkeyPatch, change: Any) -> None:
    def wrong(copy: Copy, view: View, now_ms: int) -> Decision:
        return change(copy, view, flood.decide(copy, view, now_ms))

    monkeypatch.setattr(node_room, "decide", wrong)


def test_the_engine_as_it_is() -> None:
    assert findings_of(iter([static(), static(messages=8, subjects=1)])) == ""


def test_better_copies_that_are_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_upgrades(copy: Copy, view: View, decision: Decision) -> Decision:
        if decision.reason is Reason.UPGRADED:
            return Decision(Reason.DUPLICATE, False, None, None, Relay.NOT_ACCEPTED)
        return decision

    decide_wrongly(monkeypatch, without_upgrades)
    runs = [Scenario(seed, nodes=60, shape="ladder", repair=False) for seed in range(20)]
    found = findings_of(iter(runs))
    assert "low TTL" in found
    assert "missing" in found


def test_a_ttl_that_does_not_fall(monkeypatch: pytest.MonkeyPatch) -> None:
    def undiminished(copy: Copy, view: View, decision: Decision) -> Decision:
        held = decision.held
        return replace(decision, forward=held) if held is not None and held.ttl == 2 else decision

    decide_wrongly(monkeypatch, undiminished)
    found = findings_of(iter([Scenario(1, nodes=30, shape="chain", repair=False)]))
    assert "too many" in found
    assert "high TTL" in found


def test_a_node_outside_the_radius_that_delivers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flood, "within_radius", lambda a, b, radius_km: True)
    assert "out of scope" in findings_of(iter([static(radius_km=(200.0,))]))


def test_a_message_that_is_delivered_again_with_a_better_ttl(monkeypatch: pytest.MonkeyPatch) -> None:
    def again(copy: Copy, view: View, decision: Decision) -> Decision:
        return replace(decision, deliver=decision.held is not None)

    decide_wrongly(monkeypatch, again)
    assert "2 times" in findings_of(iter([Scenario(seed, nodes=60, shape="ladder") for seed in range(10)]))


def test_an_answer_before_the_disk_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Writer.write

    def hasty(self: Writer, unit: Unit, then: Then) -> None:
        if unit.__qualname__.startswith("Node.take"):
            then("accepted")
            honest(self, unit, lambda _: None)
        else:
            honest(self, unit, then)

    monkeypatch.setattr(Writer, "write", hasty)
    assert "forgotten" in findings_of(replace(draw(Kind.KILLS, seed), repair=False) for seed in range(40))


def test_an_empty_disk_that_nobody_fills(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(2, nodes=6, shape="star", messages=3, gap_s=0.1, kills=(Kill(0, 20, 25, wiped=True),))
    assert findings_of(iter([scenario])) == ""
    monkeypatch.setattr(Repair, "link_up", lambda self, peer, starts: None)
    assert "missing" in findings_of(iter([scenario]))


def test_a_cursor_that_passes_what_nobody_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = Node.pump

    def careless(self: Node, peer: str) -> None:
        honest(self, peer)
        self.tables.cursors[peer] = len(self.tables.log)

    monkeypatch.setattr(Node, "pump", careless)
    scenario = Scenario(1, nodes=30, messages=10, gap_s=1.0, cuts=(Cut(2.0, 30.0),), repair=False)
    assert "missing" in findings_of(iter([scenario]))


def test_an_expired_message_that_is_delivered(monkeypatch: pytest.MonkeyPatch) -> None:
    def forever(copy: Copy, view: View, decision: Decision) -> Decision:
        if decision.reason is Reason.EXPIRED:
            held = HopState(copy.ttl or 1, copy.hop_value)
            return Decision(Reason.ACCEPTED, True, held, None, Relay.LAST_HOP)
        return decision

    decide_wrongly(monkeypatch, forever)
    monkeypatch.setattr(Node, "goes_to", lambda self, peer, message, came_from: peer != came_from)
    scenario = Scenario(3, nodes=12, messages=10, gap_s=1.0, validity_s=(2,), cuts=(Cut(2.0, 30.0),))
    assert "too late" in findings_of(iter([scenario]))


def test_a_forged_ttl_that_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flood, "reaches_anchor", lambda value, ttl, anchor: True)
    attacked = Scenario(1, nodes=30, shape="chain", attacks=(Attack.FORGED_TTL,) * 6, messages=4)
    assert "high TTL" in findings_of(replace(attacked, seed=seed) for seed in range(10))


def test_a_watch_that_hears_nothing_and_one_that_asks_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = Scenario(1, nodes=10, health=True, gone=1, faults_end_s=5)
    assert findings_of(iter([scenario])) == ""
    with monkeypatch.context() as patched:
        patched.setattr(Watch, "receive", lambda self, peer, frame: None)
        assert "is there, and failed" in findings_of(iter([scenario]))
    monkeypatch.setattr(Watch, "_set_timer", lambda self: None)
    assert "is gone, and reachable" in findings_of(iter([scenario]))
