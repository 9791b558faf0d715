"""The books as a Beancount journal (beancount.github.io): every posted transfer, in the order of its moment.

Signs are the ledger's own: what an account has is positive, what the issuance put into circulation is negative there.
Names are rewritten so that two accounts never share one: there they begin with a capital, without dot and underscore.
"""

from collections.abc import Iterator
from decimal import Decimal
from typing import Final

from loopd.database.rows import RowSource
from loopd.ledger.dates import day_of, day_text
from loopd.protocol.timestamps import format_timestamp

_ROOTS: Final = {
    "holder": "Assets:Holders",
    "fund": "Assets:Funds",
    "reserve": "Assets:Reserve",
    "issuance": "Equity:Issuance",
    "clearing": "Liabilities:Clearing",
}
# Account names have small letters alone, so a capital after the first place can stand for what Beancount does not know.
_LETTERS: Final = str.maketrans({".": "D", "_": "U"})
# Transfers fetched at a time: a city's books need not fit into memory.
_PAGE: Final = 1_000


def beancount_account(account_id: str, role: str) -> str:
    """The journal's name for an account: `user:maria.k@munich.loop` is `Assets:Holders:User:MariaDk`."""
    kind, _, rest = account_id.partition(":")
    name = rest.rpartition("@")[0]
    parts = [_component(kind), _component(name)] if role == "holder" else [_component(name)]
    return ":".join([_ROOTS[role], *parts])


def journal(source: RowSource, node_id: str) -> Iterator[str]:
    """The journal's lines, without line ends."""
    yield f'option "title" "LoopCoin ledger of {node_id}"'
    names: dict[int, tuple[str, str]] = {}
    for row in source.all("SELECT number, id, currency, role, opened_at_ms FROM ledger_account ORDER BY number"):
        name = beancount_account(row["id"], row["role"])
        names[row["number"]] = (name, row["currency"])
    opened = source.all("SELECT number, min(opened_at_ms) AS at_ms FROM ledger_account GROUP BY id ORDER BY number")
    first_ms = _first_moment(source)
    for row in opened:
        at_ms = row["at_ms"] if first_ms is None else min(row["at_ms"], first_ms)
        yield f"{day_text(day_of(at_ms))} open {names[row['number']][0]}"
    yield from _transactions(source, names)
    yield from _assertions(source, names)


def _transactions(source: RowSource, names: dict[int, tuple[str, str]]) -> Iterator[str]:
    after: tuple[int, str] = (-1, "")
    while rows := source.all(
        "SELECT number, id, kind, at_ms FROM ledger_transfer WHERE phase IN ('posted', 'post') "
        "AND (at_ms, id) > (?, ?) ORDER BY at_ms, id LIMIT ?",
        (*after, _PAGE),
    ):
        for row in rows:
            yield ""
            yield f'{day_text(day_of(row["at_ms"]))} * "{row["kind"]}"'
            yield f'  id: "{row["id"]}"'
            yield f'  at: "{format_timestamp(row["at_ms"])}"'
            for leg in source.all(
                "SELECT account, issue_day, amount_minor FROM ledger_entry WHERE transfer = ? AND account IN "
                "(SELECT payer FROM ledger_transfer WHERE number = ? UNION SELECT payee FROM ledger_transfer "
                "WHERE number = ?) ORDER BY amount_minor > 0, account, issue_day",
                (row["number"],) * 3,
            ):
                name, currency = names[leg["account"]]
                yield f"  {name}  {_amount(leg['amount_minor'])} {currency}"
                if leg["issue_day"] >= 0:
                    yield f"    issued: {day_text(leg['issue_day'])}"
        after = (rows[-1]["at_ms"], rows[-1]["id"])


def _assertions(source: RowSource, names: dict[int, tuple[str, str]]) -> Iterator[str]:
    """What every account holds on the day after the last entry, which the reading program checks."""
    last = source.one("SELECT max(at_ms) AS at_ms FROM ledger_entry")
    if last is None or last["at_ms"] is None:
        return
    yield ""
    for row in source.all("SELECT number, balance_minor FROM ledger_account ORDER BY number"):
        name, currency = names[row["number"]]
        yield f"{day_text(day_of(last['at_ms']) + 1)} balance {name}  {_amount(row['balance_minor'])} {currency}"


def _first_moment(source: RowSource) -> int | None:
    row = source.one("SELECT min(at_ms) AS at_ms FROM ledger_transfer")
    return None if row is None else row["at_ms"]


def _component(name: str) -> str:
    translated = name.translate(_LETTERS)
    return translated[:1].upper() + translated[1:]


def _amount(amount_minor: int) -> str:
    return f"{Decimal(amount_minor).scaleb(-2):.2f}"
