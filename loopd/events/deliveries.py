"""Sends events to webhooks: a worker for each, so that one that fails keeps no other waiting."""

import asyncio
import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database import Database, Tx
from loopd.events import tables, webhook_tables
from loopd.events.rules import Event, EventKind
from loopd.events.service import EventLog
from loopd.events.webhook_rules import (
    Attempt,
    Message,
    Patience,
    Standing,
    after_attempt,
    event_message,
    gap_message,
    signed_headers,
    trial_message,
)
from loopd.events.webhook_tables import Webhook
from loopd.net.http_client import DialError, PeerAnswer
from loopd.protocol.errors import Refusal
from loopd.protocol.limits import WEBHOOK_ANSWER_MAX_BYTES, WEBHOOK_PAGE, WEBHOOK_TIMEOUT_S

# How long a worker sleeps at most before it looks around; what it waits for wakes it earlier.
_IDLE_S = 60.0
# After trouble of our own: nothing is lost, try again.
_TROUBLE_S = 1.0

log = structlog.get_logger(__name__)


class Client(Protocol):
    """What makes the requests; see `net.http_client.PeerClient`."""

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str],
        body: bytes | None,
        trusted: bool,
        timeout_s: float,
        max_answer_bytes: int,
    ) -> PeerAnswer: ...


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every worker shares."""

    node_id: str
    database: Database
    events: EventLog
    audit: AuditLog
    client: Client
    clock: Clock
    randomness: random.Random
    patience: Patience


class Worker:
    """Sends to one webhook, in order, until it is removed or disabled."""

    def __init__(self, number: int, around: Surroundings) -> None:
        self._number = number
        self._around = around
        self._kinds: frozenset[EventKind] = frozenset()
        self._waits_for_events = False
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """The webhook was changed: look at it anew."""
        self._woken.set()

    def happened(self, event: Event) -> None:
        """An event was committed."""
        if self._waits_for_events and event.kind in self._kinds:
            self._woken.set()

    async def run(self) -> None:
        while (webhook := self._look()) is not None:
            self._woken.clear()
            try:
                wait_s = await self._turn(webhook)
            except Refusal as refusal:
                log.warning("webhook_delayed", webhook=self._number, reason=refusal.reason)
                wait_s = _TROUBLE_S
            if wait_s > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(wait_s, _IDLE_S)):
                        await self._woken.wait()

    def _look(self) -> Webhook | None:
        webhook = webhook_tables.find(self._around.database.points, self._number)
        return None if webhook is None or webhook.standing.disabled is not None else webhook

    async def _turn(self, webhook: Webhook) -> float:
        """Send what is due. How long there is nothing more to do, in seconds."""
        around = self._around
        self._waits_for_events = False
        due_ms = webhook.standing.next_attempt_at_ms - around.clock.now_ms()
        if due_ms > 0:
            return due_ms / 1000
        # From here on an event wakes this worker, also one that is committed while the log is read.
        self._kinds, self._waits_for_events = webhook.event_kinds, True
        page = await around.events.after(around.database, self._kinds, webhook.cursor, WEBHOOK_PAGE)
        if page.unknown:
            newest = tables.newest_id(around.database.points)
            log.warning("webhook_cursor_unknown", webhook=self._number, cursor=webhook.cursor, newest=newest)
            await around.database.write(lambda tx: webhook_tables.move_cursor(tx, self._number, newest))
            return 0.0
        gone_through = page.gone_through or 0
        if gone_through > webhook.gap_told_through:
            gap = gap_message(around.node_id, around.clock.now_ms(), webhook.cursor, gone_through)
            await self._deliver(webhook, gap, webhook.cursor, gone_through)
            return 0.0
        for event in page.events:
            current = self._look()
            if current is None or not await self._deliver(
                current, event_message(around.node_id, event), event.event_id, current.gap_told_through
            ):
                return 0.0
        return 0.0 if page.events else _IDLE_S

    async def _deliver(self, webhook: Webhook, message: Message, cursor: int, gap_told_through: int) -> bool:
        """Send a message, and store what came of it: where it was taken, the two marks. Whether it was."""
        around = self._around
        attempt = await send(around, webhook, message)
        now_ms = around.clock.now_ms()
        if attempt.succeeded:
            await around.database.write(
                lambda tx: webhook_tables.delivered(tx, self._number, cursor, gap_told_through, now_ms)
            )
            return True
        standing = await around.database.write(lambda tx: self._save_failure(tx, attempt, now_ms))
        facts = {"webhook": self._number, "message": message.message_id, "error": standing.last_error}
        if standing.disabled is None:
            log.info("webhook_failed", **facts, failures=standing.failures)
        else:
            log.warning("webhook_disabled", **facts, reason=standing.disabled.value)
        return False

    def _save_failure(self, tx: Tx, attempt: Attempt, now_ms: int) -> Standing:
        # As it stands now: the operator may have wished to begin again meanwhile.
        webhook = webhook_tables.find(tx, self._number)
        if webhook is None:
            return Standing(last_error="removed")
        around = self._around
        standing = after_attempt(webhook.standing, attempt, now_ms, around.randomness.random(), around.patience)
        webhook_tables.save_standing(tx, self._number, standing, now_ms)
        if standing.disabled is not None:
            entry = {"event": "webhook_disabled", "reason": standing.disabled.value}
            around.audit.append(tx, AuditKind.OPERATOR, f"webhook:{self._number}", entry)
        return standing


class Deliveries:
    """All workers, from `start` to `stop`."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._workers: dict[int, tuple[Worker, asyncio.Task[None]]] = {}
        self._running = False

    def start(self) -> None:
        """Go on where the last run of the node ended."""
        self._running = True
        for webhook in webhook_tables.every(self._around.database.points):
            self.changed(webhook.number)

    async def stop(self) -> None:
        """End. What is under way may have been taken, and is sent again after the next start."""
        self._running = False
        tasks = [task for _, task in self._workers.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def happened(self, event: Event) -> None:
        """An event was committed."""
        for worker, _ in self._workers.values():
            worker.happened(event)

    def changed(self, number: int) -> None:
        """A webhook was added, removed or changed."""
        if not self._running:
            return
        known = self._workers.get(number)
        if known is not None:
            known[0].wake()
            return
        worker = Worker(number, self._around)
        task = asyncio.create_task(worker.run(), name=f"webhook-{number}")
        task.add_done_callback(lambda done: self._ended(number, done))
        self._workers[number] = (worker, task)

    async def test(self, webhook: Webhook) -> tuple[Message, Attempt]:
        """Send a webhook a message that tells nothing, now and once, and give what came of it."""
        message = trial_message(self._around.node_id, self._around.clock.now_ms())
        return message, await send(self._around, webhook, message)

    def _ended(self, number: int, task: asyncio.Task[None]) -> None:
        del self._workers[number]
        if task.cancelled():
            return
        if task.exception() is not None:
            log.error("webhook_worker_failed", webhook=number, exc_info=task.exception())
            # A bug of ours must not silence a webhook for good.
            asyncio.get_running_loop().call_later(_IDLE_S, self.changed, number)
        elif self._enabled(number):
            # It was enabled while its worker ended.
            self.changed(number)

    def _enabled(self, number: int) -> bool:
        webhook = webhook_tables.find(self._around.database.points, number) if self._running else None
        return webhook is not None and webhook.standing.disabled is None


async def send(around: Surroundings, webhook: Webhook, message: Message) -> Attempt:
    """Make one attempt. No redirect is followed, and no address called that the settings do not allow."""
    headers = signed_headers(message, now_ms := around.clock.now_ms(), webhook.secrets(now_ms))
    try:
        answer = await around.client.request(
            "POST",
            webhook.url,
            headers=headers,
            body=message.body,
            trusted=False,
            timeout_s=WEBHOOK_TIMEOUT_S,
            max_answer_bytes=WEBHOOK_ANSWER_MAX_BYTES,
        )
    except DialError as error:
        return Attempt(None, str(error))
    return Attempt(answer.status, None, _retry_after_ms(answer))


def _retry_after_ms(answer: PeerAnswer) -> int:
    text = answer.headers.get("Retry-After", "")
    return int(text) * 1000 if text.isascii() and text.isdigit() and len(text) <= 9 else 0
