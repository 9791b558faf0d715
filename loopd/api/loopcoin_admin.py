"""What the city's office does with the ledger: opens accounts, registers keys, issues, and keeps the reserve."""

from collections.abc import Mapping
from typing import Any, Final

from loopd.api.answers import Answer, json_answer
from loopd.api.idempotency import Write
from loopd.api.loopcoin_refusals import refusal_logged, refusals
from loopd.api.paging import CURSOR, cursor_of, following_path, page_schema
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Body, Route, Scope, Success
from loopd.crypto.keys import PublicKey
from loopd.database import Database, Tx
from loopd.ledger import accounts, tables, views
from loopd.ledger.issuance import Issuance, Issue
from loopd.ledger.orders import read_amount, read_id
from loopd.ledger.refusals import Fault, refused
from loopd.ledger.service import Ledger
from loopd.protocol.errors import Invalid

_NOUN: Final = "LoopCoin"
_ACCOUNTS: Final = "/admin/v1/ledger/accounts"
_KEY: Final[Mapping[str, Any]] = {"type": ["string", "null"], "description": "An Ed25519 public key, PEM."}
_OPEN: Final = RequestForm(
    {
        "type": "object",
        "required": ["id"],
        "additionalProperties": False,
        "properties": {"id": {"type": "string"}, "public_key": _KEY},
    }
)
_REGISTER: Final = RequestForm(
    {
        "type": "object",
        "required": ["public_key"],
        "additionalProperties": False,
        "properties": {"public_key": _KEY},
    }
)
_ISSUE: Final = RequestForm(
    {
        "type": "object",
        "required": ["id"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "kind": {"enum": ["issue", "deposit", "withdraw"], "default": "issue"},
            "to": {"type": "string", "description": "Who gets the coins; with `issue`."},
            "amount": {"type": "number", "description": "LC; with `issue`."},
            "backing": {"type": "number", "description": "Of the backing currency, into or out of the reserve."},
        },
    }
)
_LINE: Final[Mapping[str, Any]] = {"type": "object", "required": ["id", "currency", "balance"]}
_ISSUE_FAULTS: Final = (
    *(Fault.BAD_AMOUNT, Fault.RESERVED_ID, Fault.OTHER_CONTENT, Fault.RESERVED_ACCOUNT, Fault.OTHER_NODE),
    *(Fault.UNKNOWN_ACCOUNT, Fault.NO_RATE, Fault.OVER_CAP, Fault.INSUFFICIENT_RESERVE, Fault.UNDER_RESERVE),
)


class LedgerAdminRoutes:
    """The office's routes."""

    def __init__(self, ledger: Ledger, issuance: Issuance, database: Database, write: Write) -> None:
        self._ledger = ledger
        self._issuance = issuance
        self._database = database
        self._write = write

    def routes(self) -> list[Route]:
        account = Success(description="The account.", schema=_LINE)
        return [
            _route(
                "POST",
                "/api/v1/loopcoin/issuance",
                self.issue,
                "Issue coins, or move the reserve",
                description="`issue` gives `to` an `amount` of LC, and takes `backing` into the reserve with it, where "
                "that is stated. `deposit` and `withdraw` move backing alone. The same id with the same content is "
                "answered 200.",
                body=Body.REQUIRED,
                request_schema=_ISSUE.schema,
                example='{"id": "550e8400-e29b-41d4-a716-446655440000", "to": "user:maria@munich.loop", '
                '"amount": 100, "backing": 100}',
                successes={
                    201: Success(description="What was moved.", schema="LoopCoinTransfer"),
                    200: Success(description="Moved before.", schema="LoopCoinTransfer"),
                },
                refusals=refusals(_ISSUE_FAULTS),
            ),
            _route(
                "POST",
                _ACCOUNTS,
                self.open,
                "Open an account",
                description="`user:` or `business:`, then a name of small letters, digits and `.`, `_`, `-`, then `@` "
                "and this node's id. With a key its holder signs payments; without, a token bound to it pays.",
                admin=True,
                body=Body.REQUIRED,
                request_schema=_OPEN.schema,
                successes={201: account},
                refusals={400: ("bad_account", "bad_key"), 404: ("no_ledger",), 409: ("account_exists",)},
            ),
            _route(
                "GET",
                _ACCOUNTS,
                self.page,
                "List the accounts in the order in which they were opened",
                admin=True,
                query=(LIMIT, CURSOR),
                successes={200: Success(description="One page.", schema=page_schema(_LINE))},
                refusals={404: ("no_ledger",)},
            ),
            _route(
                "POST",
                f"{_ACCOUNTS}/{{id}}/key",
                self.register_key,
                "Register another key for an account, or none",
                admin=True,
                body=Body.REQUIRED,
                request_schema=_REGISTER.schema,
                successes={200: account},
                refusals={400: ("bad_key",), 404: ("no_ledger", "unknown_account")},
            ),
        ]

    async def issue(self, request: Request) -> Answer:
        value = _ISSUE.read(request.body)
        kind, named = value.get("kind", "issue"), {"to", "amount", "backing"} & value.keys()
        if kind == "issue" and not {"to", "amount"} <= named:
            raise Invalid("schema", "An issue names `to` and `amount`.", {"pointer": "/to"})
        if kind != "issue" and named != {"backing"}:
            raise Invalid("schema", "`deposit` and `withdraw` name `backing` alone.", {"pointer": "/kind"})
        with refusal_logged(value["id"]):
            backing_minor = read_amount(value["backing"], "/backing") if "backing" in named else 0
            amount_minor = read_amount(value["amount"]) if "amount" in named else 0
            transfer_id = read_id(value["id"])

        def unit(tx: Tx) -> Answer:
            with refusal_logged(transfer_id):
                if kind == "issue":
                    done = self._issuance.issue(tx, Issue(transfer_id, value["to"], amount_minor, backing_minor))
                else:
                    moved_minor = backing_minor if kind == "deposit" else -backing_minor
                    done = self._issuance.move_reserve(tx, transfer_id, moved_minor)
            return json_answer(self._ledger.show(tx, done.transfer), 201 if done.created else 200)

        return await self._write(request, unit)

    async def open(self, request: Request) -> Answer:
        value = _OPEN.read(request.body)
        account_id, key = value["id"], _key(value.get("public_key"))
        self._ledger.require_enabled()
        if not accounts.is_holder_id(account_id, self._ledger.node.node_id):
            message = f"An account is user:NAME or business:NAME, then @{self._ledger.node.node_id}."
            raise Invalid("bad_account", message, {"pointer": "/id"})

        def unit(tx: Tx) -> Answer:
            return json_answer(views.account_line(self._ledger.open_account(tx, account_id, key)), 201)

        return await self._write(request, unit)

    async def page(self, request: Request) -> Answer:
        self._ledger.require_enabled()
        limit = request.limit
        found = tables.accounts_page(self._database.points, cursor_of(request) or 0, limit + 1)
        following = following_path(request, _ACCOUNTS, found[limit - 1].number if len(found) > limit else None)
        return json_answer({"results": [views.account_line(each) for each in found[:limit]], "next": following})

    async def register_key(self, request: Request) -> Answer:
        key = _key(_REGISTER.read(request.body)["public_key"])

        def unit(tx: Tx) -> Answer:
            account = self._ledger.require(tx, request.parameters["id"])
            if accounts.is_public(account.id):
                raise refused(Fault.UNKNOWN_ACCOUNT)
            return json_answer(views.account_line(self._ledger.register_key(tx, account.id, key)))

        return await self._write(request, unit)


def _route(method: str, path: str, handler: Any, summary: str, **extras: Any) -> Route:
    return Route(method=method, path=path, handler=handler, noun=_NOUN, summary=summary, access=Scope.ADMIN, **extras)


def _key(stated: str | None) -> str | None:
    if stated is None:
        return None
    try:
        return PublicKey.from_pem(stated).to_pem()
    except ValueError:
        raise Invalid("bad_key", "A key is Ed25519, as PEM.", {"pointer": "/public_key"}) from None
