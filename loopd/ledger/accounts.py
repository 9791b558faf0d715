"""Accounts: whose they are, what their ids look like, and what may happen on each; pure.

A person's or a business's account holds lots of coins that age. The node's own accounts hold none: money passes through
them or lies there for the city.
"""

import re
from enum import StrEnum
from typing import Final

from loopd.protocol.ids import account_node

# Letters that a path, a journal and a log all carry as they stand. The first is a letter or a digit.
_HOLDER: Final = re.compile(r"(user|business):[a-z0-9][a-z0-9._-]{0,79}@([a-z0-9\-]+\.loop)", re.ASCII)
_CLEARING_PREFIX: Final = "clearing."


class Role(StrEnum):
    """What an account is for, which says what is allowed on it."""

    HOLDER = "holder"
    FUND = "fund"
    ISSUANCE = "issuance"
    RESERVE = "reserve"
    CLEARING = "clearing"


class Fund(StrEnum):
    """The node's own accounts that anybody may pay into and the operator pays out of."""

    COMMUNITY = "community-fund"
    TRANSPORT = "transport"
    BONUS = "bonus"
    RESIDUAL = "clearing-residual"


# Only on these may more go out than came in: what is missing there is what circulates, or what a peer owes.
MAY_BE_NEGATIVE: Final = frozenset({Role.ISSUANCE, Role.CLEARING})
# Money reaches and leaves these by the node's own rules alone.
RESERVED: Final = frozenset({Role.ISSUANCE, Role.RESERVE, Role.CLEARING})


def fund_id(fund: Fund, node_id: str) -> str:
    """`node:community-fund@munich.loop` and its like."""
    return f"node:{fund}@{node_id}"


def issuance_id(node_id: str) -> str:
    """Where money enters the books and leaves them, LoopCoins as well as the backing currency."""
    return f"node:issuance@{node_id}"


def reserve_id(node_id: str) -> str:
    """The backing that the city keeps, in the backing currency."""
    return f"node:reserve@{node_id}"


def clearing_id(peer_id: str, node_id: str) -> str:
    """What a peer owes this node (below zero), or is owed (above)."""
    return f"node:{_CLEARING_PREFIX}{peer_id}@{node_id}"


def clearing_peer(account_id: str) -> str:
    """The peer of a clearing account."""
    return account_id.removeprefix(f"node:{_CLEARING_PREFIX}").partition("@")[0]


def is_holder_id(text: str, node_id: str) -> bool:
    """Whether the text can name a person's or a business's account of this node."""
    match = _HOLDER.fullmatch(text)
    return match is not None and match.group(2) == node_id


def role_of(account_id: str) -> Role:
    """The role that an account's id gives it. ValueError where the text is no account id."""
    node = account_node(account_id)
    if node is None:
        raise ValueError("not an account id")
    kind, _, rest = account_id.partition(":")
    if kind != "node":
        return Role.HOLDER
    name = rest.removesuffix(f"@{node}")
    if name == "issuance":
        return Role.ISSUANCE
    if name == "reserve":
        return Role.RESERVE
    if name.startswith(_CLEARING_PREFIX):
        return Role.CLEARING
    return Role.FUND


def is_reserved(account_id: str, node_id: str) -> bool:
    """Whether an id is of an account, open or not, on which this node's own rules alone move money."""
    return account_node(account_id) == node_id and role_of(account_id) in RESERVED


def is_public(account_id: str) -> bool:
    """Whether anybody may see the account: the node's own, never a person's or a business's."""
    return account_id.startswith("node:")
