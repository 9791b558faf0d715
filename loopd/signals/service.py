"""The door to LoopSignals: this node's own, and what others published, as far as it was fetched."""

from collections.abc import Iterable
from typing import Any

from loopd.clock import Clock
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.protocol.documents import Document
from loopd.protocol.errors import Invalid
from loopd.signals import tables
from loopd.signals.rules import (
    SignalConfiguration,
    SignalReading,
    configuration_json,
    own_configuration,
    read_configuration,
)
from loopd.signals.settings import SignalsSettings


class Signals:
    """Readings in basis points for the LoopCost, and the configuration that this node publishes (§6.1)."""

    def __init__(self, node_id: str, context_url: str, settings: SignalsSettings, clock: Clock) -> None:
        self._node_id = node_id
        self._context_url = context_url
        self._settings = settings
        self._clock = clock

    def own(self) -> SignalConfiguration:
        """This node's configuration for the current UTC month."""
        return own_configuration(self._node_id, self._settings.values, self._clock.now_ms())

    def published(self) -> dict[str, Any]:
        """The LoopSignalConfig of GET /api/v1/signals."""
        return configuration_json(self.own(), self._context_url)

    def basis_points(self, source: RowSource, node_id: str, category: str) -> SignalReading | None:
        """What a node charges for a category, on the way out and in alike; None where its signals are not known.

        Products have no signals of their own: they are read with the category `default`.
        """
        now_ms = self._clock.now_ms()
        if node_id == self._node_id:
            return self.own().reading(category, now_ms)
        configuration = tables.configuration_in_force(source, node_id, now_ms)
        return None if configuration is None else configuration.reading(category, now_ms)

    def remember(self, tx: Tx, node_id: str, document: Document) -> SignalConfiguration:
        """Keep the LoopSignalConfig that a node published.

        Invalid: `origin_mismatch` where it speaks for another node, `bad_signal` and `bad_time` (with the place) for
        values that cannot be taken exactly; what was known before stays.
        """
        configuration = read_configuration(document.value)
        if configuration.node_id != node_id:
            raise Invalid("origin_mismatch", "A node publishes its own signals alone.", {"node": configuration.node_id})
        tables.save(tx, configuration, self._clock.now_ms())
        return configuration

    def due(self, source: RowSource, node_ids: Iterable[str]) -> list[str]:
        """Those of the nodes whose signals should be fetched now.

        A node is due that was never fetched, whose signals were last fetched `refresh_s` ago, or whose last known
        configuration has ended since.
        """
        now_ms = self._clock.now_ms()
        return [node_id for node_id in node_ids if self._is_due(tables.last_fetched(source, node_id), now_ms)]

    def _is_due(self, fetched: tables.Fetched | None, now_ms: int) -> bool:
        if fetched is None or fetched.at_ms + self._settings.refresh_s * 1000 <= now_ms:
            return True
        return fetched.at_ms < fetched.known_until_ms <= now_ms
