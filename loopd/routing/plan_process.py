"""The process that plans: a problem comes in, its plan goes out. It knows nothing of the node that started it."""

import resource
import sys
from contextlib import suppress

from loopd.protocol.limits import PLAN_MEMORY_MAX_BYTES
from loopd.routing.assignment import best_assignment
from loopd.routing.planning import EXIT_TOO_DEAR, TooDear, make_plan, plan_text, read_problem


def main() -> int:
    """Read a problem from standard input and write its plan to standard output; 3 where its costs are too high."""
    # Under a service manager that allows no such call the machine's own bounds hold.
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (PLAN_MEMORY_MAX_BYTES, PLAN_MEMORY_MAX_BYTES))
    batches, needs = read_problem(sys.stdin.buffer.read())
    try:
        plan = make_plan(batches, needs, best_assignment)
    except TooDear:
        return EXIT_TOO_DEAR
    sys.stdout.buffer.write(plan_text(plan))
    return 0


if __name__ == "__main__":
    sys.exit(main())
