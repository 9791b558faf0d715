"""`/api/v1/signals`: this city's LoopSignals (§6.1), now, then, and all that were; and those of peers."""

from loopd.api.answers import LD_JSON, Answer, entity_answer, json_answer
from loopd.api.requests import Request
from loopd.api.routes import LIMIT, QueryParameter, Route, Scope, Success
from loopd.database import Database
from loopd.protocol.errors import Invalid
from loopd.protocol.timestamps import parse_utc_timestamp
from loopd.signals.service import Signals


class SignalRoutes:
    """Publish the signals, as §6.2 demands."""

    def __init__(self, signals: Signals, database: Database) -> None:
        self._signals = signals
        self._database = database

    def routes(self) -> list[Route]:
        configuration = Success(
            description="The configuration in force.", schema="LoopSignalConfig", content_type=LD_JSON
        )
        at = QueryParameter(name="at", description="Another moment, ISO 8601.", max_characters=40, reason="bad_time")
        return [
            Route(
                method="GET",
                path="/api/v1/signals",
                handler=self.read,
                noun="Signals",
                summary="Read this city's LoopSignals",
                description="Valid until the start of the next UTC month, which is no longer part of it, or until a "
                "newer one begins. A category that is not listed takes `default`, without that 0.",
                query=(at,),
                successes={200: configuration},
                refusals={404: ("not_issued", "not_known")},
            ),
            Route(
                method="GET",
                path="/api/v1/signals/history",
                handler=self.history,
                noun="Signals",
                summary="Every configuration that was issued, newest first",
                description="Where two overlap, the one that began last is in force.",
                query=(LIMIT,),
                successes={200: Success(description="LoopSignalConfigs.", schema=results_of("LoopSignalConfig"))},
            ),
            Route(
                method="GET",
                path="/admin/v1/signals/peers",
                handler=self.peers,
                noun="Signals",
                summary="What other nodes publish, and what is odd about it",
                description="`jump`: a change of more than 0.10 from one month to the next. `went_back`: an older "
                "configuration after a newer one. `contradiction`: two for the same moment.",
                access=Scope.ADMIN,
                admin=True,
                successes={200: Success(description="One entry for each node.")},
            ),
        ]

    async def read(self, request: Request) -> Answer:
        at = request.text("at")
        if at is None:
            return entity_answer(self._signals.published(self._database.points))
        try:
            moment_ms = parse_utc_timestamp(at)
        except ValueError:
            raise Invalid("bad_time", "at is an ISO 8601 date-time with a time zone.", {"parameter": "at"}) from None
        return entity_answer(self._signals.published_at(self._database.points, moment_ms))

    async def history(self, request: Request) -> Answer:
        return json_answer({"results": self._signals.history(self._database.points, request.limit)})

    async def peers(self, request: Request) -> Answer:
        return json_answer({"peers": self._signals.peers(self._database.points)})


def results_of(entity: str) -> dict[str, object]:
    """The schema of a list of entities."""
    items = {"type": "array", "items": {"$ref": f"#/components/schemas/{entity}"}}
    return {"type": "object", "required": ["results"], "properties": {"results": items}}
