"""`/api/v1/material-status`: whether a material can still be had (§8.1)."""

from collections.abc import Mapping
from typing import Any, Final

from loopd.api.answers import Answer, json_answer
from loopd.api.idempotency import Write
from loopd.api.records import DOCUMENT_REFUSALS
from loopd.api.requests import Request
from loopd.api.routes import Body, Route, Scope, Success
from loopd.database import Tx
from loopd.protocol.documents import check_document
from loopd.protocol.timestamps import format_timestamp
from loopd.registry.rules import STATUS_UPDATE_TYPE
from loopd.registry.service import Registry

_RECEIPT: Final[Mapping[str, Any]] = {
    "type": "object",
    "required": ["id", "created_at"],
    "properties": {
        "id": {"type": "string", "format": "uuid"},
        "created_at": {"type": "string", "format": "date-time"},
    },
}


class MaterialStatusRoutes:
    """Change a material's availability."""

    def __init__(self, registry: Registry, write: Write) -> None:
        self._registry = registry
        self._write = write

    def routes(self) -> list[Route]:
        return [
            Route(
                method="POST",
                path="/api/v1/material-status",
                handler=self.update,
                noun="Materials",
                summary="Reserve, withdraw or release a material",
                description="A registered material is `available`. It may become `reserved` or `withdrawn`, and "
                "`available` again from `reserved`; nothing follows `withdrawn`. Other cities that heard of the "
                "material hear of the change. The same update again is answered 200 with the first answer.",
                access=Scope.MATERIAL_WRITE,
                body=Body.REQUIRED,
                request_schema=STATUS_UPDATE_TYPE,
                successes={
                    201: Success(description="Carried out.", schema=_RECEIPT),
                    200: Success(description="Carried out before.", schema=_RECEIPT),
                },
                refusals={
                    400: DOCUMENT_REFUSALS,
                    404: ("unknown_material",),
                    409: ("other_content", "transition", "terminal"),
                },
            )
        ]

    async def update(self, request: Request) -> Answer:
        document = check_document(request.body, STATUS_UPDATE_TYPE)

        def unit(tx: Tx) -> Answer:
            change = self._registry.update_material_status(tx, document)
            receipt = {"id": change.update_id, "created_at": format_timestamp(change.created_at_ms)}
            return json_answer(receipt, 201 if change.created else 200)

        return await self._write(request, unit)
