"""The catalogue's door for what changes: it follows the registry's records and what is heard, in their transactions."""

from loopd.catalogue import tables
from loopd.catalogue.entries import entry_of_announcement, entry_of_record
from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.writer import Tx
from loopd.exchange.ports import HomeNode, NodeDirectory
from loopd.protocol.limits import CATALOGUE_ENTRIES_MAX, SEARCH_BACKLOG_AT_ONCE, SEARCH_ENDED_AT_ONCE
from loopd.protocol.subjects import HeardSubject, SubjectState
from loopd.registry.rules import has_expired
from loopd.registry.service import Registry
from loopd.registry.tables import Record


class Catalogue:
    """Keeps the search index: this node's records, and what other cities announced.

    Of others at most `entries_max` are kept. When they are full, the city with the most entries gives up the one that
    would end first; so none can push out another that has less.
    """

    def __init__(
        self,
        node: HomeNode,
        clock: Clock,
        directory: NodeDirectory,
        entries_max: int = CATALOGUE_ENTRIES_MAX,
    ) -> None:
        self._node = node
        self._clock = clock
        self._directory = directory
        self._entries_max = entries_max

    def record_changed(self, tx: Tx, record: Record) -> None:
        """Enter a record that is new. What changes later of its state and of what is left, the index follows itself."""
        now_ms = self._clock.now_ms()
        subject = record.subject
        if subject.state is SubjectState.WITHDRAWN or has_expired(subject.expires_ms, now_ms):
            return
        if tables.has_record(tx, record.number):
            return
        entry, texts = entry_of_record(record, self._node.location)
        tables.remove_ended(tx, now_ms, SEARCH_ENDED_AT_ONCE)
        tables.enter_record(tx, record.number, subject.available, entry, texts)

    def heard(self, tx: Tx, heard: HeardSubject) -> None:
        """Keep the newest state of what another city announced; what is not available any more goes."""
        now_ms = self._clock.now_ms()
        origin = self._directory.find(tx, heard.origin)
        entry = entry_of_announcement(heard, None if origin is None else origin.location)
        known = tables.find_announcement(tx, heard.origin, heard.subject_id)
        offered = heard.available and not has_expired(entry.ends_ms, now_ms)
        if known is not None:
            if offered and tables.renew_announcement(tx, known, heard, entry):
                return
            tables.remove(tx, known)
        if offered:
            tables.remove_ended(tx, now_ms, SEARCH_ENDED_AT_ONCE)
            self._make_room(tx, heard.origin)
            tables.enter_announcement(tx, heard, entry)

    async def prepare(self, database: Database, registry: Registry) -> None:
        """Enter what waits for it: records from before there was an index, or whose clock or place was another."""
        now_ms = self._clock.now_ms()
        if tables.home(database.points) != self._node.location:
            await database.write(lambda tx: tables.move_home(tx, self._node.location))
        await database.write(lambda tx: tables.await_entry(tx, now_ms))
        while await database.write(lambda tx: self._enter_waiting(tx, registry)):
            pass

    def _enter_waiting(self, tx: Tx, registry: Registry) -> bool:
        waiting = tables.take_backlog(tx, SEARCH_BACKLOG_AT_ONCE)
        for subject_id in waiting:
            record = registry.find(tx, subject_id)
            if record is not None:
                self.record_changed(tx, record)
        return bool(waiting)

    def _make_room(self, tx: Tx, newcomer: str) -> None:
        if tables.count_announced(tx) >= self._entries_max:
            tables.remove_soonest_ending(tx, tables.largest_origin(tx, newcomer))
