"""The assignment problem, solved by scipy: imported only in the process that plans."""

import numpy
from scipy.optimize import linear_sum_assignment

from loopd.routing.planning import Costs, outlay


def best_assignment(costs: Costs) -> list[tuple[int, int]]:
    """As many pairs as can be, and of all such choices the cheapest; the same for the same costs. See `outlay`."""
    charge = outlay(costs)
    matrix = numpy.array([[charge if cost is None else cost for cost in row] for row in costs], dtype=numpy.float64)
    rows, columns = linear_sum_assignment(matrix)
    chosen = zip(rows.tolist(), columns.tolist(), strict=True)
    return [(row, column) for row, column in chosen if costs[row][column] is not None]
