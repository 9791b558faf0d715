"""Requests counted by route and status, for Prometheus (`/metrics` on the operator's listener)."""

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from loopd.api.answers import Answer
from loopd.api.requests import Request
from loopd.api.routes import RateClass, Route, Scope, Success

_SECONDS_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class RequestMetrics:
    """Counters of one node's API, both planes together. `registry` is open for other rooms' metrics."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        labels = ("route", "status")
        self._requests = Counter("loopd_http_requests", "Requests answered", labels, registry=self.registry)
        self._seconds = Histogram(
            "loopd_http_request_seconds",
            "Time from a request's head to its answer",
            ("route",),
            buckets=_SECONDS_BUCKETS,
            registry=self.registry,
        )
        # Looking a label up costs more than counting; routes and statuses are few.
        self._count_of: dict[tuple[str, int], Counter] = {}
        self._seconds_of: dict[str, Histogram] = {}

    def observe(self, route: str, status: int, seconds: float) -> None:
        """Count one answered request. `route` is a template, never a path that somebody chose."""
        count = self._count_of.get((route, status))
        if count is None:
            count = self._count_of[route, status] = self._requests.labels(route, str(status))
        count.inc()
        histogram = self._seconds_of.get(route)
        if histogram is None:
            histogram = self._seconds_of[route] = self._seconds.labels(route)
        histogram.observe(seconds)

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/metrics",
                handler=self._show,
                noun="Node",
                summary="Counters and timings in Prometheus' text form",
                access=Scope.ADMIN,
                rate=RateClass.NONE,
                successes={200: Success(description="The metrics", content_type="text/plain")},
                admin=True,
            )
        ]

    async def _show(self, request: Request) -> Answer:
        return Answer(200, generate_latest(self.registry), CONTENT_TYPE_LATEST)
