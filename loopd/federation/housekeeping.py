"""What comes round by itself: forgetting what is over, announcing again what is still there, and farther away."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import structlog

from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.writer import Tx
from loopd.federation import announcing, explain, heard, key_store, nodes, outbox, replay
from loopd.federation.announcing import Announcer
from loopd.federation.misbehaviour import Misbehaviour
from loopd.federation.worker import RequestAnswered
from loopd.protocol.errors import Refusal
from loopd.protocol.limits import SEEN_GRACE_MS
from loopd.protocol.subjects import Subject

log = structlog.get_logger(__name__)

HOUSEKEEPING_S = 5.0
# How often is looked for rings that opened: each is late by that at most.
RINGS_LOOK_S = 1.0
RENEWALS_AT_ONCE = 100

SubjectById = Callable[[Tx, str], Subject | None]


class Housekeeping:
    """Works between `start()` and `stop()`, and whenever it is called."""

    def __init__(
        self, database: Database, announcer: Announcer, misbehaviour: Misbehaviour, clock: Clock, validity_ms: int
    ) -> None:
        self._database = database
        self._announcer = announcer
        self._misbehaviour = misbehaviour
        self._clock = clock
        self._validity_ms = validity_ms
        self._subject_by_id: SubjectById | None = None
        self._request_answered: RequestAnswered | None = None
        self._running: asyncio.Task[None] | None = None

    def start(self, subject_by_id: SubjectById, request_answered: RequestAnswered) -> None:
        """Begin. Subjects are announced as they are then; who queued a request is told if it ended unanswered."""
        self._subject_by_id = subject_by_id
        self._request_answered = request_answered
        self._running = asyncio.create_task(self._run(), name="federation-housekeeping")

    async def stop(self) -> None:
        """End."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._subject_by_id = self._request_answered = None

    async def _run(self) -> None:
        while True:
            for _ in range(round(HOUSEKEEPING_S / RINGS_LOOK_S)):
                await asyncio.sleep(RINGS_LOOK_S)
                await self._tend(self.widen)
                await self._tend(self._misbehaviour.flush)
            await self._tend(self.keep_house)

    @staticmethod
    async def _tend(work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Refusal as refusal:  # our own storage is overloaded: the next round does it
            log.warning("housekeeping_delayed", reason=refusal.reason)
        except Exception:
            log.exception("housekeeping_failed")

    async def keep_house(self) -> None:
        """Forget what is over, a little in each transaction, and announce again what is still there."""
        while await self._database.write(self._forget_some):
            pass
        points, now_ms = self._database.points, self._clock.now_ms()
        await self._announce_again(announcing.due_renewals(points, self._validity_ms, now_ms, RENEWALS_AT_ONCE))

    async def widen(self) -> None:
        """Announce farther away what nobody nearby took."""
        points, now_ms = self._database.points, self._clock.now_ms()
        await self._announce_again(announcing.due_widenings(points, now_ms, RENEWALS_AT_ONCE))

    async def _announce_again(self, due: list[str]) -> None:
        # Each in its own unit, so that one that cannot be renewed holds up no other; they share a commit all the same.
        renewals = (self._database.write(partial(self._renew, subject_id)) for subject_id in due)
        for subject_id, outcome in zip(due, await asyncio.gather(*renewals, return_exceptions=True), strict=True):
            if isinstance(outcome, Exception):
                log.error("renewal_failed", subject=subject_id, exc_info=outcome)

    def _renew(self, subject_id: str, tx: Tx) -> None:
        if self._subject_by_id is None:
            return
        subject = self._subject_by_id(tx, subject_id)
        if subject is None or not subject.available or self._announcer.announce(tx, subject) is None:
            announcing.stop_renewing(tx, subject_id)

    def _forget_some(self, tx: Tx) -> bool:
        """One transaction of what is over; True where there is more of it."""
        now_ms = self._clock.now_ms()
        key_store.prune(tx, now_ms)
        nodes.prune_claims(tx, now_ms)
        more = (
            self._end_requests(tx, now_ms),
            replay.prune(tx, now_ms),
            outbox.prune(tx, now_ms),
            heard.prune(tx, now_ms - SEEN_GRACE_MS),
            explain.prune(tx, now_ms),
        )
        return any(more)

    def _end_requests(self, tx: Tx, now_ms: int) -> bool:
        answered = self._request_answered
        if answered is None:
            return False
        unanswered = outbox.end_requests(tx, now_ms)
        for reference in unanswered:
            answered(tx, reference, 0, "expired")
        return bool(unanswered)
