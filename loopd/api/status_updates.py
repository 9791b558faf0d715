"""`/api/v1/material-status` and `/product-status`: whether something can still be had (§8.1)."""

from collections.abc import Mapping
from typing import Any, Final

from loopd.api.answers import Answer, entity_answer, json_answer
from loopd.api.idempotency import Write
from loopd.api.paging import CURSOR, cursor_of, following_path, page_schema
from loopd.api.records import DOCUMENT_REFUSALS
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, Body, QueryParameter, Route, Scope, Success
from loopd.database import Database, Tx
from loopd.protocol.documents import check_document
from loopd.protocol.subjects import SubjectKind
from loopd.protocol.timestamps import format_timestamp
from loopd.registry.rules import STATUS_UPDATE_TYPES
from loopd.registry.service import Registry, Release

_RECEIPT: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["id", "created_at"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "created_at": {"type": "string", "format": "date-time"},
    },
}


class StatusUpdateRoutes:
    """Change the availability of a material or a product, and read what changed it."""

    def __init__(
        self, kind: SubjectKind, registry: Registry, database: Database, write: Write, release: Release
    ) -> None:
        self._kind = kind
        self._entity = STATUS_UPDATE_TYPES[kind]
        self._path = f"/api/v1/{kind.value}-status"
        self._registry = registry
        self._database = database
        self._write = write
        self._release = release

    def routes(self) -> list[Route]:
        kind, path, noun = self._kind.value, self._path, f"{self._kind.value.capitalize()}s"
        update = Success(description="As it was received.", schema=self._entity)
        return [
            Route(
                method="POST",
                path=path,
                handler=self.update,
                noun=noun,
                summary=f"Reserve, withdraw or release a {kind}",
                description=f"A registered {kind} is `available`. It may become `reserved` or `withdrawn`, and "
                "`available` again from `reserved`; nothing follows `withdrawn`. Releasing and withdrawing end the "
                "matches that reserve some of it, and withdrawing its offers too; not while a transfer is under way "
                f"(`in_transfer`). Other cities that heard of the {kind} hear of the change. The same update again is "
                "answered 200 with the first answer.",
                access=Scope.MATERIAL_WRITE,
                body=Body.REQUIRED,
                request_schema=self._entity,
                successes={
                    201: Success(description="Carried out.", schema=_RECEIPT),
                    200: Success(description="Carried out before.", schema=_RECEIPT),
                },
                refusals={
                    400: DOCUMENT_REFUSALS,
                    404: (f"unknown_{kind}",),
                    409: ("other_content", "transition", "terminal", "in_transfer"),
                },
            ),
            Route(
                method="GET",
                path=path,
                handler=self.page,
                noun=noun,
                summary=f"List what changed the availability of {kind}s, newest first",
                query=(LIMIT, self._subject(), CURSOR),
                successes={200: Success(description="One page.", schema=page_schema(self._entity))},
            ),
            Route(
                method="GET",
                path=f"{path}/{{id}}",
                handler=self.read,
                noun=noun,
                summary=f"Read what changed the availability of a {kind}",
                successes={200: update},
                refusals={404: ("unknown_update",)},
            ),
        ]

    async def update(self, request: Request) -> Answer:
        document = check_document(request.body, self._entity)

        def unit(tx: Tx) -> Answer:
            change = self._registry.update_status(tx, document, self._release)
            receipt = {"id": change.update_id, "created_at": format_timestamp(change.created_at_ms)}
            return json_answer(receipt, 201 if change.created else 200)

        return await self._write(request, unit)

    async def read(self, request: Request) -> Answer:
        return entity_answer(self._registry.status_update(self._database.points, self._kind, request.parameters["id"]))

    async def page(self, request: Request) -> Answer:
        subject = request.text(self._kind.value)
        updates, cursor = await self._registry.status_updates(
            self._database, self._kind, subject, cursor_of(request), request.limit
        )
        return json_answer(
            {"results": updates, "next": following_path(request, self._path, cursor, (self._kind.value,))}
        )

    def _subject(self) -> QueryParameter:
        return QueryParameter(name=self._kind.value, description=f"Only those of this {self._kind.value}.")
