"""`/api/v1/loopcoin/settlement`: what a transaction pays, to whom, and how a dispute about it ends (§7.4)."""

from typing import Final

from loopd.api.answers import LD_JSON, Answer, entity_answer
from loopd.api.idempotency import Write
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import Body, QueryParameter, Route, Scope, Success
from loopd.database import Database, Tx
from loopd.ledger.clearing.service import Clearing
from loopd.ledger.movements import Phase
from loopd.ledger.settlement import Settlements
from loopd.protocol.errors import Conflict

_PATH: Final = "/api/v1/loopcoin/settlement/{id}"
_SELLER: Final = QueryParameter(
    name="seller", description="The seller's node, whose transaction it is; this one without it.", max_characters=80
)
_RESOLVE: Final = RequestForm(
    {
        "type": "object",
        "required": ["decision"],
        "additionalProperties": False,
        "properties": {"decision": {"enum": [Phase.POST.value, Phase.VOID.value]}},
    }
)


class LoopCoinSettlementRoutes:
    """Read a settlement, and resolve one that a dispute froze."""

    def __init__(self, settlements: Settlements, clearing: Clearing, database: Database, write: Write) -> None:
        self._settlements = settlements
        self._clearing = clearing
        self._database = database
        self._write = write

    def routes(self) -> list[Route]:
        shown = Success(description="The payment by its recipients.", schema="Settlement", content_type=LD_JSON)
        return [
            Route(
                method="GET",
                path=_PATH,
                handler=self.read,
                noun="LoopCoin",
                summary="Read a transaction's settlement",
                description="`payment.state` is `held` from selection on, then `posted` or `voided`, or `frozen` by a "
                "dispute. Of a buyer in another city it is `requested` until both sides have `prepared`, or `refused`. "
                "`residual` is what §7.4 assigns to nobody. No account is named. A purchase of this city's is the "
                "transaction of another node, which `seller` names; its state is then this city's own.",
                query=(_SELLER,),
                successes={200: shown},
                refusals={404: ("no_ledger", "unknown_settlement")},
            ),
            Route(
                method="POST",
                path=f"{_PATH}/resolve",
                handler=self.resolve,
                noun="LoopCoin",
                summary="Resolve the payment of a disputed transaction",
                description="`post` pays what is frozen, `void` gives it back; once. The transaction stays disputed.",
                access=Scope.ADMIN,
                body=Body.REQUIRED,
                request_schema=_RESOLVE.schema,
                example='{"decision": "void"}',
                successes={200: shown},
                refusals={
                    404: ("no_ledger", "unknown_settlement"),
                    409: ("not_frozen", "already_posted", "already_voided", "payer_decides"),
                },
            ),
        ]

    async def read(self, request: Request) -> Answer:
        points, transaction_id = self._database.points, request.parameters["id"]
        seller = request.text("seller")
        between = self._clearing.entity(points, transaction_id, seller)
        if between is not None:
            return entity_answer(between)
        return entity_answer(self._settlements.entity(self._settlements.require(points, transaction_id, seller)))

    async def resolve(self, request: Request) -> Answer:
        phase = Phase(_RESOLVE.read(request.body)["decision"])

        def unit(tx: Tx) -> Answer:
            if self._clearing.entity(tx, request.parameters["id"]) is not None:
                raise Conflict("payer_decides", "The node whose account pays decides on a dispute.")
            settlement = self._settlements.resolve(tx, request.parameters["id"], phase)
            return entity_answer(self._settlements.entity(settlement))

        return await self._write(request, unit)
