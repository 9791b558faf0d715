"""Failure detection among a hundred nodes under a virtual clock: false alarms, failures, one-way paths."""

from loopd.gossip.membership import Belief
from tests.health_simulation import Scenario, Simulation, Tally, failures, quiet_hours

SECOND_MS = 1_000


def test_a_thousand_observer_peer_hours_with_loss_and_starved_nodes_without_a_false_alarm() -> None:
    tally = quiet_hours(Scenario(), seed=20_000, observer_peer_hours=1_000)
    assert tally.observer_peer_hours > 999
    assert tally.alarms == []
    # There was something to judge: the starved nodes were suspected again and again.
    assert tally.suspicions > 5_000


def test_a_failed_peer_is_confirmed_by_all_that_watch_it_within_30_seconds() -> None:
    tally = failures(Scenario(), seed=1, count=8)
    assert (tally.deaths, tally.missed, tally.alarms) == (8, 0, [])
    assert len(tally.confirmed_ms) > 40
    assert max(tally.confirmed_ms) <= 30 * SECOND_MS


def test_the_counting_counts() -> None:
    """With numbers for one machine, stalls of ten seconds are taken for failures, and the tally says so."""
    tally = quiet_hours(Scenario(preset="local"), seed=3, observer_peer_hours=20)
    assert tally.false_alarms == len(tally.alarms) > 0


def test_one_seed_gives_one_run() -> None:
    def run(seed: int) -> Tally:
        tally = failures(Scenario(nodes=20, starved=2), seed, count=1)
        tally.cpu_s = 0.0
        return tally

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_one_way_paths_part_two_peers_and_nobody_is_declared_failed() -> None:
    simulation = Simulation(Scenario(loss=0.0, starved=0), seed=9)
    simulation.run(60 * SECOND_MS)
    cut = [(name, peer) for name, node in simulation.nodes.items() for peer in sorted(node.peers) if name < peer][::40]
    # Only where somebody else can be asked.
    cut = [(a, b) for a, b in cut if simulation.nodes[a].peers & simulation.nodes[b].peers]
    assert len(cut) >= 4
    simulation.cut.update(cut)
    tally = simulation.run(900 * SECOND_MS)
    assert tally.alarms == []

    def belief(observer: str, peer: str) -> Belief:
        member = simulation.nodes[observer].member
        assert member is not None
        return member.status(peer).belief

    # Neither gets answers: one's questions are lost, the other's answers are.
    assert {belief(a, b) for a, b in cut} | {belief(b, a) for a, b in cut} == {Belief.SUSPECTED}
    simulation.cut.clear()
    simulation.run(simulation.now_ms + 10 * SECOND_MS)
    assert {belief(a, b) for a, b in cut} | {belief(b, a) for a, b in cut} == {Belief.REACHABLE}
