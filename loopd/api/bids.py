"""`/api/v1/material/{id}/offers` and what belongs to it: bids, their ranking, the owner's selection (§12.1)."""

from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any, Final

from loopd.api.answers import Answer, json_answer
from loopd.api.idempotency import Write
from loopd.api.loopcoin_callers import check_buyer
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Body, Route, Scope, Success
from loopd.database import Database, Tx
from loopd.exchange.service import BidWish, Exchange
from loopd.protocol.errors import Conflict, Invalid, NotFound
from loopd.protocol.ids import is_material_id, is_product_id
from loopd.protocol.json_text import read_json
from loopd.protocol.limits import BID_MAX_VALIDITY_S
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import UNITS

# Asks a node for its signals now; whether that helped shows in what is known afterwards.
RefreshSignals = Callable[[str], Awaitable[None]]

_AMOUNT: Final = {"type": "number", "minimum": 0, "description": "LC, at most two decimals."}
_MOMENT: Final = {"type": "string", "format": "date-time"}
_TERMS: Final[Mapping[str, Any]] = {
    "base_price": {**_AMOUNT, "description": "LC of the seller's node for the stated quantity; two decimals."},
    "quantity": {"type": "number", "exclusiveMinimum": 0, "description": "How much is wanted; all of it if absent."},
    "unit": {"type": "string", "enum": list(UNITS), "description": "The unit of `quantity`; the subject's if absent."},
    "buyer_account": {"type": "string", "description": "Who pays, such as business:farm@munich.loop."},
    "valid_until": _MOMENT,
    "valid_for_s": {"type": "integer", "minimum": 1, "maximum": BID_MAX_VALIDITY_S},
}
_LOCAL_BID: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["bidder", "base_price"],
    "additionalProperties": False,
    "properties": {
        "bidder": {"type": "string", "description": "A business of this city: 2 to 80 of a-z, 0-9 and -."},
        **_TERMS,
    },
}
_BID: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["base_price"],
    "additionalProperties": False,
    "properties": {
        "material": {"type": "string", "description": "The id of a material or a product."},
        "product": {"type": "string", "description": "The same as `material`; one of the two is required."},
        "bidder": {"type": "string", "description": "Who bids on a subject of this node; the node itself if absent."},
        "distance_km": {"type": "number", "minimum": 0, "description": "The way, not below the great circle."},
        **_TERMS,
    },
}
_SELECT: Final[Mapping[str, Any]] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "offer": {"type": ["integer", "string"], "description": "The `id` of an offer; by policy if absent."}
    },
}
_BREAKDOWN: Final = {
    "type": ["object", "null"],
    "properties": dict.fromkeys(("base", "export", "import", "distance"), _AMOUNT),
}
_OFFER: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["id", "from", "base_price", "loop_cost", "breakdown", "status", "valid_until"],
    "properties": {
        "id": {"type": "integer"},
        "from": {"type": "string"},
        "base_price": _AMOUNT,
        "loop_cost": {"type": ["number", "null"]},
        "breakdown": _BREAKDOWN,
        "rank": {"type": ["integer", "null"]},
        "reason": {"type": ["string", "null"], "description": "Why it has no rank, or was refused or decided so."},
        "status": {"type": "string"},
        "verified": {"type": "boolean"},
        "claimed_loop_cost": {**_AMOUNT, "description": "The bidder's own figure; it does not rank."},
        "stale_signals": {
            "type": "boolean",
            "description": "A city's signals have expired, and nothing newer is known.",
        },
        "valid_until": _MOMENT,
    },
}
_LISTING: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["offers", "selected", "selected_offer", "reason"],
    "properties": {
        "offers": {"type": "array", "items": _OFFER},
        "selected": {"type": ["string", "null"], "description": "Who was selected."},
        "selected_offer": {"type": ["integer", "null"]},
        "reason": {"type": ["string", "null"], "enum": ["lowest_loop_cost", "by_hand", None]},
    },
}
_TERM_REFUSALS: Final = (
    "bad_amount",
    "bad_quantity",
    "unit_mismatch",
    "quantity_above_available",
    "bad_distance",
    "bad_time",
    "expired",
    "bad_bidder",
    "bad_account",
)
_SELECT_REFUSALS: Final = (
    "already_selected",
    "not_available",
    "no_offers",
    "none_ranked",
    "offer_not_live",
    "quantity_above_available",
    "funds_refused",
)
# Fits the database's integers.
_OFFER_NUMBER_MAX_DIGITS: Final = 18
_BID_CONFLICTS: Final = ("not_available", "origin_unknown", "signals_unknown", "location_unknown")


class BidRoutes:
    """Bids of this city, the ranked list, the selection; and the operator's bids at other cities."""

    def __init__(self, exchange: Exchange, database: Database, write: Write, refresh_signals: RefreshSignals) -> None:
        self._exchange = exchange
        self._database = database
        self._write = write
        self._refresh_signals = refresh_signals

    def routes(self) -> list[Route]:
        return [route for kind in SubjectKind for route in self._routes_of(kind)] + self._admin_routes()

    def _routes_of(self, kind: SubjectKind) -> list[Route]:
        path, unknown = f"/api/v1/{kind.value}/{{id}}", f"unknown_{kind.value}"

        async def listing(request: Request) -> Answer:
            return self._list(kind, request)

        async def bid(request: Request) -> Answer:
            return await self._bid_here(kind, request)

        async def select(request: Request) -> Answer:
            return await self._select(kind, request)

        async def withdraw(request: Request) -> Answer:
            return await self._withdraw_here(kind, request)

        return [
            Route(
                method="GET",
                path=f"{path}/offers",
                handler=listing,
                noun="Offers",
                summary=f"List the offers for a {kind.value}, ranked",
                description="Lowest LoopCost first by this node's own reckoning, ties by the earliest. Not ranked are "
                "offers below the asking price (`metadata.asking_price`, pro rata for a part), of nodes whose signals "
                "or place are not known, and expired ones; `reason` says which.",
                successes={200: Success(description="All of them.", schema=_LISTING)},
                refusals={404: (unknown,)},
            ),
            Route(
                method="POST",
                path=f"{path}/offers",
                handler=bid,
                noun="Offers",
                summary=f"Offer for a {kind.value} as a business of this city",
                description="Inside one city the LoopCost is the base price. A newer offer of the same bidder replaces "
                "its older one. Without an end it stands for 24 hours. Naming a `buyer_account` takes a token bound to "
                "it, or the operator's.",
                access=Scope.OFFER_WRITE,
                body=Body.REQUIRED,
                request_schema=_LOCAL_BID,
                example='{"bidder": "munich-farm", "base_price": 50}',
                successes={201: Success(description="The offer as it ranks now.", schema=_OFFER)},
                refusals={
                    400: _TERM_REFUSALS,
                    403: ("not_authorised",),
                    404: (unknown,),
                    409: ("not_available",),
                    503: ("too_many_bids",),
                },
            ),
            Route(
                method="POST",
                path=f"{path}/select",
                handler=select,
                noun="Offers",
                summary=f"Select an offer for a {kind.value}",
                description="Without `offer` the one that ranks first and whose money can be held. Its quantity is "
                "reserved: an Offer, an accepted Match and a pending transaction are made. Offers that the rest still "
                "allows stay live, the others are declined, and the nodes that made them are told; where another node "
                "is asked for the money, once it holds it, and if it does not, the next is selected. The same "
                "selection again is answered 200; another one of what is reserved as a whole 409 with what was "
                "selected.",
                access=Scope.OFFER_WRITE,
                body=Body.OPTIONAL,
                request_schema=_SELECT,
                successes={200: Success(description="The ranking with what was selected.", schema=_LISTING)},
                refusals={400: ("schema",), 404: (unknown, "unknown_offer"), 409: _SELECT_REFUSALS},
            ),
            Route(
                method="POST",
                path=f"{path}/offers/{{offer}}/withdraw",
                handler=withdraw,
                noun="Offers",
                summary=f"Take back an offer for a {kind.value} that was made here",
                access=Scope.OFFER_WRITE,
                successes={200: Success(description="The offers that are left.", schema=_LISTING)},
                refusals={404: (unknown, "unknown_offer"), 409: ("offer_not_live",)},
            ),
        ]

    def _admin_routes(self) -> list[Route]:
        bids = {"type": "object", "properties": {"results": {"type": "array", "items": _OFFER}}}
        return [
            Route(
                method="POST",
                path="/admin/v1/offers",
                handler=self._bid,
                noun="Offers",
                summary="Bid on a material or a product, here or in another city",
                description="What another city announced gets a MaterialOffer, sent durably to its node; the offer "
                "ends when what was heard does, if not before. GET shows what became of it.",
                access=Scope.OFFER_WRITE,
                body=Body.REQUIRED,
                request_schema=_BID,
                example='{"material": "MAT-DE-MUC-2026-FOOD-B847F3", "base_price": 60, "distance_km": 400}',
                successes={201: Success(description="The offer with its LoopCost.", schema=_OFFER)},
                refusals={
                    400: (*_TERM_REFUSALS, "distance_below_great_circle"),
                    403: ("not_authorised",),
                    404: ("not_heard",),
                    409: _BID_CONFLICTS,
                    503: ("too_many_bids",),
                },
                admin=True,
            ),
            Route(
                method="POST",
                path="/admin/v1/offers/{offer}/withdraw",
                handler=self._withdraw_there,
                noun="Offers",
                summary="Take back an offer of this node in another city",
                description="Until its owner has decided. The owner's node is told; what it decided before it hears of "
                "that stands.",
                access=Scope.OFFER_WRITE,
                successes={200: Success(description="The offer as it stands.", schema=_OFFER)},
                refusals={404: ("unknown_offer",), 409: ("offer_not_live",)},
                admin=True,
            ),
            Route(
                method="GET",
                path="/admin/v1/offers",
                handler=self._made,
                noun="Offers",
                summary="List this node's offers in other cities, newest first",
                description="`status`: queued, accepted or refused by the owner's node, selected, declined, replaced, "
                "withdrawn, expired.",
                access=Scope.OFFER_WRITE,
                query=(LIMIT,),
                successes={200: Success(description="The newest of them.", schema=bids)},
                admin=True,
            ),
        ]

    def _list(self, kind: SubjectKind, request: Request) -> Answer:
        return json_answer(self._exchange.listing(self._database.points, kind, request.parameters["id"]))

    async def _bid_here(self, kind: SubjectKind, request: Request) -> Answer:
        value = _object(request.body, _LOCAL_BID)
        check_buyer(request, value.get("buyer_account"))
        wish = BidWish(request.parameters["id"], kind, value["bidder"], value)
        return await self._write(request, lambda tx: json_answer(self._exchange.bid_here(tx, wish), 201))

    async def _bid(self, request: Request) -> Answer:
        value = _object(request.body, _BID)
        check_buyer(request, value.get("buyer_account"))
        subject_id, kind = _subject(value)
        wish = BidWish(subject_id, kind, value.get("bidder"), value)

        def unit(tx: Tx) -> Answer:
            return json_answer(self._exchange.make_bid(tx, wish), 201)

        try:
            return await self._write(request, unit)
        except Conflict as refusal:
            if refusal.reason != "signals_unknown":
                raise
            await self._refresh_signals(refusal.details["node"])
        return await self._write(request, unit)

    async def _withdraw_here(self, kind: SubjectKind, request: Request) -> Answer:
        subject_id, number = request.parameters["id"], _named_offer(request)

        def unit(tx: Tx) -> Answer:
            return json_answer(self._exchange.withdraw_here(tx, kind, subject_id, number))

        return await self._write(request, unit)

    async def _withdraw_there(self, request: Request) -> Answer:
        number = _named_offer(request)
        return await self._write(request, lambda tx: json_answer(self._exchange.withdraw_there(tx, number)))

    async def _made(self, request: Request) -> Answer:
        return json_answer({"results": await self._exchange.made_bids(self._database, request.limit)})

    async def _select(self, kind: SubjectKind, request: Request) -> Answer:
        value = _object(request.body, _SELECT) if request.body else {}
        number = _offer_number(value.get("offer"))

        def unit(tx: Tx) -> Answer:
            return json_answer(self._exchange.select(tx, kind, request.parameters["id"], number))

        return await self._write(request, unit)


def _object(body: bytes, schema: Mapping[str, Any]) -> dict[str, Any]:
    """A request that is no LOOP document: an object of the schema's keys, each of its type."""
    value = read_json(body)
    if not isinstance(value, dict):
        raise _violation("", "type", "The value must be an object.")
    properties: Mapping[str, Mapping[str, Any]] = schema["properties"]
    unknown = [key for key in value if key not in properties]
    if unknown:
        raise _violation("", "additionalProperties", f"There are no other keys than: {', '.join(properties)}.")
    for key in schema.get("required", ()):
        if key not in value:
            raise _violation(f"/{key}", "required", "This field is required.")
    for key, stated in value.items():
        if not _has_type(stated, properties[key]["type"]):
            raise _violation(f"/{key}", "type", f"The value must be of type {properties[key]['type']}.")
        if "enum" in properties[key] and stated not in properties[key]["enum"]:
            raise _violation(f"/{key}", "enum", f"The value must be one of: {', '.join(properties[key]['enum'])}.")
    return value


def _has_type(value: object, types: str | list[str]) -> bool:
    if isinstance(value, bool):
        return False
    if isinstance(value, str):
        return "string" in types
    if isinstance(value, int):
        return "integer" in types or "number" in types
    return isinstance(value, Decimal) and "number" in types


def _subject(value: Mapping[str, Any]) -> tuple[str, SubjectKind]:
    named = [key for key in ("material", "product") if key in value]
    if len(named) != 1:
        raise _violation("/material", "required", "Name what the offer is for, once.")
    subject_id = value[named[0]]
    if is_material_id(subject_id):
        return subject_id, SubjectKind.MATERIAL
    if is_product_id(subject_id):
        return subject_id, SubjectKind.PRODUCT
    raise _violation(f"/{named[0]}", "pattern", "The id is neither a material's nor a product's.")


def _named_offer(request: Request) -> int:
    text = request.parameters["offer"]
    if not (text.isascii() and text.isdigit() and len(text) <= _OFFER_NUMBER_MAX_DIGITS):
        raise NotFound("unknown_offer", "An offer is named by its `id`, a whole number.")
    return int(text)


def _offer_number(stated: int | str | None) -> int | None:
    if stated is None:
        return None
    text = str(stated)
    if not (text.isascii() and text.isdigit() and len(text) <= _OFFER_NUMBER_MAX_DIGITS):
        raise _violation("/offer", "type", "An offer is named by its `id`, a whole number.")
    return int(text)


def _violation(pointer: str, rule: str, message: str) -> Invalid:
    errors = [{"pointer": pointer, "rule": rule, "message": message}]
    return Invalid("schema", f"The request is not as described: {pointer} {message}", {"errors": errors})
