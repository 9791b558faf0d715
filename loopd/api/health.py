"""`GET /health`: whether this node serves. Open, uncounted, for load balancers and service managers."""

from loopd.api.answers import Answer, json_answer
from loopd.api.requests import Request
from loopd.api.routes import RateClass, Route, Success
from loopd.clock import Clock
from loopd.database.database import Database
from loopd.protocol.timestamps import format_timestamp


class HealthRoutes:
    """While the node drains, the door itself answers 503."""

    def __init__(self, database: Database, clock: Clock, node_id: str, version: str) -> None:
        self._database = database
        self._clock = clock
        self._node_id = node_id
        self._version = version

    def routes(self) -> list[Route]:
        fields = {name: {"type": "string"} for name in ("node", "version", "time")}
        return [
            Route(
                method="GET",
                path="/health",
                handler=self._show,
                noun="Node",
                summary="Whether the node serves",
                rate=RateClass.NONE,
                successes={
                    200: Success(
                        description="It serves, and its database answers",
                        schema={"type": "object", "properties": {"status": {"const": "ok"}, **fields}},
                    )
                },
                refusals={503: ("storage",)},
            )
        ]

    async def _show(self, request: Request) -> Answer:
        self._database.point("SELECT 1")
        time = format_timestamp(self._clock.now_ms())
        return json_answer({"status": "ok", "node": self._node_id, "version": self._version, "time": time})
