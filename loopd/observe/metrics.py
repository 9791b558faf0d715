"""What Prometheus is told beside the API's own figures."""

from collections import Counter as Tally

from prometheus_client import CollectorRegistry, Counter


class AnnouncementMetrics:
    """Received announcements by the reason code of what was decided on them (§9.3); they are a closed list."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._tally: Tally[str] = Tally()
        self._counter = Counter(
            "loopd_announcements", "Received announcements by decision", ("reason",), registry=registry
        )

    def count(self, reason: str) -> None:
        """One more decision of that reason."""
        self._tally[reason] += 1
        self._counter.labels(reason).inc()

    def by_reason(self) -> dict[str, int]:
        """The counts since the start."""
        return dict(self._tally)
