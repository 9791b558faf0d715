"""`/api/v1/loopcoin/transfers`: orders to pay (§5.2), alone or linked, at once or held."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

from loopd.api.answers import LD_JSON, Answer, entity_answer, json_answer
from loopd.api.idempotency import Write
from loopd.api.loopcoin_callers import READ_REFUSALS, authority_of, authority_to_end, identify, may_read
from loopd.api.loopcoin_refusals import refusal_logged, refusals
from loopd.api.records import DOCUMENT_REFUSALS
from loopd.api.requests import Request
from loopd.api.routes import Body, Route, Success
from loopd.clock import Clock
from loopd.database import Database, Tx
from loopd.ledger import tables
from loopd.ledger.movements import Phase, Transfer
from loopd.ledger.orders import Order, read_order
from loopd.ledger.refusals import Fault
from loopd.ledger.service import Done, Ledger, unknown_transfer
from loopd.protocol.contexts import context_url
from loopd.protocol.documents import Document, check_document, check_value
from loopd.protocol.errors import Invalid, NotFound
from loopd.protocol.json_text import dump_json, read_json
from loopd.protocol.limits import LINKED_TRANSFERS_MAX, ORDER_MAX_BYTES

_NOUN: Final = "LoopCoin"
_ENTITY: Final = "LoopCoinTransfer"
_PATH: Final = "/api/v1/loopcoin/transfers"
_LINKED: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["transfers"],
    "additionalProperties": False,
    "properties": {
        "transfers": {
            "type": "array",
            "minItems": 1,
            "maxItems": LINKED_TRANSFERS_MAX,
            "items": {"$ref": f"#/components/schemas/{_ENTITY}"},
        }
    },
}
_RESULTS: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["results"],
    "properties": {"results": _LINKED["properties"]["transfers"]},
}
_EXAMPLE: Final = (
    f'{{"@context": "{context_url()}", "@type": "LoopCoinTransfer", '
    '"id": "550e8400-e29b-41d4-a716-446655440000", "from": "user:maria@munich.loop", '
    '"to": "business:brewery@munich.loop", "amount": 12.50, "currency": "LC-MUC", "timestamp": "2026-11-30T10:00:00Z"}'
)
_ORDER_FAULTS: Final = (
    *(Fault.BAD_AMOUNT, Fault.NOT_CANONICAL, Fault.RESERVED_ID, Fault.WRONG_CURRENCY, Fault.SAME_ACCOUNT),
    *(Fault.BAD_SIGNATURE, Fault.NOT_AUTHORISED, Fault.OTHER_CONTENT, Fault.BAD_TIME, Fault.RESERVED_ACCOUNT),
    *(Fault.OTHER_NODE, Fault.UNKNOWN_ACCOUNT, Fault.TOO_MANY_PENDING, Fault.NO_RATE, Fault.INSUFFICIENT_FUNDS),
    Fault.INSUFFICIENT_RESERVE,
)
_END_FAULTS: Final = (
    *(Fault.NOT_AUTHORISED, Fault.OF_A_TRANSACTION, Fault.NOT_PENDING, Fault.ALREADY_POSTED),
    *(Fault.ALREADY_VOIDED, Fault.ALREADY_EXPIRED),
)


class TransferRoutes:
    """Order, read, post and void transfers."""

    def __init__(self, ledger: Ledger, database: Database, clock: Clock, write: Write) -> None:
        self._ledger = ledger
        self._database = database
        self._clock = clock
        self._write = write

    def routes(self) -> list[Route]:
        shown = Success(description="The transfer and what became of it.", schema=_ENTITY, content_type=LD_JSON)
        return [
            Route(
                method="POST",
                path=_PATH,
                handler=self.order,
                noun=_NOUN,
                summary="Pay, or hold funds for a payment",
                description="It takes the Ed25519 signature of the payer's registered key over the RFC 8785 form of "
                "the transfer without `signature`, or a token bound to the payer's account. With `hold_until` (an "
                "addition) the funds are reserved and the transfer stays `pending` until it is posted, voided, or that "
                "moment has come. The same id with the same content is answered 200 with what is stored.",
                token_shows_more=True,
                body=Body.REQUIRED,
                body_max_bytes=ORDER_MAX_BYTES,
                request_schema=_ENTITY,
                example=_EXAMPLE,
                successes={201: shown, 200: shown},
                refusals=refusals(_ORDER_FAULTS, {400: DOCUMENT_REFUSALS, 503: ("decay_due",)}),
            ),
            Route(
                method="POST",
                path=f"{_PATH}/linked",
                handler=self.order_linked,
                noun=_NOUN,
                summary="Several transfers that stand and fall together",
                description="All are carried out or none. A document, an amount or an id that cannot be is told "
                "first, whichever has it; else the refusal is that of the first that has one. Held together, they "
                "have the same `hold_until`, and whoever ends one may pay from the account of each.",
                token_shows_more=True,
                body=Body.REQUIRED,
                body_max_bytes=LINKED_TRANSFERS_MAX * ORDER_MAX_BYTES,
                request_schema=_LINKED,
                example=f'{{"transfers": [{_EXAMPLE}]}}',
                successes={
                    201: Success(description="All of them.", schema=_RESULTS),
                    200: Success(description="Carried out before.", schema=_RESULTS),
                },
                refusals=refusals(_ORDER_FAULTS, {400: ("personal_data",), 503: ("decay_due",)}),
            ),
            Route(
                method="GET",
                path=f"{_PATH}/{{id}}",
                handler=self.read,
                noun=_NOUN,
                summary="Read a transfer",
                description="For those whose accounts it moves, and the operator. Between the node's own accounts: "
                "for all.",
                token_shows_more=True,
                successes={200: shown},
                refusals={401: READ_REFUSALS[401], 404: ("no_ledger", "unknown_transfer")},
            ),
            *(self._end_route(phase, verb) for phase, verb in ((Phase.POST, "Post"), (Phase.VOID, "Void"))),
        ]

    def _end_route(self, phase: Phase, verb: str) -> Route:
        async def end(request: Request) -> Answer:
            return await self._end(request, phase)

        return Route(
            method="POST",
            path=f"{_PATH}/{{id}}/{phase.value}",
            handler=end,
            noun=_NOUN,
            summary=f"{verb} a pending transfer",
            description="By a token bound to the payer's account, or by its key: `X-Account-Signature` over "
            "`loop-account-end-v1`, the path and the value of `X-Account-Timestamp`, joined by LF. What is linked to "
            "it ends with it. The same again changes nothing.",
            token_shows_more=True,
            successes={200: Success(description="How it stands.", schema=_ENTITY, content_type=LD_JSON)},
            refusals=refusals(_END_FAULTS, {401: READ_REFUSALS[401], 404: ("unknown_transfer",)}),
        )

    async def order(self, request: Request) -> Answer:
        order = self._read(request, check_document(request.body, _ENTITY))

        def unit(tx: Tx) -> Answer:
            done = self._submit(tx, request, [order])[0]
            status = 201 if done.created else 200
            return entity_answer(self._ledger.show(tx, done.transfer), status, {"Location": f"{_PATH}/{order.id}"})

        return await self._write(request, unit)

    async def order_linked(self, request: Request) -> Answer:
        orders = [self._read(request, document) for document in _documents(request.body)]

        def unit(tx: Tx) -> Answer:
            done = self._submit(tx, request, orders)
            results = [self._ledger.show(tx, each.transfer) for each in done]
            return json_answer({"results": results}, 201 if any(each.created for each in done) else 200)

        return await self._write(request, unit)

    async def read(self, request: Request) -> Answer:
        transfer = self._find(request)
        keys = (None, None) if transfer is None else self._keys_of(transfer)
        if not may_read(request, transfer, keys, self._clock.now_ms()) or transfer is None:
            raise unknown_transfer()
        return entity_answer(self._ledger.show(self._database.points, transfer))

    def _find(self, request: Request) -> Transfer | None:
        """The transfer that the path names. NotFound `no_ledger`."""
        self._ledger.require_enabled()
        with suppress(NotFound):
            return self._ledger.find_transfer(self._database.points, request.parameters["id"])
        return None

    def _keys_of(self, transfer: Transfer) -> tuple[str | None, str | None]:
        points = self._database.points
        payer, payee = (tables.account_by_number(points, number) for number in (transfer.payer, transfer.payee))
        return payer.public_key, payee.public_key

    async def _end(self, request: Request, phase: Phase) -> Answer:
        transfer = self._find(request)
        transfer_id, key = (None, None) if transfer is None else (transfer.id, self._keys_of(transfer)[0])
        with refusal_logged(transfer_id):
            authority = authority_to_end(request, transfer, key, self._clock.now_ms())
        if authority.account is not None:
            identify(request, authority.account)

        def unit(tx: Tx) -> Answer:
            with refusal_logged(transfer_id):
                ended = self._ledger.end(tx, request.parameters["id"], phase, authority)
            return entity_answer(self._ledger.show(tx, ended))

        return await self._write(request, unit)

    def _read(self, request: Request, document: Document) -> Order:
        with refusal_logged(document.value["id"]):
            order = read_order(document)
        identify(request, order.payer)
        return order

    def _submit(self, tx: Tx, request: Request, orders: Sequence[Order]) -> list[Done]:
        with refusal_logged(orders[0].id):
            return self._ledger.submit(tx, orders, authority_of(request))


def _documents(body: bytes) -> list[Document]:
    """The orders of a linked request."""
    value = read_json(body)
    listed = value.get("transfers") if isinstance(value, dict) and len(value) == 1 else None
    if not isinstance(listed, list) or not 1 <= len(listed) <= LINKED_TRANSFERS_MAX:
        raise Invalid("schema", f"`transfers` is a list of 1 to {LINKED_TRANSFERS_MAX}.", {"pointer": "/transfers"})
    found = []
    for each in listed:
        check_value(each, _ENTITY)
        found.append(Document(_ENTITY, each, dump_json(each)))
    return found
