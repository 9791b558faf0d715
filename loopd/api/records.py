"""What the materials' and the products' routes have in common: register, read, list, announce."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from loopd.api.answers import LD_JSON, Answer, entity_answer, json_answer
from loopd.api.idempotency import Write
from loopd.api.paging import CURSOR, cursor_of, following_path, page_schema
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Body, QueryParameter, Route, Scope, Success
from loopd.database import Database, Tx
from loopd.protocol.documents import check_document
from loopd.protocol.subjects import SubjectKind
from loopd.registry.service import Registry

# What check_document refuses beyond what every route with a body does.
DOCUMENT_REFUSALS: Final = ("unknown_context", "bad_json_ld", "personal_data")
_REGISTRATION_REFUSALS: Final = ("bad_id", "bad_quantity", "bad_time", "expires_before_available")

_ANNOUNCED: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["status", "message_id"],
    "properties": {
        "status": {"const": "announced"},
        "message_id": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
    },
}


@dataclass(frozen=True, slots=True)
class RecordNoun:
    """One of the two registries as the API speaks of it."""

    kind: SubjectKind
    entity: str
    plural: str
    categories: tuple[str, ...]

    @property
    def path(self) -> str:
        return f"/api/v1/{self.kind.value}"


class RecordRoutes:
    """The routes of one registry."""

    def __init__(self, noun: RecordNoun, registry: Registry, database: Database, write: Write) -> None:
        self._noun = noun
        self._registry = registry
        self._database = database
        self._write = write

    def routes(self) -> list[Route]:
        noun, kind, path = self._noun, self._noun.kind.value, self._noun.path
        entity = Success(description=f"The {kind} as it stands.", schema=noun.entity, content_type=LD_JSON)
        created = Success(description=f"The {kind} as registered.", schema=noun.entity, content_type=LD_JSON)
        repeated = Success(
            description=f"Registered before: the stored {kind}.", schema=noun.entity, content_type=LD_JSON
        )
        return [
            Route(
                method="POST",
                path=path,
                handler=self.register,
                noun=noun.plural.capitalize(),
                summary=f"Register a {kind}",
                description=f"Keeps the {noun.entity} with all its fields, unknown ones too. The same id again is "
                "answered 200 with the stored record if the content is the same, and 409 if it is not. What lies in "
                "this node's city and has not expired is announced to other cities, if the node announces by itself.",
                access=Scope.MATERIAL_WRITE,
                body=Body.REQUIRED,
                request_schema=noun.entity,
                successes={201: created, 200: repeated},
                refusals={400: (*DOCUMENT_REFUSALS, *_REGISTRATION_REFUSALS), 409: ("other_content",)},
            ),
            Route(
                method="GET",
                path=path,
                handler=self.page,
                noun=noun.plural.capitalize(),
                summary=f"List {noun.plural}, newest first",
                description="`next` is the path of the page that follows, null on the last one. A page of large "
                "documents may hold fewer than `limit`.",
                query=(LIMIT, self._category(), CURSOR),
                successes={200: Success(description="One page.", schema=page_schema(noun.entity))},
            ),
            Route(
                method="GET",
                path=f"{path}/{{id}}",
                handler=self.read,
                noun=noun.plural.capitalize(),
                summary=f"Read a {kind}",
                description="What was registered, with `status` and `availability` as the node keeps them.",
                successes={200: entity},
                refusals={404: (f"unknown_{kind}",)},
            ),
            Route(
                method="POST",
                path=f"{path}/{{id}}/announce",
                handler=self.announce,
                noun=noun.plural.capitalize(),
                summary=f"Announce a {kind} to other cities now",
                access=Scope.MATERIAL_WRITE,
                successes={202: Success(description="The announcement is on its way.", schema=_ANNOUNCED)},
                refusals={404: (f"unknown_{kind}",), 409: ("expired", "not_available", "other_city")},
            ),
        ]

    async def register(self, request: Request) -> Answer:
        document = check_document(request.body, self._noun.entity)

        def unit(tx: Tx) -> Answer:
            registration = self._registry.register(tx, document)
            record = registration.record
            location = {"Location": f"{self._noun.path}/{record.subject.subject_id}"}
            if registration.created:
                return entity_answer(self._registry.view_of(record, document.value), 201, location)
            return entity_answer(self._registry.view(record), 200, location)

        return await self._write(request, unit)

    async def read(self, request: Request) -> Answer:
        record = self._registry.require(self._database.points, self._noun.kind, request.parameters["id"])
        return entity_answer(self._registry.view(record))

    async def page(self, request: Request) -> Answer:
        limit, category = request.limit, request.text("category")
        page = await self._registry.page(self._database, self._noun.kind, limit, category, cursor_of(request))
        following = following_path(request, self._noun.path, page.next_cursor, ("category",))
        results = [self._registry.view(record) for record in page.records]
        return json_answer({"results": results, "next": following})

    async def announce(self, request: Request) -> Answer:
        def unit(tx: Tx) -> Answer:
            message_id = self._registry.announce(tx, self._noun.kind, request.parameters["id"])
            return json_answer({"status": "announced", "message_id": message_id.hex()}, 202)

        return await self._write(request, unit)

    def _category(self) -> QueryParameter:
        return QueryParameter(
            name="category",
            description=f"Only {self._noun.plural} of this category.",
            choices=self._noun.categories,
            reason="unknown_category",
        )
