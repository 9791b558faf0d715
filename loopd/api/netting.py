"""`/api/v1/loopcoin/clearing/{peer}/runs` and `/discharges`: what two cities sign that they owe, and how it is paid."""

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from loopd.api.answers import LD_JSON, Answer, entity_answer, json_answer
from loopd.api.idempotency import Write
from loopd.api.paging import CURSOR, cursor_of, following_path, page_schema
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Body, Route, Scope, Success
from loopd.database import Database, Tx
from loopd.ledger.netting.rules import DischargeState, Method, Period, RunState
from loopd.ledger.netting.service import Netting
from loopd.protocol.documents import refuse_personal_data
from loopd.protocol.errors import NotFound
from loopd.protocol.limits import DISCHARGE_REFERENCE_MAX_CHARACTERS

_RUNS: Final = "/api/v1/loopcoin/clearing/{peer}/runs"
_DISCHARGES: Final = "/api/v1/loopcoin/clearing/{peer}/discharges"
_ANNOUNCE: Final = RequestForm(
    {
        "type": "object",
        "required": ["id", "run", "reference"],
        "additionalProperties": False,
        "properties": {
            "id": {"type": "string", "format": "uuid"},
            "run": {"type": "integer", "minimum": 1, "description": "The run that was paid; see its method."},
            "reference": {
                "type": "string",
                "minLength": 1,
                "maxLength": DISCHARGE_REFERENCE_MAX_CHARACTERS,
                "description": "What names the payment outside, such as a bank's reference. No account number.",
            },
        },
    }
)
_DENY: Final = RequestForm(
    {
        "type": "object",
        "required": ["reason"],
        "additionalProperties": False,
        "properties": {"reason": {"type": "string", "minLength": 1, "maxLength": 200}},
    }
)
_AMOUNT: Final[Mapping[str, Any]] = {"type": "number", "multipleOf": 0.01, "description": "In the backing."}
_CLAIM: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["debtor", "creditor", "amount", "discharged"],
    "properties": {
        "debtor": {"type": "string"},
        "creditor": {"type": "string"},
        "amount": _AMOUNT,
        "discharged": {"type": "boolean", "description": "Paid, or announced as paid."},
    },
}
_RUN: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["run", "state", "method", "period", "closed_at", "claims"],
    "properties": {
        "run": {"type": "integer", "minimum": 1},
        "state": {"enum": [state.value for state in RunState]},
        "method": {"enum": [method.value for method in Method]},
        "period": {"enum": [period.value for period in Period]},
        "closed_at": {"type": "string", "format": "date-time"},
        "claims": {"type": "array", "items": _CLAIM, "description": "What both cities signed that is to be paid."},
        "reason": {"type": "string", "description": "Why the peer did not sign, and where in the document."},
    },
}
_DISCHARGE: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": [
        *("id", "debtor", "creditor", "state", "amount", "currency", "reference", "runs", "opened_at", "changed_at"),
    ],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "debtor": {"type": "string"},
        "creditor": {"type": "string"},
        "state": {"enum": [state.value for state in DischargeState]},
        "amount": _AMOUNT,
        "currency": {"type": "string"},
        "reference": {"type": "string"},
        "runs": {"type": "array", "items": {"type": "integer"}},
        "opened_at": {"type": "string", "format": "date-time"},
        "changed_at": {"type": "string", "format": "date-time"},
        "reason": {"type": "string"},
    },
}
_UNKNOWN: Final = ("no_ledger", "unknown_peer")
_SHOWN: Final = Success(description="The discharge as it stands then.", schema=_DISCHARGE)


class NettingRoutes:
    """Runs and discharges, for the city's office."""

    def __init__(self, netting: Netting, database: Database, write: Write) -> None:
        self._netting = netting
        self._database = database
        self._write = write

    def routes(self) -> list[Route]:
        return [*self._routes_of_runs(), *self._routes_of_discharges()]

    def _routes_of_runs(self) -> list[Route]:
        return [
            _route(
                "GET",
                _RUNS,
                self.runs,
                "List the runs with a peer, the newest first",
                query=(LIMIT, CURSOR),
                successes={200: Success(description="One page.", schema=page_schema(_RUN))},
                refusals={404: _UNKNOWN},
            ),
            _route(
                "POST",
                _RUNS,
                self.propose,
                "Propose a run now, before its period is over",
                description="It lists the payments that both cities have posted and no run lists. The peer signs it or "
                "says why not. Of both nodes the one with the smaller id proposes.",
                successes={201: Success(description="The run, proposed.", schema=_RUN)},
                refusals={404: _UNKNOWN, 409: ("peer_proposes", "run_undecided", "nothing_to_settle")},
            ),
            _route(
                "GET",
                f"{_RUNS}/{{run}}",
                self.document,
                "Read a run as both cities signed it",
                description="The InterNodeSettlement (§5.3). Each signature is Ed25519 over its RFC 8785 form without "
                "`signatures`. It names no person.",
                successes={
                    200: Success(description="The document.", schema="InterNodeSettlement", content_type=LD_JSON)
                },
                refusals={404: ("no_ledger", "unknown_run")},
            ),
        ]

    def _routes_of_discharges(self) -> list[Route]:
        return [
            _route(
                "GET",
                _DISCHARGES,
                self.discharges,
                "List the discharges between this city and a peer, the newest first",
                query=(LIMIT, CURSOR),
                successes={200: Success(description="One page.", schema=page_schema(_DISCHARGE))},
                refusals={404: _UNKNOWN},
            ),
            _route(
                "POST",
                _DISCHARGES,
                self.announce,
                "Announce that this city has paid a run",
                description="So much of the reserve is held, and the peer is told. With `clearing` all runs that are "
                "carried up to this one are paid together. The same id with the same content is answered 200.",
                body=Body.REQUIRED,
                request_schema=_ANNOUNCE.schema,
                example='{"id": "550e8400-e29b-41d4-a716-446655440000", "run": 3, "reference": "SEPA 2026-11-30 0042"}',
                successes={
                    201: Success(description="The discharge, announced.", schema=_DISCHARGE),
                    200: Success(description="Announced before.", schema=_DISCHARGE),
                },
                refusals={
                    400: ("personal_data",),
                    404: (*_UNKNOWN, "unknown_run"),
                    409: ("other_content", "not_agreed", "nothing_owed", "too_many_denied", "insufficient_reserve"),
                },
            ),
            _route(
                "POST",
                f"{_DISCHARGES}/{{id}}/confirm",
                self.confirm,
                "Confirm that what the peer announced has come",
                description="It is booked into the reserve, and both clearing accounts fall. That is final.",
                successes={200: _SHOWN},
                refusals={404: ("no_ledger", "unknown_discharge"), 409: ("already_denied", "not_creditor")},
            ),
            _route(
                "POST",
                f"{_DISCHARGES}/{{id}}/deny",
                self.deny,
                "Say that what the peer announced has not come",
                description="The runs are owed again. That is final: whoever pays later announces it anew.",
                body=Body.REQUIRED,
                request_schema=_DENY.schema,
                example='{"reason": "no payment under that reference"}',
                successes={200: _SHOWN},
                refusals={
                    400: ("personal_data",),
                    404: ("no_ledger", "unknown_discharge"),
                    409: ("already_confirmed", "not_creditor"),
                },
            ),
        ]

    async def runs(self, request: Request) -> Answer:
        peer, limit = request.parameters["peer"], request.limit
        found = self._netting.runs(self._database.points, peer, cursor_of(request), limit + 1)
        cursor = found[limit - 1]["run"] if len(found) > limit else None
        following = following_path(request, _RUNS.replace("{peer}", quote(peer)), cursor)
        return json_answer({"results": found[:limit], "next": following})

    async def propose(self, request: Request) -> Answer:
        peer = request.parameters["peer"]
        return await self._write(request, lambda tx: json_answer(self._netting.propose(tx, peer), 201))

    async def document(self, request: Request) -> Answer:
        peer, run = request.parameters["peer"], request.parameters["run"]
        if not (run.isascii() and run.isdecimal() and len(run) <= 15):
            raise NotFound("unknown_run", "There is no such run with that node.")
        return entity_answer(self._netting.document(self._database.points, peer, int(run)))

    async def discharges(self, request: Request) -> Answer:
        peer, limit = request.parameters["peer"], request.limit
        found = self._netting.discharges(self._database.points, peer, cursor_of(request), limit + 1)
        cursor = found[limit - 1][0] if len(found) > limit else None
        following = following_path(request, _DISCHARGES.replace("{peer}", quote(peer)), cursor)
        return json_answer({"results": [shown for _, shown in found[:limit]], "next": following})

    async def announce(self, request: Request) -> Answer:
        value, peer = _ANNOUNCE.read(request.body), request.parameters["peer"]
        refuse_personal_data(value)
        discharge_id, run, reference = str(UUID(value["id"])), int(value["run"]), value["reference"]

        def unit(tx: Tx) -> Answer:
            shown, is_new = self._netting.announce(tx, peer, discharge_id, run, reference)
            return json_answer(shown, 201 if is_new else 200)

        return await self._write(request, unit)

    async def confirm(self, request: Request) -> Answer:
        peer, discharge_id = request.parameters["peer"], request.parameters["id"].lower()
        return await self._write(request, lambda tx: json_answer(self._netting.confirm(tx, peer, discharge_id)))

    async def deny(self, request: Request) -> Answer:
        value, peer = _DENY.read(request.body), request.parameters["peer"]
        refuse_personal_data(value)
        discharge_id, reason = request.parameters["id"].lower(), value["reason"]
        return await self._write(request, lambda tx: json_answer(self._netting.deny(tx, peer, discharge_id, reason)))


def _route(method: str, path: str, handler: Callable[..., Any], summary: str, **extras: Any) -> Route:
    return Route(
        method=method, path=path, handler=handler, noun="LoopCoin", summary=summary, access=Scope.ADMIN, **extras
    )
