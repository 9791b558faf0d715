"""A federation of real processes, judged against the map; `make net` plays it with thirty."""

import random
from pathlib import Path

from tests.real_network import DEGREE_MAX, ball, draw_map, play


def test_in_a_chain_of_processes_the_ball_is_exact_whoever_is_killed(tmp_path: Path) -> None:
    played = play(tmp_path, "chain", 7, messages=3, per_second=20, kills=2, seed=5)
    assert played.quiet.announced == len(played.quiet.last_ms) == 21
    assert played.quiet.is_exact, played.quiet
    # Near an end of the chain the ball is smaller.
    assert played.quiet.deliveries == 3 * (3 + 4 + 5 + 6 + 5 + 4 + 3)
    assert played.kills.is_exact, played.kills
    # The five that were not killed, and one each of those that were, in any case.
    assert played.kills.announced >= 5 * 3 + 2


def test_a_mesh_has_no_node_with_more_links_than_it_may() -> None:
    for seed in range(20):
        links = draw_map("mesh", 30, random.Random(seed))
        degrees = [sum(node in pair for pair in links) for node in range(30)]
        assert 2 <= min(degrees) <= max(degrees) <= DEGREE_MAX
        assert all(a < b for a, b in links)


def test_a_ball_ends_three_hops_away() -> None:
    chain = draw_map("chain", 9, random.Random(1))
    assert ball(chain, 0) == {1, 2, 3}
    assert ball(chain, 4) == {1, 2, 3, 5, 6, 7}
    assert ball([(0, 1), (0, 4), (1, 2), (2, 3), (3, 4)], 0) == {1, 2, 3, 4}
