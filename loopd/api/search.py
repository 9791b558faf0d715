"""`/api/v1/material/search` and `/api/v1/product/search` (§8.1)."""

from collections.abc import Mapping
from typing import Any, Final

from loopd.api.answers import Answer, json_answer
from loopd.api.requests import Request
from loopd.api.routes import Body, QueryParameter, RateClass, Route, Success
from loopd.catalogue.cursor import CURSOR_CHARACTERS, read_cursor, write_cursor
from loopd.catalogue.query import CATEGORY_KEY, DEFAULT_UNIT, KEYS, read_query
from loopd.catalogue.search import Search
from loopd.catalogue.sections import SearchScope
from loopd.protocol.geo import Location
from loopd.protocol.json_text import dump_json, read_json
from loopd.protocol.limits import (
    LIST_LIMIT_DEFAULT,
    LIST_LIMIT_MAX,
    LIST_LIMIT_MIN,
    SEARCH_RADIUS_MAX_KM,
    SEARCH_TEXT_MAX_CHARACTERS,
)
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.vocabulary import PRODUCT_CONDITIONS, UNITS

# A search is a page of filters, never a document.
_SEARCH_MAX_BYTES: Final = 16 * 1024

_CURSOR: Final = QueryParameter(
    name="cursor",
    description="Where the page begins; taken from `next` of the page before, for the same body alone.",
    max_characters=CURSOR_CHARACTERS,
    reason="bad_cursor",
)
_MOMENT: Final = {"type": "string", "format": "date-time"}
_PLACE: Final = {
    "type": "object",
    "required": ["lat", "lon"],
    "additionalProperties": False,
    "properties": {
        "lat": {"type": "number", "minimum": -90, "maximum": 90},
        "lon": {"type": "number", "minimum": -180, "maximum": 180},
    },
}
_REFUSALS: Final = (
    "unknown_category",
    "bad_condition",
    "bad_radius",
    "bad_location",
    "bad_quantity",
    "bad_time",
    "bad_amount",
    "bad_destination",
    "bad_scope",
    "bad_text",
    "bad_limit",
    "unknown_destination",
    "signals_unknown",
    "location_unknown",
    "too_many_matches",
)
_DESCRIPTION: Final = """\
What can be had now, filtered by every key that is there; other keys are refused. Nearest first where `near` or \
`radius_km` says from where, else newest first. `next` is a URL to post the same body to, null on the last page: \
following it gives each result once, whatever is registered meanwhile; `total` is as of the first page. Local results \
are the documents as `GET` shows them. Those of the `federation` are what other cities announced and still offer: the \
flow metadata, with `source_node`, and `verified` where a signature held. An announcement has no condition, no price \
and no text, so those filters find nothing there. With `max_loop_cost` what names no `metadata.asking_price` is left \
out and counted in `omitted`; a price is taken pro rata for what is left."""


class SearchRoutes:
    """The search for materials and the one for products."""

    def __init__(self, search: Search, home: Location) -> None:
        self._search = search
        self._home = home

    def routes(self) -> list[Route]:
        return [self._route(SubjectKind.MATERIAL, "MaterialDNA"), self._route(SubjectKind.PRODUCT, "ProductDNA")]

    def _route(self, kind: SubjectKind, entity: str) -> Route:
        path, plural = f"/api/v1/{kind.value}/search", f"{kind.value}s"

        async def search(request: Request) -> Answer:
            return await self._answer(kind, path, request)

        return Route(
            method="POST",
            path=path,
            handler=search,
            noun=plural.capitalize(),
            summary=f"Search for {plural}",
            description=_DESCRIPTION,
            rate=RateClass.SEARCH,
            body=Body.REQUIRED,
            body_max_bytes=_SEARCH_MAX_BYTES,
            request_schema=_request_schema(kind),
            query=(_CURSOR,),
            successes={200: Success(description="One page.", schema=_page_schema(entity))},
            refusals={400: _REFUSALS},
        )

    async def _answer(self, kind: SubjectKind, path: str, request: Request) -> Answer:
        value = read_json(request.body)
        query = read_query(kind, value, self._home)
        search = _same_form(path, value)
        text = request.text("cursor")
        page = await self._search.page(query, None if text is None else read_cursor(text, search))
        following = page.following
        shown: dict[str, Any] = {
            "results": page.results,
            "total": page.total,
            "next": None if following is None else f"{path}?cursor={write_cursor(following, search)}",
        }
        if page.omitted is not None:
            shown["omitted"] = page.omitted
        return json_answer(shown)


def _same_form(path: str, value: Mapping[str, Any]) -> bytes:
    """A request in a form that is the same however its keys are ordered. The size of a page may change on the way."""
    return path.encode() + dump_json({key: value[key] for key in sorted(value) if key != "limit"})


def _request_schema(kind: SubjectKind) -> Mapping[str, Any]:
    category = f"A {kind.value} category, or the beginning of one followed by `*`."
    known: dict[str, Mapping[str, Any]] = {
        CATEGORY_KEY[kind]: {"type": "string", "description": category},
        "condition": {"type": "string", "enum": list(PRODUCT_CONDITIONS)},
        "radius_km": {
            "type": "number",
            "minimum": 0,
            "maximum": SEARCH_RADIUS_MAX_KM,
            "description": "Around `near`; at the radius is inside.",
        },
        "near": {**_PLACE, "description": "Where from; this node if absent."},
        "min_quantity": {
            "type": "number",
            "minimum": 0,
            "description": "At least so much is left, compared in the dimension of `unit` alone.",
        },
        "unit": {
            "type": "string",
            "enum": list(UNITS),
            "description": f"{DEFAULT_UNIT[kind]} if absent; without `min_quantity`: any amount in its dimension.",
        },
        "available_from": {**_MOMENT, "description": "It can still be had at this moment, or later."},
        "available_until": {**_MOMENT, "description": "It can be had at this moment, or before."},
        "max_loop_cost": {"type": "number", "minimum": 0, "description": "LC, at the price asked."},
        "destination": {"type": "string", "description": "The node the LoopCost leads to; this node if absent."},
        "scope": {"type": "string", "enum": list(SearchScope), "default": SearchScope.LOCAL.value},
        "text": {
            "type": "string",
            "maxLength": SEARCH_TEXT_MAX_CHARACTERS,
            "description": "Words, or their beginnings, all of them in the name, the manufacturer or the notes.",
        },
        "limit": {
            "type": "integer",
            "minimum": LIST_LIMIT_MIN,
            "maximum": LIST_LIMIT_MAX,
            "default": LIST_LIMIT_DEFAULT,
        },
    }
    return {"type": "object", "additionalProperties": False, "properties": {key: known[key] for key in KEYS[kind]}}


def _page_schema(entity: str) -> Mapping[str, Any]:
    announced = {
        "type": "object",
        "required": ["id", "kind", "source_node", "verified", "valid_until"],
        "properties": {
            "id": {"type": "string"},
            "kind": {"type": "string", "enum": list(SubjectKind)},
            "source_node": {"type": "string"},
            "verified": {"type": "boolean"},
            "valid_until": _MOMENT,
        },
    }
    return {
        "type": "object",
        "required": ["results", "total", "next"],
        "properties": {
            "results": {
                "type": "array",
                "items": {"anyOf": [{"$ref": f"#/components/schemas/{entity}"}, announced]},
            },
            "total": {"type": "integer", "minimum": 0},
            "next": {"type": ["string", "null"]},
            "omitted": {"type": "integer", "minimum": 0, "description": "Left out for want of a price."},
        },
    }
