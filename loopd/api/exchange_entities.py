"""`/api/v1/offer`, `/match`, `/transfer`, `/transaction`: what this node writes as the seller's (§4.6, §8.1)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from loopd.api.answers import LD_JSON, Answer, entity_answer, json_answer
from loopd.api.idempotency import Write
from loopd.api.loopcoin_callers import check_buyer
from loopd.api.paging import CURSOR, cursor_of, following_path, page_schema
from loopd.api.records import DOCUMENT_REFUSALS
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Body, QueryParameter, Route, Scope, Success
from loopd.database import Database, Tx
from loopd.exchange.entities import TYPES
from loopd.exchange.entity_tables import Filters
from loopd.exchange.entity_views import public_json
from loopd.exchange.lifecycle import Lifecycle
from loopd.exchange.received import TOO_LARGE
from loopd.exchange.rules import invalid
from loopd.protocol.documents import check_document, read_json, refuse_personal_data
from loopd.protocol.lifecycle import MirroredEntity
from loopd.protocol.schemas import entity_schema
from loopd.protocol.timestamps import format_timestamp

STATUS_TYPE: Final = "TransactionStatus"
_REASON_MAX_CHARACTERS: Final = 280

_MOMENT: Final = {"type": "string", "format": "date-time"}
_CHANGE: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["version", "status", "reason", "changed_by", "changed_at", "document"],
    "properties": {
        "version": {"type": "integer", "minimum": 1},
        "status": {"type": "string"},
        "reason": {"type": ["string", "null"]},
        "changed_by": {"type": "string", "description": "The node at whose wish it changed."},
        "changed_at": _MOMENT,
        "document": {"type": "object", "description": "The whole of it as of then."},
    },
}
_SETTLEMENT: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["transaction_id", "status", "names_accounts", "final_cost", "breakdown", "settlement"],
    "properties": {
        "transaction_id": {"type": "string"},
        "status": {"type": "string"},
        "names_accounts": {"type": "boolean", "description": "Whether there is a payment to settle at all."},
        "final_cost": {"type": "number"},
        "breakdown": {"type": "object"},
        "settlement": {"type": ["object", "null"], "description": "What the ledger knows of the payment."},
    },
}


@dataclass(frozen=True, slots=True)
class EntityNoun:
    """One of the four as the API speaks of it: how a new one is refused, what its change of status may state beside."""

    entity: MirroredEntity
    noun: str
    plural: str
    about: str
    refusals: Mapping[int, tuple[str, ...]]
    status_refusals: tuple[str, ...]
    stated: Mapping[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        return f"/api/v1/{self.entity.value}"

    @property
    def answered(self) -> str:
        """The entity that answers are."""
        return STATUS_TYPE if self.entity is MirroredEntity.TRANSACTION else TYPES[self.entity]

    def status_form(self) -> RequestForm:
        """The form of a change of status."""
        statuses = list(self.entity.lifecycle.successors)
        properties = {
            "status": {"type": "string", "enum": statuses},
            "reason": {"type": "string", "maxLength": _REASON_MAX_CHARACTERS},
            **self.stated,
        }
        return RequestForm(
            {"type": "object", "required": ["status"], "additionalProperties": False, "properties": properties}
        )


_STOCK_CONFLICTS: Final = ("not_available", "unit_mismatch", "quantity_above_available")
NOUNS: Final = (
    EntityNoun(
        MirroredEntity.OFFER,
        "Supply",
        "offers",
        "An open Offer can be matched until `available_until`; it reserves nothing yet. Its quantity is at most what "
        "is available of the material or product that it names, units compared.",
        {
            400: ("bad_id", "bad_status", "bad_quantity", "bad_time", "expired", *_STOCK_CONFLICTS),
            404: ("unknown_material", "unknown_product"),
            409: ("other_content",),
        },
        ("terminal", "transition", "by_match", "in_transfer", "fulfilled"),
    ),
    EntityNoun(
        MirroredEntity.MATCH,
        "Matches",
        "matches",
        "A Match needs an open Offer. While it is `proposed` or `accepted` the Offer is `reserved` and its quantity "
        "promised to nobody else; an Offer has one such Match at most. `to_node` may name the node on the other side, "
        "which is then told of every change; `valid_until` when the Match ends unless a Transfer was made of it.",
        {
            400: (
                "bad_id",
                "bad_status",
                "bad_time",
                "bad_node",
                "expired",
                "other_subject",
                "offer_not_open",
                "offer_expired",
            ),
            404: ("unknown_offer",),
            409: ("other_content", "already_matched", *_STOCK_CONFLICTS),
        },
        ("terminal", "transition", "in_transfer", "fulfilled"),
    ),
    EntityNoun(
        MirroredEntity.TRANSFER,
        "Transfers",
        "transfers",
        "A Transfer needs an accepted Match, which has one at most that is not cancelled. Completed, it moves the "
        "record to its new city and extends its chain of custody, or makes a record of the part that was transferred; "
        "it withdraws the Offer. Cancelled, it leaves the Match, and what that reserves, as they are.",
        {
            400: ("bad_id", "bad_status", "bad_time", "other_subject", "match_not_accepted"),
            404: ("unknown_match",),
            409: ("other_content", "already_transferred"),
        },
        ("terminal", "transition", "part_exists"),
        {"received_at": {**_MOMENT, "description": "When the goods arrived; now if absent."}},
    ),
    EntityNoun(
        MirroredEntity.TRANSACTION,
        "Transactions",
        "transactions",
        "A MaterialTransaction is of the Match that it names (`match_id`), else of an accepted one of the same subject "
        "and buyer, else of a new Offer and Match for its `quantity` (all that is left, if absent). It follows its "
        "Transfer: confirmed when that is scheduled, in_transit, delivered when it is completed. `seller_account` and "
        "`buyer_account` name who is paid and who pays; without both nothing is settled. Naming who pays takes a token "
        "bound to that account, or the operator's.",
        {
            400: (
                "bad_id",
                "bad_status",
                "bad_time",
                "bad_amount",
                "bad_breakdown",
                "bad_quantity",
                "bad_account",
                "other_seller",
                "other_subject",
                "other_buyer",
                "other_quantity",
                "match_not_accepted",
            ),
            403: ("not_authorised",),
            404: ("unknown_material", "unknown_product", "unknown_match"),
            409: ("other_content", "already_sold", "funds_refused", *_STOCK_CONFLICTS),
        },
        ("terminal", "transition", "no_transfer", "by_settlement", "in_transfer", "part_exists"),
        {
            "details": entity_schema(STATUS_TYPE)["properties"]["details"],
        },
    ),
)


class EntityRoutes:
    """The routes of one of the four."""

    def __init__(self, noun: EntityNoun, lifecycle: Lifecycle, database: Database, write: Write) -> None:
        self._noun = noun
        self._form = noun.status_form()
        self._lifecycle = lifecycle
        self._database = database
        self._write = write

    def routes(self) -> list[Route]:
        return [*self._reading(), *self._writing()]

    def _writing(self) -> list[Route]:
        noun, name, path = self._noun, self._noun.entity.value, self._noun.path
        kept = Success(description="As it stands.", schema=noun.answered, content_type=LD_JSON)
        return [
            Route(
                method="POST",
                path=path,
                handler=self.create,
                noun=noun.noun,
                summary=f"Make a{'n' if name[0] == 'o' else ''} {name}",
                description=f"{noun.about} The same id again is answered 200 with what is stored if the content is the "
                "same, and 409 if it is not.",
                access=Scope.OFFER_WRITE,
                body=Body.REQUIRED,
                request_schema=TYPES[noun.entity],
                successes={201: kept, 200: kept},
                refusals={**noun.refusals, 400: (*DOCUMENT_REFUSALS, *noun.refusals[400], TOO_LARGE)},
            ),
            Route(
                method="POST",
                path=f"{path}/{{id}}/status",
                handler=self.change,
                noun=noun.noun,
                summary=f"Move a{'n' if name[0] == 'o' else ''} {name} to another status",
                description=f"What may follow what is in docs/states.md. {self._change_note()}",
                access=Scope.OFFER_WRITE,
                body=Body.REQUIRED,
                request_schema=self._form.schema,
                successes={200: kept},
                refusals={
                    400: (*DOCUMENT_REFUSALS, "bad_time", *self._status_faults()),
                    404: (f"unknown_{name}",),
                    409: noun.status_refusals,
                },
            ),
        ]

    def _reading(self) -> list[Route]:
        noun, name, path = self._noun, self._noun.entity.value, self._noun.path
        kept = Success(description="As it stands.", schema=noun.answered, content_type=LD_JSON)
        history = {"type": "object", "properties": {"results": {"type": "array", "items": _CHANGE}}}
        found = [
            Route(
                method="GET",
                path=path,
                handler=self.page,
                noun=noun.noun,
                summary=f"List {noun.plural}, newest first",
                query=(LIMIT, self._status_parameter(), *_SUBJECTS, CURSOR),
                successes={200: Success(description="One page.", schema=page_schema(noun.answered))},
            ),
            Route(
                method="GET",
                path=f"{path}/{{id}}",
                handler=self.read,
                noun=noun.noun,
                summary=f"Read a{'n' if name[0] == 'o' else ''} {name}",
                successes={200: kept},
                refusals={404: (f"unknown_{name}",)},
            ),
            Route(
                method="GET",
                path=f"{path}/{{id}}/history",
                handler=self.history,
                noun=noun.noun,
                summary=f"Read every version of a{'n' if name[0] == 'o' else ''} {name}, oldest first",
                successes={200: Success(description="All of them.", schema=history)},
                refusals={404: (f"unknown_{name}",)},
            ),
        ]
        if noun.entity is MirroredEntity.TRANSACTION:
            found.append(self._settlement_route())
        return found

    def _settlement_route(self) -> Route:
        return Route(
            method="GET",
            path=f"{self._noun.path}/{{id}}/settlement",
            handler=self.settlement,
            noun=self._noun.noun,
            summary="Read what is known of a transaction's payment",
            description="A transaction's `settlement_url` leads here.",
            successes={200: Success(description="What is known.", schema=_SETTLEMENT)},
            refusals={404: ("unknown_transaction",)},
        )

    async def create(self, request: Request) -> Answer:
        noun, document = self._noun, check_document(request.body, TYPES[self._noun.entity])
        if noun.entity is MirroredEntity.TRANSACTION:
            check_buyer(request, document.value.get("buyer_account"))

        def unit(tx: Tx) -> Answer:
            made = self._lifecycle.create(tx, noun.entity, document)
            location = {"Location": f"{noun.path}/{made.entry.id}"}
            return entity_answer(public_json(self._lifecycle.view(made.entry)), 201 if made.created else 200, location)

        return await self._write(request, unit)

    async def read(self, request: Request) -> Answer:
        entry = self._lifecycle.require(self._database.points, self._noun.entity, request.parameters["id"])
        return entity_answer(public_json(self._lifecycle.view(entry)))

    async def page(self, request: Request) -> Answer:
        subject_id = request.text("material") or request.text("product")
        filters = Filters(request.text("status"), subject_id)
        entries, cursor = await self._lifecycle.page(
            self._database, self._noun.entity, filters, cursor_of(request), request.limit
        )
        following = following_path(request, self._noun.path, cursor, ("status", "material", "product"))
        results = [public_json(self._lifecycle.view(entry)) for entry in entries]
        return json_answer({"results": results, "next": following})

    async def history(self, request: Request) -> Answer:
        changes = self._lifecycle.history(self._database.points, self._noun.entity, request.parameters["id"])
        results = [
            {
                "version": change.version,
                "status": change.status,
                "reason": change.reason,
                "changed_by": change.changed_by,
                "changed_at": format_timestamp(change.changed_at_ms),
                "document": public_json(read_json(change.document)),
            }
            for change in changes
        ]
        return json_answer({"results": results})

    async def settlement(self, request: Request) -> Answer:
        return json_answer(self._lifecycle.settlement(self._database.points, request.parameters["id"]))

    async def change(self, request: Request) -> Answer:
        noun, entity_id = self._noun, request.parameters["id"]
        stated = self._stated(entity_id, request.body)
        status = stated["status"]
        details = {name: value for name, value in stated.items() if name != "status"}

        def unit(tx: Tx) -> Answer:
            return entity_answer(
                public_json(self._lifecycle.change_status(tx, noun.entity, entity_id, status, None, details))
            )

        return await self._write(request, unit)

    def _stated(self, entity_id: str, body: bytes) -> dict[str, Any]:
        """A change of status; of a transaction it may be a TransactionStatus."""
        if self._noun.entity is MirroredEntity.TRANSACTION and _is_status(read_json(body)):
            value = check_document(body, STATUS_TYPE).value
            if value["transaction_id"] != entity_id:
                raise invalid("other_transaction", "/transaction_id", "it is another transaction's status")
            return value
        value = self._form.read(body)
        refuse_personal_data(value)
        return value

    def _status_faults(self) -> tuple[str, ...]:
        return ("other_transaction",) if self._noun.entity is MirroredEntity.TRANSACTION else ()

    def _change_note(self) -> str:
        if self._noun.entity is MirroredEntity.TRANSACTION:
            return (
                "A TransactionStatus is taken as well. A transaction that is moved takes its Transfer along: "
                "`in_transit` makes one where there is none. Cancelling it before the goods have left ends its Match."
            )
        if self._noun.entity is MirroredEntity.OFFER:
            return "Withdrawing an Offer ends its Match."
        return (
            "`reason` is kept with the version."
            if self._noun.entity is MirroredEntity.TRANSFER
            else ("A Match that is rejected or expires opens its Offer again and cancels its transaction.")
        )

    def _status_parameter(self) -> QueryParameter:
        return QueryParameter(
            name="status",
            description="Only those that have this status.",
            choices=tuple(self._noun.entity.lifecycle.successors),
            reason="unknown_status",
        )


def _is_status(value: Any) -> bool:
    """Whether it says of itself that it is a TransactionStatus."""
    return isinstance(value, dict) and value.get("@type") == STATUS_TYPE


_SUBJECTS: Final = tuple(
    QueryParameter(name=kind, description=f"Only those of this {kind}.") for kind in ("material", "product")
)


class ExchangeEntityRoutes:
    """The routes of all four."""

    def __init__(self, lifecycle: Lifecycle, database: Database, write: Write) -> None:
        self._nouns = [EntityRoutes(noun, lifecycle, database, write) for noun in NOUNS]

    def routes(self) -> list[Route]:
        return [route for noun in self._nouns for route in noun.routes()]
