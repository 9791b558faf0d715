"""`/api/v1/signals`: this city's LoopSignals (§6.1)."""

from loopd.api.answers import LD_JSON, Answer, entity_answer
from loopd.api.requests import Request
from loopd.api.routes import Route, Success
from loopd.signals.service import Signals


class SignalRoutes:
    """Publish the signals, as §6.2 demands."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/api/v1/signals",
                handler=self.read,
                noun="Signals",
                summary="Read this city's LoopSignals",
                description="Valid from the start of the UTC month to the start of the next, which is no longer part "
                "of it. A category that is not listed takes `default`, without that 0.",
                successes={
                    200: Success(
                        description="The configuration in force.", schema="LoopSignalConfig", content_type=LD_JSON
                    )
                },
            )
        ]

    async def read(self, request: Request) -> Answer:
        return entity_answer(self._signals.published())
