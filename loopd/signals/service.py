"""The door to LoopSignals: this node's own, and what others published, as far as it was fetched."""

import asyncio
from collections.abc import Iterable
from typing import Any

import structlog

from loopd.clock import Clock
from loopd.database.readers import Reader
from loopd.database.rows import RowSource
from loopd.database.writer import Tx
from loopd.events.service import EventKind, EventLog
from loopd.protocol.documents import Document
from loopd.protocol.errors import Invalid, NotFound
from loopd.protocol.timestamps import format_timestamp
from loopd.signals import tables
from loopd.signals.periods import configuration_at, issued
from loopd.signals.rules import (
    SignalConfiguration,
    SignalReading,
    configuration_json,
    own_configuration,
    read_configuration,
)
from loopd.signals.settings import SignalsSettings
from loopd.signals.watch import remarks_on

log = structlog.get_logger(__name__)


class Signals:
    """Readings in basis points for the LoopCost, and the configuration that this node publishes (§6.1)."""

    def __init__(
        self, node_id: str, context_url: str, settings: SignalsSettings, clock: Clock, events: EventLog
    ) -> None:
        self._node_id = node_id
        self._context_url = context_url
        self._settings = settings
        self._clock = clock
        self._events = events

    def own(self, source: RowSource) -> SignalConfiguration:
        """This node's configuration in force: what the last vote decided, or before the first what the settings say."""
        now_ms = self._clock.now_ms()
        begun = tables.own_begun(source, self._node_id, now_ms)
        found = None if begun is None else configuration_at([begun], now_ms)
        return own_configuration(self._node_id, self._settings.values, now_ms) if found is None else found

    def published(self, source: RowSource) -> dict[str, Any]:
        """The LoopSignalConfig of GET /api/v1/signals."""
        return configuration_json(self.own(source), self._context_url)

    def published_at(self, source: RowSource, moment_ms: int) -> dict[str, Any]:
        """The one in force at a moment. NotFound `not_known` before the first, `not_issued` after the current month."""
        current = self.own(source)
        if moment_ms >= current.valid_until_ms:
            until = format_timestamp(current.valid_until_ms)
            raise NotFound("not_issued", f"Signals are issued up to {until}.", {"issued_until": until})
        found = configuration_at(tables.own_configurations(source, self._node_id) or [current], moment_ms)
        if found is None:
            raise NotFound("not_known", "No signals are known of that time.")
        return configuration_json(found, self._context_url)

    def history(self, source: RowSource, limit: int) -> list[dict[str, Any]]:
        """What was issued until now, the newest first."""
        stored = tables.own_configurations(source, self._node_id) or [self.own(source)]
        found = issued(stored, self._clock.now_ms(), limit)
        return [configuration_json(configuration, self._context_url) for configuration in found]

    def peers(self, source: RowSource) -> list[dict[str, Any]]:
        """What is known of other nodes' signals, and what is odd about it."""
        now_ms = self._clock.now_ms()
        return [self._peer(source, node_id, now_ms) for node_id in tables.known_nodes(source)]

    def _peer(self, source: RowSource, node_id: str, now_ms: int) -> dict[str, Any]:
        found = tables.configuration_in_force(source, node_id, now_ms)
        fetched = tables.last_fetched(source, node_id)
        return {
            "node": node_id,
            "configuration": None if found is None else configuration_json(found, self._context_url),
            "stale": found is None or now_ms >= found.valid_until_ms,
            "fetched_at": None if fetched is None else format_timestamp(fetched.at_ms),
            "remarks": [
                {
                    "kind": remark.kind.value,
                    "valid_from": format_timestamp(remark.valid_from_ms),
                    "categories": list(remark.categories),
                    "noticed_at": format_timestamp(noticed_at_ms),
                }
                for noticed_at_ms, remark in tables.remarks(source, node_id)
            ],
        }

    def basis_points(self, source: RowSource, node_id: str, category: str) -> SignalReading | None:
        """What a node charges for a category, on the way out and in alike; None where its signals are not known.

        Products have no signals of their own: they are read with the category `default`.
        """
        now_ms = self._clock.now_ms()
        if node_id == self._node_id:
            return self.own(source).reading(category, now_ms)
        configuration = tables.configuration_in_force(source, node_id, now_ms)
        return None if configuration is None else configuration.reading(category, now_ms)

    async def of_others(self, reader: Reader) -> list[SignalConfiguration]:
        """All that is known of other nodes' configurations, by node and then in order of their start."""
        rows = await reader.all(tables.ALL_CONFIGURATIONS)
        # Thousands of small JSON texts: not on the event loop.
        return await asyncio.to_thread(lambda: [tables.configuration_of(row) for row in rows])

    def remember(self, tx: Tx, node_id: str, document: Document) -> SignalConfiguration:
        """Keep the LoopSignalConfig that a node published.

        Invalid: `origin_mismatch` where it speaks for another node, `bad_signal` and `bad_time` (with the place) for
        values that cannot be taken exactly; what was known before stays. What is odd about it is noted (see watch.py).
        """
        configuration = read_configuration(document.value)
        if configuration.node_id != node_id:
            raise Invalid("origin_mismatch", "A node publishes its own signals alone.", {"node": configuration.node_id})
        now_ms = self._clock.now_ms()
        known = tables.known_configurations(tx, node_id)
        for remark in remarks_on(known, configuration, now_ms):
            if tables.save_remark(tx, node_id, remark, now_ms):
                log.warning("signals_odd", node=node_id, kind=remark.kind.value, categories=remark.categories)
        tables.save(tx, configuration, now_ms)
        if not known or (
            known[-1].valid_from_ms <= configuration.valid_from_ms and known[-1].signals != configuration.signals
        ):
            span = {
                "valid_from": format_timestamp(configuration.valid_from_ms),
                "valid_until": format_timestamp(configuration.valid_until_ms),
            }
            self._events.append(tx, EventKind.SIGNALS_CHANGED, node_id, span)
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
