import asyncio
import itertools
import random
import sys
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loopd.protocol.errors import Unavailable
from loopd.protocol.quantity import Quantity
from loopd.routing.assignment import best_assignment
from loopd.routing.planner import Planner
from loopd.routing.planning import (
    Batch,
    Costs,
    Need,
    TooDear,
    make_plan,
    outlay,
    parts_of,
    plan_text,
    price_of_whole,
    problem_text,
    read_plan,
    read_problem,
)

# However busy the machine is.
PATIENCE_S = 300.0
MUNICH, VIENNA = (48.14, 11.58), (48.2082, 16.3738)


def batch(**changes: object) -> Batch:
    """500 kg of grain in Munich for 100 LC; Munich lets it go at 40 %."""
    stated: dict[str, object] = {
        "node_id": "munich.loop",
        "kind": "material",
        "category": "organic-food",
        "signal": "organic-food",
        "dimension": "mass",
        "left": parts_of(Quantity(Decimal(500), "kg")),
        "whole": parts_of(Quantity(Decimal(500), "kg")),
        "asked": price_of_whole(Decimal(100)),
        "place": MUNICH,
        "exported": 4_000,
        **changes,
    }
    return Batch(**stated)  # type: ignore[arg-type]


def need(**changes: object) -> Need:
    """300 kg of it in Vienna, which takes it in at 20 %."""
    stated: dict[str, object] = {
        "node_id": "vienna.loop",
        "kind": "material",
        "categories": ("organic-food", "organic-wood"),
        "dimension": "mass",
        "quantity": parts_of(Quantity(Decimal("0.3"), "t")),
        "max_price": 6_000,
        "radius": 356_000,
        "place": VIENNA,
        "city": VIENNA,
        "imported": {"organic-food": 2_000},
        **changes,
    }
    return Need(**stated)  # type: ignore[arg-type]


def exhaustive(costs: Costs) -> tuple[int, int]:
    """How many can be served, and at what least cost: every choice is looked at."""
    rows, columns = len(costs), len(costs[0]) if costs else 0
    best = (0, 0)
    wide = rows <= columns
    for choice in itertools.permutations(range(max(rows, columns)), min(rows, columns)):
        found = [costs[row][column] if wide else costs[column][row] for row, column in enumerate(choice)]
        known = [cost for cost in found if cost is not None]
        best = max(best, (len(known), -sum(known)))
    return best[0], -best[1]


def hungarian(costs: list[list[int]]) -> int:
    """The least total of a square assignment, in whole numbers throughout (Kuhn, Munkres; potentials by row)."""
    size = len(costs)
    row_potential, column_potential = [0] * (size + 1), [0] * (size + 1)
    row_of = [0] * (size + 1)
    for row in range(1, size + 1):
        row_of[0] = row
        column = 0
        least: list[int | None] = [None] * (size + 1)
        came_from, used = [0] * (size + 1), [False] * (size + 1)
        while row_of[column]:
            used[column] = True
            at, step, following = row_of[column], None, 0
            for other in range(1, size + 1):
                if used[other]:
                    continue
                reduced = costs[at - 1][other - 1] - row_potential[at] - column_potential[other]
                known = least[other]
                if known is None or reduced < known:
                    least[other], came_from[other] = reduced, column
                now = least[other]
                if now is not None and (step is None or now < step):
                    step, following = now, other
            for other in range(size + 1):
                known = least[other]
                if used[other]:
                    row_potential[row_of[other]] += step or 0
                    column_potential[other] -= step or 0
                elif known is not None:
                    least[other] = known - (step or 0)
            column = following
        while column:
            row_of[column] = row_of[came_from[column]]
            column = came_from[column]
    return sum(costs[row_of[column] - 1][column - 1] for column in range(1, size + 1))


MATRICES = st.integers(1, 5).flatmap(
    lambda columns: st.lists(
        st.lists(st.none() | st.integers(0, 30) | st.integers(0, 10**9), min_size=columns, max_size=columns),
        min_size=1,
        max_size=5,
    )
)


@settings(max_examples=150)
@given(MATRICES)
def test_the_plan_serves_the_most_and_of_those_costs_the_least(costs: list[list[int | None]]) -> None:
    chosen = best_assignment(costs)
    assert len({row for row, _ in chosen}) == len({column for _, column in chosen}) == len(chosen)
    found = [costs[row][column] for row, column in chosen]
    assert (len(chosen), sum(cost for cost in found if cost is not None)) == exhaustive(costs)
    assert None not in found
    assert best_assignment(costs) == chosen


@pytest.mark.parametrize("seed", range(6))
def test_larger_ones_against_another_way_to_solve_them(seed: int) -> None:
    drawn = random.Random(seed)
    size = drawn.randrange(20, 45)
    dear = 2**53 // (size * size * 4) - 2
    costs: list[list[int | None]] = [
        [None if drawn.random() < 0.6 else drawn.randrange(dear) for _ in range(size)] for _ in range(size)
    ]
    charge = outlay(costs)
    chosen = best_assignment(costs)
    total = sum(cost for row, column in chosen if (cost := costs[row][column]) is not None)
    exact = hungarian([[charge if cost is None else cost for cost in row] for row in costs])
    assert total + charge * (size - len(chosen)) == exact


def test_costs_that_a_double_cannot_add_are_refused() -> None:
    assert outlay([[1, 2], [None, 3]]) == 7
    with pytest.raises(TooDear):
        outlay([[2**50, 1], [1, 1]])


def test_a_pair_costs_what_the_specification_says() -> None:
    plan = make_plan([batch()], [need()], best_assignment)
    (pair,) = plan.pairs
    assert (pair.base, pair.exported, pair.imported, pair.distance, pair.metres) == (6_000, 2_400, 1_200, 711, 355_496)
    assert (plan.served_in_turn, plan.cost_in_turn) == (1, pair.cost.total_minor)
    local = make_plan([batch()], [need(node_id="munich.loop", imported={})], best_assignment)
    assert local.pairs[0].cost.total_minor == 6_000


@pytest.mark.parametrize(
    ("of_batch", "of_need"),
    [
        ({"kind": "product"}, {}),
        ({"category": "glass-clear"}, {}),
        ({"dimension": "volume"}, {}),
        ({"left": parts_of(Quantity(Decimal("299.999999999"), "kg"))}, {}),
        ({"asked": price_of_whole(Decimal("100.01"))}, {}),
        ({}, {"max_price": 5_999}),
        ({}, {"radius": 355_495}),
        ({}, {"place": None}),
        ({}, {"imported": {}}),
    ],
)
def test_who_may_not_meet(of_batch: dict[str, object], of_need: dict[str, object]) -> None:
    assert make_plan([batch(**of_batch)], [need(**of_need)], best_assignment).pairs == ()


def test_each_in_turn_can_serve_fewer_and_cost_more() -> None:
    """The first takes the only batch that the second could have had."""
    small, large = batch(left=parts_of(Quantity(Decimal(300), "kg")), place=VIENNA), batch()
    modest, greedy = need(), need(quantity=parts_of(Quantity(Decimal(400), "kg")), max_price=None)
    only_large = batch(place=MUNICH, asked=(0, 1))
    plan = make_plan([small, only_large], [modest, greedy], best_assignment)
    assert (len(plan.pairs), plan.served_in_turn) == (2, 1)
    assert make_plan([large], [modest, greedy], best_assignment).served_in_turn == 1


def test_problems_and_plans_travel_unchanged() -> None:
    huge = batch(left=10**30, whole=10**30, asked=Fraction(1, 3).as_integer_ratio())
    batches, needs = read_problem(
        problem_text([batch(), huge], [need(), need(place=None, radius=None, max_price=None)])
    )
    assert batches == [batch(), huge]
    assert needs == [need(), need(place=None, radius=None, max_price=None)]
    plan = make_plan(batches, needs, best_assignment)
    assert read_plan(plan_text(plan)) == plan


# The process


async def test_a_plan_is_made_in_a_process_of_its_own() -> None:
    assert await Planner(max_s=PATIENCE_S).plan([batch()], [need()]) == make_plan([batch()], [need()], best_assignment)


async def test_costs_too_high_come_back_as_such() -> None:
    dear = batch(asked=(10**17, 1))
    with pytest.raises(TooDear):
        await Planner(max_s=PATIENCE_S).plan([dear], [need(max_price=None)])


async def test_without_the_extra_it_is_said_how_to_get_it() -> None:
    with pytest.raises(Unavailable, match="loopd\\[plan\\]") as refused:
        await Planner(installed=lambda: False).plan([], [])
    assert refused.value.reason == "plan_unavailable"


async def test_one_plan_at_a_time_and_not_for_ever() -> None:
    sleeping = Planner(command=(sys.executable, "-c", "import time; time.sleep(600)"), max_s=0.5)
    first, second = await asyncio.gather(sleeping.plan([], []), sleeping.plan([], []), return_exceptions=True)
    assert isinstance(first, Unavailable)
    assert isinstance(second, Unavailable)
    assert (first.reason, second.reason) == ("plan_timeout", "plan_busy")
    assert not sleeping.busy


async def test_a_process_that_fails_is_a_bug() -> None:
    with pytest.raises(RuntimeError):
        await Planner(command=(sys.executable, "-c", "raise SystemExit(1)")).plan([], [])
