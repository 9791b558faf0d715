"""`/api/v1/federate/settlement`: how two nodes settle what one city's account pays to the other's."""

from collections.abc import Callable, Mapping
from typing import Final

from loopd.api.answers import Answer, json_answer
from loopd.api.node_effects import ACCEPTED, DOCUMENT_REFUSALS, AcceptOnce, accepted, node_caller
from loopd.api.paging import CURSOR, cursor_of, following_path, page_schema
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Access, Body, RateClass, Route, Success
from loopd.database import Database, Tx
from loopd.ledger.clearing.messages import MESSAGE_TYPES, SETTLEMENT_PATH
from loopd.ledger.clearing.service import Clearing
from loopd.ledger.netting.documents import NETTING_TYPES
from loopd.ledger.netting.service import Netting
from loopd.ledger.reconciliation.rules import LISTED, EntryKind, entry_json
from loopd.ledger.reconciliation.service import Reconciling
from loopd.protocol.documents import Document, check_document
from loopd.protocol.errors import Forbidden
from loopd.protocol.nodes import Standing

_TYPES: Final = MESSAGE_TYPES | NETTING_TYPES
_SCHEMA: Final = {"oneOf": [{"$ref": f"#/components/schemas/{name}"} for name in sorted(_TYPES)]}

_ENTRY: Final = {
    "type": "object",
    "required": ["kind", "payer", "id", "state", "payer_amount", "payee_amount"],
    "properties": {
        "kind": {"enum": [kind.value for kind in EntryKind]},
        "payer": {"type": "string"},
        "id": {"type": "string", "format": "uuid"},
        "state": {"enum": list(LISTED)},
        "payer_amount": {"type": "number", "multipleOf": 0.01},
        "payee_amount": {"type": "number", "multipleOf": 0.01},
    },
}


class FederateSettlementRoutes:
    """Takes the messages of settlements, and tells what came of them."""

    def __init__(
        self,
        clearing: Clearing,
        netting: Netting,
        reconciling: Reconciling,
        database: Database,
        accept_once: AcceptOnce,
    ) -> None:
        self._receivers: Mapping[str, Callable[[Tx, str, Document], None]] = {
            **dict.fromkeys(MESSAGE_TYPES, clearing.receive),
            **dict.fromkeys(NETTING_TYPES, netting.receive),
        }
        self._reconciling = reconciling
        self._database = database
        self._accept_once = accept_once

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path=SETTLEMENT_PATH,
                handler=self.statement,
                noun="Federation",
                summary="List what is settled with the caller",
                description="What is or may be in the caller's books too: prepared and posted settlements and "
                "discharges, in the order of this node's books; to compare both.",
                access=Access.NODE,
                rate=RateClass.NODE,
                query=(LIMIT, CURSOR),
                successes={200: Success(description="One page.", schema=page_schema(_ENTRY))},
                refusals={403: ("not_a_peer",), 404: ("no_ledger", "unknown_peer")},
            ),
            Route(
                method="POST",
                path=SETTLEMENT_PATH,
                handler=self.receive,
                noun="Federation",
                summary="Settle what one city pays to another",
                description="For peers that name `settlement` in their handshake and have a credit limit here. The "
                "seller's node sends a SettlementRequest at selection; the buyer's holds the money and sends a "
                "SettlementPrepare; the seller's reserves and sends a SettlementAnswer; at delivery it sends a "
                "SettlementInquiry that asks for `post`, the buyer's decides and sends a SettlementDecision, and the "
                "SettlementAcknowledgement ends it. The InterNodeSettlement of a run is proposed by the node with the "
                "smaller id, and comes back with both signatures or as a NettingRefusal; a DischargeNotice says that "
                "it was paid, a DischargeAnswer whether that came. Repeats are answered as the first was, by messages "
                "of this node.",
                access=Access.NODE,
                rate=RateClass.NODE,
                body=Body.REQUIRED,
                request_schema=_SCHEMA,
                successes={202: ACCEPTED},
                refusals={
                    400: (
                        *DOCUMENT_REFUSALS,
                        "origin_mismatch",
                        "not_counterpart",
                        "bad_id",
                        "bad_amount",
                        "not_a_run",
                        "not_proposer",
                    ),
                    403: ("not_a_peer", "not_settling"),
                    404: ("no_ledger",),
                    409: (
                        "other_content",
                        "not_decided",
                        "other_decision",
                        "already_prepared",
                        "not_prepared",
                        "unknown_settlement",
                        "unknown_run",
                        "bad_signature",
                        "already_refused",
                        "already_agreed",
                        "unknown_discharge",
                        "too_many_denied",
                    ),
                    503: ("too_many_settlements",),
                },
            ),
        ]

    async def statement(self, request: Request) -> Answer:
        after, limit = cursor_of(request) or 0, request.limit
        found = self._reconciling.statement(self._database.points, _peer(request), after, limit + 1)
        cursor = found[limit - 1][0] if len(found) > limit else None
        results = [entry_json(entry) for _, entry in found[:limit]]
        return json_answer({"results": results, "next": following_path(request, SETTLEMENT_PATH, cursor)})

    async def receive(self, request: Request) -> Answer:
        peer, document = _peer(request), check_document(request.body, _TYPES)
        receive = self._receivers[document.type]

        def effect(tx: Tx) -> None:
            receive(tx, peer, document)

        return accepted(await self._accept_once(request, effect))


def _peer(request: Request) -> str:
    """The calling node's id. Forbidden `not_a_peer` for one whose key nobody here has seen, or that signs nothing."""
    caller = node_caller(request)
    if not caller.verified or caller.node.standing is not Standing.PEER:
        raise Forbidden("not_a_peer", "Only peers settle, and only what they have signed; a handshake comes first.")
    return caller.node_id
