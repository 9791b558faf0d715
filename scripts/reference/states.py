"""docs/states.md: every table of states, as a diagram."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import TypeVar

from loopd.gossip.health import MOVES, REGISTRY_STATUS, Guard, State
from loopd.ledger.clearing.rules import PAYEE_MOVES, PAYER_MOVES
from loopd.ledger.movements import HOLD_MOVES, HoldState
from loopd.ledger.netting.rules import DISCHARGE_MOVES, RUN_MOVES
from loopd.ledger.settlement_tables import SETTLEMENT_MOVES
from loopd.protocol.lifecycle import LIFECYCLES, Lifecycle
from loopd.signals import governance

_State = TypeVar("_State", bound=StrEnum)

_INTRODUCTION = """# States

Generated from the tables in `loopd/protocol/lifecycle.py`, `loopd/signals/governance.py`, `loopd/gossip/health.py`,
`loopd/ledger/movements.py`, `loopd/ledger/settlement_tables.py`, `loopd/ledger/clearing/rules.py` and
`loopd/ledger/netting/rules.py`.
What is not drawn cannot happen: from a terminal status nothing moves, and the attempt is answered 409.
"""


def states_page() -> str:
    """The page."""
    return "\n".join(
        [_INTRODUCTION, *(_lifecycle(lifecycle) for lifecycle in LIFECYCLES), _vote(), *_money(), _health()]
    )


def _lifecycle(lifecycle: Lifecycle) -> str:
    arrows = [f"    [*] --> {status}" for status in lifecycle.initial]
    arrows += [
        f"    {status} --> {following}"
        for status, successors in lifecycle.successors.items()
        for following in successors
    ]
    arrows += [f"    {status} --> [*]" for status in lifecycle.successors if lifecycle.is_terminal(status)]
    return _diagram(lifecycle.entity, arrows)


def _vote() -> str:
    arrows = [f"    [*] --> {governance.State.SCHEDULED.value}"]
    arrows += [
        f"    {state.value} --> {following.value}: {event.value}"
        for (state, event), following in governance.MOVES.items()
    ]
    arrows += [f"    {state.value} --> [*]" for state in governance.State if state not in governance.UNDECIDED]
    return _diagram("A vote on signals", arrows)


def _money() -> list[str]:
    hold = [f"    [*] --> {HoldState.PENDING.value}"]
    hold += [f"    {HoldState.PENDING.value} --> {state.value}: {phase.value}" for phase, state in HOLD_MOVES.items()]
    hold += [f"    {state.value} --> [*]" for state in HOLD_MOVES.values()]
    return [
        _diagram("A pending transfer of LoopCoin", hold),
        _moves("A transaction's payment", SETTLEMENT_MOVES),
        _moves("A settlement between cities, at the payer's node", PAYER_MOVES),
        _moves("A settlement between cities, at the payee's node", PAYEE_MOVES),
        _moves("A run that two cities sign", RUN_MOVES),
        _moves("A discharge from reserve to reserve", DISCHARGE_MOVES),
    ]


def _moves(title: str, moves: Mapping[_State, tuple[_State, ...]]) -> str:
    """The diagram of a table whose first state is the one that everything begins in."""
    arrows = [f"    [*] --> {next(iter(moves)).value}"]
    arrows += [
        f"    {state.value} --> {following.value}" for state, successors in moves.items() for following in successors
    ]
    arrows += [f"    {state.value} --> [*]" for state, successors in moves.items() if not successors]
    return _diagram(title, arrows)


def _health() -> str:
    arrows = [f"    [*] --> {State.ACTIVE.value}"]
    for (state, signal), (following, guard) in MOVES.items():
        condition = "" if guard is Guard.ALWAYS else f" [{guard.value}]"
        arrows.append(f"    {state.value} --> {following.value}: {signal.value}{condition}")
    shown = "\n".join(f"| {state.value} | {status} |" for state, status in REGISTRY_STATUS.items())
    table = f"What NodeRegistry shows:\n\n| health | status |\n|---|---|\n{shown}\n"
    return _diagram("A peer's health", arrows) + "\n" + table


def _diagram(title: str, arrows: Iterable[str]) -> str:
    lines = "\n".join(arrows)
    return f"## {title}\n\n```mermaid\nstateDiagram-v2\n{lines}\n```\n"
