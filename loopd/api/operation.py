"""`/admin/v1/status` and `/admin/v1/backup`: what the operator asks of the running daemon."""

import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from loopd.api.answers import Answer, json_answer
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import Body, Route, Scope, Success
from loopd.database.database import Database
from loopd.protocol.errors import Conflict

_PATH_MAX_CHARACTERS = 4_096
_PATH = {
    "type": "string",
    "pattern": "^/",
    "maxLength": _PATH_MAX_CHARACTERS,
    "description": "An absolute path that is free.",
}
_BACKUP = RequestForm(
    {"type": "object", "required": ["file"], "properties": {"file": _PATH}, "additionalProperties": False}
)


class OperationRoutes:
    """`status` gathers what the daemon says of itself."""

    def __init__(self, status: Callable[[], Awaitable[dict[str, Any]]], database: Database) -> None:
        self._status = status
        self._database = database

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/admin/v1/status",
                handler=self._show,
                noun="Operation",
                summary="How the daemon does",
                access=Scope.ADMIN,
                admin=True,
                successes={200: Success(description="Identity, counts, peers by health, storage")},
            ),
            Route(
                method="POST",
                path="/admin/v1/backup",
                handler=self._backup,
                noun="Operation",
                summary="Copy the database, online",
                description="The daemon writes the file, as its own user. The copy is of one moment, and checked.",
                access=Scope.ADMIN,
                admin=True,
                body=Body.REQUIRED,
                request_schema=_BACKUP.schema,
                successes={200: Success(description="Written")},
                refusals={409: ("file_exists", "not_written")},
                repeatable=False,
            ),
        ]

    async def _show(self, request: Request) -> Answer:
        return json_answer(await self._status())

    async def _backup(self, request: Request) -> Answer:
        file = _BACKUP.read(request.body)["file"]
        try:
            await self._database.backup(Path(file))
        except FileExistsError as error:
            raise Conflict("file_exists", "there is such a file already") from error
        except (OSError, sqlite3.Error) as error:
            raise Conflict("not_written", f"the copy could not be written: {type(error).__name__}") from error
        return json_answer({"file": file})
