"""`/api/v1/loopcoin`: the currency, accounts and their statements, and what circulates (§5)."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from loopd.api.answers import LD_JSON, Answer, entity_answer, json_answer
from loopd.api.loopcoin_callers import READ_REFUSALS, check_reader
from loopd.api.paging import CURSOR, cursor_of, following_path, page_schema
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, QueryParameter, Route, Success
from loopd.clock import Clock
from loopd.database import Database
from loopd.ledger import lot_tables, tables, transfer_tables, views
from loopd.ledger.movements import Account
from loopd.ledger.service import Ledger
from loopd.protocol.errors import Invalid
from loopd.protocol.limits import LIST_LIMIT_MAX
from loopd.protocol.money import amount_json
from loopd.protocol.timestamps import format_timestamp, parse_utc_timestamp

_NOUN: Final = "LoopCoin"
_ACCOUNT: Final = "/api/v1/loopcoin/accounts/{id}"
_AMOUNT: Final[Mapping[str, Any]] = {"type": "number", "multipleOf": 0.01}
_AT: Final = QueryParameter(
    name="at", description="A past moment, ISO 8601: the balance then.", max_characters=40, reason="bad_time"
)
_UNKNOWN: Final = ("no_ledger", "unknown_account")


class LoopCoinRoutes:
    """Read the currency and accounts."""

    def __init__(self, ledger: Ledger, database: Database, clock: Clock) -> None:
        self._ledger = ledger
        self._database = database
        self._clock = clock

    def routes(self) -> list[Route]:
        config = Success(description="The currency's properties.", schema="LoopCoinConfig", content_type=LD_JSON)
        return [
            Route(
                method="GET",
                path="/api/v1/loopcoin/config",
                handler=self.config,
                noun=_NOUN,
                summary="Read the properties of this city's currency",
                successes={200: config},
                refusals={404: ("no_ledger",)},
            ),
            Route(
                method="GET",
                path="/api/v1/loopcoin/issuance",
                handler=self.issuance,
                noun=_NOUN,
                summary="What circulates, and what stands behind it",
                description="`supply` is all that accounts of this city hold; `claims` is what peers owe, each up to "
                "its credit limit, less what they are owed.",
                successes={200: Success(description="The figures.", schema=_figures_schema())},
                refusals={404: ("no_ledger",)},
            ),
            Route(
                method="GET",
                path=_ACCOUNT,
                handler=self.account,
                noun=_NOUN,
                summary="Read an account: its balance, lots, and what is pending",
                description="The node's own accounts are open to all. A person's or a business's is shown to a token "
                "bound to it, to the operator, and to who signs with its key: `X-Account-Signature` over "
                "`loop-account-read-v1`, the path with query and the value of `X-Account-Timestamp`, joined by LF. "
                "With `at` the balance of a past moment alone.",
                token_shows_more=True,
                query=(_AT,),
                successes={200: Success(description="The account.", schema=_account_schema())},
                refusals={404: _UNKNOWN, **READ_REFUSALS},
            ),
            Route(
                method="GET",
                path=f"{_ACCOUNT}/statement",
                handler=self.statement,
                noun=_NOUN,
                summary="What was posted on an account, the last written first",
                description="Decay is dated at the moment it came due, however late it was written. In public views "
                "the counterpart is shown where it is the node's own account; it and the id are null otherwise.",
                token_shows_more=True,
                query=(LIMIT, CURSOR),
                successes={200: Success(description="One page.", schema=_statement_schema())},
                refusals={404: _UNKNOWN, **READ_REFUSALS},
            ),
        ]

    async def config(self, request: Request) -> Answer:
        ledger, points = self._ledger, self._database.points
        terms = ledger.terms
        home = ledger.node
        return entity_answer(views.config_json(terms, ledger.figures(points), home.node_id, home.context_url))

    async def issuance(self, request: Request) -> Answer:
        terms = self._ledger.terms
        return json_answer(views.figures_json(terms, self._ledger.figures(self._database.points)))

    async def account(self, request: Request) -> Answer:
        account, is_holder = await self._readable(request)
        points, at = self._database.points, request.text("at")
        if at is not None:
            moment_ms = _moment(at, max(self._clock.now_ms(), tables.ledger_time(points)))
            balance_minor = tables.balance_at(points, account.number, moment_ms)
            shown = {"id": account.id, "currency": account.currency, "balance": amount_json(balance_minor)}
            return json_answer({**shown, "at": format_timestamp(moment_ms)})
        lots = [
            (lot, self._ledger.history.next_boundary(lot.issue_day, self._clock.now_ms()))
            for lot in lot_tables.lots(points, account.number)
        ]
        pending = [
            transfer_tables.by_number(points, number)
            for number in lot_tables.pending_of(points, account.number, LIST_LIMIT_MAX)
        ]
        return json_answer(views.account_json(account, lots, pending, masked=not is_holder))

    async def statement(self, request: Request) -> Answer:
        account, is_holder = await self._readable(request)
        limit = request.limit
        lines = transfer_tables.statement(self._database.points, account.number, cursor_of(request), limit + 1)
        cursor = lines[limit - 1][0].number if len(lines) > limit else None
        following = following_path(request, f"{_ACCOUNT.format(id=quote(account.id, safe=':@'))}/statement", cursor)
        results = [
            views.statement_line(account.id, transfer, moved_minor, masked=not is_holder)
            for transfer, moved_minor in lines[:limit]
        ]
        return json_answer({"results": results, "next": following})

    async def _readable(self, request: Request) -> tuple[Account, bool]:
        """The account as it stands, with what was due on it done; and whether its holder asks."""
        account_id, points, now_ms = request.parameters["id"], self._database.points, self._clock.now_ms()
        known = tables.find_account(points, account_id, self._ledger.terms.currency_code)
        is_holder = check_reader(request, account_id, None if known is None else known.public_key, now_ms)
        account = self._ledger.require(points, account_id)
        if lot_tables.is_due(points, account.number, now_ms):
            account = await self._database.write(lambda tx: self._ledger.charge_account(tx, account))
        return account, is_holder


def _moment(text: str, now_ms: int) -> int:
    """A past moment: what a balance will be, nobody knows who does not know what is paid until then."""
    try:
        moment_ms = parse_utc_timestamp(text)
    except ValueError:
        moment_ms = now_ms + 1
    if moment_ms > now_ms:
        raise Invalid("bad_time", "at is a past date-time, ISO 8601 with a time zone.", {"parameter": "at"})
    return moment_ms


def _figures_schema() -> Mapping[str, Any]:
    names = ("supply", "max_issuance", "reserve", "claims")
    amounts = {name: {"type": ["number", "null"]} for name in names}
    texts = {name: {"type": "string"} for name in ("currency", "backed_by")}
    return {"type": "object", "required": [*amounts, *texts], "properties": {**amounts, **texts}}


def _account_schema() -> Mapping[str, Any]:
    lot = {"issued": {"type": "string", "format": "date"}, "amount": _AMOUNT, "held": _AMOUNT}
    return {
        "type": "object",
        "required": ["id", "currency", "balance"],
        "properties": {
            "id": {"type": "string"},
            "currency": {"type": "string"},
            "balance": _AMOUNT,
            "held": _AMOUNT,
            "available": _AMOUNT,
            "lots": {"type": "array", "items": {"type": "object", "properties": lot}},
            "pending": {"type": "array", "items": {"type": "object"}},
        },
    }


def _statement_schema() -> Mapping[str, Any]:
    line = {
        "id": {"type": ["string", "null"], "format": "uuid"},
        "kind": {"type": "string"},
        "counterpart": {"type": ["string", "null"]},
        "amount": _AMOUNT,
        "at": {"type": "string", "format": "date-time"},
    }
    return page_schema({"type": "object", "required": [*line], "properties": line})
