"""`/api/v1/loopcoin/clearing`: what is between this city and another, and disputes about payments between them."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from loopd.api.answers import Answer, json_answer
from loopd.api.idempotency import Write
from loopd.api.paging import CURSOR, cursor_of, following_path
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Body, Route, Scope, Success
from loopd.database import Database, Tx
from loopd.ledger.clearing.rules import Decision, PayeeState, PayerState
from loopd.ledger.clearing.service import Clearing
from loopd.ledger.clearing.views import clearance_json
from loopd.ledger.netting.rules import Method, Period
from loopd.ledger.netting.service import Netting
from loopd.ledger.reconciliation.service import Reconciling

_PATH: Final = "/api/v1/loopcoin/clearing/{peer}"
_RESOLVE: Final = RequestForm(
    {
        "type": "object",
        "required": ["decision"],
        "additionalProperties": False,
        "properties": {"decision": {"enum": [decision.value for decision in Decision]}},
    }
)
_AMOUNT: Final[Mapping[str, Any]] = {"type": "number", "multipleOf": 0.01}
_STATES: Final = sorted({state.value for states in (PayerState, PayeeState) for state in states})
_SETTLEMENT: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["id", "payer", "payee", "state", "frozen", "payer_amount", "payee_amount", "opened_at", "changed_at"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "payer": {"type": "string", "description": "The buyer's node, which decides."},
        "payee": {"type": "string"},
        "state": {"enum": _STATES},
        "frozen": {"type": "boolean", "description": "A dispute keeps it from ending."},
        "payer_amount": {**_AMOUNT, "description": "What crosses, in the payer's currency."},
        "payee_amount": {**_AMOUNT, "description": "The same in the payee's."},
        "opened_at": {"type": "string", "format": "date-time"},
        "changed_at": {"type": "string", "format": "date-time"},
        "transaction": {"type": "string"},
        "reason": {"type": "string", "description": "Why it was refused or voided."},
    },
}
_PAGE: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": [
        *("peer", "currency", "owes", "credit_limit", "method", "period", "to_pay", "backed_by", "results", "next"),
    ],
    "properties": {
        "peer": {"type": "string"},
        "currency": {"type": "string"},
        "owes": {**_AMOUNT, "description": "What this city owes the peer; below zero what it is owed."},
        "credit_limit": {**_AMOUNT, "description": "How much the peer may owe."},
        "method": {"enum": [method.value for method in Method], "description": "How both cities settle."},
        "period": {"enum": [period.value for period in Period], "description": "How often a run is signed."},
        "to_pay": {
            **_AMOUNT,
            "description": "What signed runs leave this city to pay, in the backing; below zero what is to come.",
        },
        "backed_by": {"type": "string"},
        "results": {"type": "array", "items": _SETTLEMENT},
        "next": {"type": ["string", "null"]},
    },
}

_COMPARISON: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["peer", "agrees", "compared", "in_flight", "difference"],
    "properties": {
        "peer": {"type": "string"},
        "agrees": {"type": "boolean"},
        "compared": {"type": "integer", "description": "Entries that both have."},
        "in_flight": {"type": "integer", "description": "Entries that one side has further than the other."},
        "difference": {
            "type": ["object", "null"],
            "description": "The first one: `reason` is `missing_here`, `missing_there`, `other_amounts` or "
            "`other_decision` (the payee has posted what its payer has not decided on); `here` and `there` are the "
            "entry on each side, or null.",
        },
    },
}


class ClearingRoutes:
    """Read what is between this city and a peer, and resolve a dispute."""

    def __init__(
        self, clearing: Clearing, netting: Netting, reconciling: Reconciling, database: Database, write: Write
    ) -> None:
        self._clearing = clearing
        self._netting = netting
        self._reconciling = reconciling
        self._database = database
        self._write = write

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path=_PATH,
                handler=self.read,
                noun="LoopCoin",
                summary="Read what is between this city and a peer",
                description="The balance of the peer's clearing account and the settlements with it, the newest "
                "first. No account is named.",
                access=Scope.ADMIN,
                query=(LIMIT, CURSOR),
                successes={200: Success(description="One page.", schema=_PAGE)},
                refusals={404: ("no_ledger", "unknown_peer")},
            ),
            Route(
                method="POST",
                path=f"{_PATH}/reconcile",
                handler=self.reconcile,
                noun="LoopCoin",
                summary="Compare both sides' books of what is between this city and a peer",
                description="Asks the peer for its statement now, and names the first entry in which both differ. "
                "What is on its way from one to the other is counted, and is no difference.",
                access=Scope.ADMIN,
                successes={200: Success(description="The comparison.", schema=_COMPARISON)},
                refusals={404: ("no_ledger", "unknown_peer"), 503: ("peer_unreachable",)},
            ),
            Route(
                method="POST",
                path=f"{_PATH}/settlements/{{id}}/resolve",
                handler=self.resolve,
                noun="LoopCoin",
                summary="Resolve the payment of a disputed sale of another city",
                description="At the buyer's node, whose account pays: `post` pays what is frozen, `void` gives it "
                "back; once. The transaction stays disputed.",
                access=Scope.ADMIN,
                body=Body.REQUIRED,
                request_schema=_RESOLVE.schema,
                example='{"decision": "void"}',
                successes={200: Success(description="The settlement as it stands then.", schema=_SETTLEMENT)},
                refusals={
                    404: ("no_ledger", "unknown_settlement"),
                    409: ("payer_decides", "not_frozen", "not_prepared", "already_posted", "already_voided"),
                },
            ),
        ]

    async def read(self, request: Request) -> Answer:
        peer = request.parameters["peer"]
        found = self._clearing.page(self._database.points, peer, cursor_of(request), request.limit + 1)
        results = [clearance_json(each) for each in found[: request.limit]]
        cursor = found[request.limit - 1].number if len(found) > request.limit else None
        path = _PATH.replace("{peer}", quote(peer))
        points = self._database.points
        standing = {**self._clearing.balance(points, peer), **self._netting.terms(points, peer)}
        return json_answer({**standing, "results": results, "next": following_path(request, path, cursor)})

    async def reconcile(self, request: Request) -> Answer:
        return json_answer(await self._reconciling.reconcile(request.parameters["peer"]))

    async def resolve(self, request: Request) -> Answer:
        decision = Decision(_RESOLVE.read(request.body)["decision"])
        peer, settlement_id = request.parameters["peer"], request.parameters["id"]

        def unit(tx: Tx) -> Answer:
            return json_answer(self._clearing.resolve(tx, peer, settlement_id, decision))

        return await self._write(request, unit)
