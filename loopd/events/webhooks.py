"""The webhooks' door for the operator: add, list, remove, give a new secret, begin again."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from loopd.audit.service import AuditKind, AuditLog
from loopd.clock import Clock
from loopd.database import RowSource, Tx
from loopd.events import tables, webhook_tables
from loopd.events.rules import kinds_named
from loopd.events.webhook_rules import SECRET_BYTES, Standing, check_url, secret_text
from loopd.events.webhook_tables import Webhook
from loopd.protocol.errors import Conflict, Invalid, NotFound
from loopd.protocol.limits import WEBHOOK_FORMER_SECRET_MS, WEBHOOKS_MAX


@dataclass(frozen=True, slots=True)
class SecretWebhook:
    """A webhook with its secret as text, which is shown once."""

    webhook: Webhook
    secret: str = field(repr=False)


class Webhooks:
    """Which endpoints are told of what. `changed` is called with the number of one once a change of it is durable."""

    def __init__(
        self,
        audit: AuditLog,
        clock: Clock,
        changed: Callable[[int], None],
        *,
        plain_http: bool = False,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._audit = audit
        self._clock = clock
        self._changed = changed
        self._plain_http = plain_http
        self._random_bytes = random_bytes

    def add(self, tx: Tx, url: str, kinds: Sequence[str]) -> SecretWebhook:
        """A webhook that is told of what happens from now on.

        Invalid (400) `bad_url`, `bad_kind`; Conflict (409) `too_many_webhooks`.
        """
        try:
            check_url(url, plain_http=self._plain_http)
        except ValueError as error:
            raise Invalid("bad_url", f"Not an endpoint: {error}.", {"pointer": "/url"}) from None
        try:
            wanted = kinds_named(kinds)
        except ValueError as error:
            raise Invalid("bad_kind", f"Not a kind of event: {error}.", {"pointer": "/kinds"}) from None
        if not wanted:
            raise Invalid("bad_kind", "A webhook is told of one kind of event at least.", {"pointer": "/kinds"})
        if webhook_tables.count(tx) >= WEBHOOKS_MAX:
            raise Conflict("too_many_webhooks", f"There are {WEBHOOKS_MAX} webhooks; remove some first.")
        secret, names = self._random_bytes(SECRET_BYTES), list(dict.fromkeys(kinds))
        number = webhook_tables.insert(tx, url, names, secret, tables.newest_id(tx), self._clock.now_ms())
        # The whole address may hold a secret of the receiver's.
        self._record(tx, number, "webhook_added", host=urlsplit(url).hostname)
        return SecretWebhook(self.require(tx, number), secret_text(secret))

    def every(self, source: RowSource) -> list[Webhook]:
        """All webhooks, the oldest first."""
        return webhook_tables.every(source)

    def require(self, source: RowSource, number: int) -> Webhook:
        """The webhook of a number; NotFound (404) `unknown_webhook`."""
        webhook = webhook_tables.find(source, number)
        if webhook is None:
            raise NotFound("unknown_webhook", "There is no webhook with this id.")
        return webhook

    def remove(self, tx: Tx, number: int) -> None:
        """Tell an endpoint nothing more. NotFound (404) `unknown_webhook`."""
        self.require(tx, number)
        webhook_tables.delete(tx, number)
        self._record(tx, number, "webhook_removed")

    def rotate(self, tx: Tx, number: int) -> SecretWebhook:
        """Give a webhook a new secret; messages carry a signature of the former one too for a day.

        NotFound (404) `unknown_webhook`.
        """
        webhook, secret = self.require(tx, number), self._random_bytes(SECRET_BYTES)
        webhook_tables.set_secret(tx, webhook, secret, self._clock.now_ms() + WEBHOOK_FORMER_SECRET_MS)
        self._record(tx, number, "webhook_secret_rotated")
        return SecretWebhook(self.require(tx, number), secret_text(secret))

    def enable(self, tx: Tx, number: int) -> Webhook:
        """Begin again with an endpoint that fails or was given up, at once and where it ended.

        NotFound (404) `unknown_webhook`.
        """
        self.require(tx, number)
        webhook_tables.save_standing(tx, number, Standing(), self._clock.now_ms())
        self._record(tx, number, "webhook_enabled")
        return self.require(tx, number)

    def _record(self, tx: Tx, number: int, event: str, **facts: str | None) -> None:
        self._audit.append(tx, AuditKind.OPERATOR, f"webhook:{number}", {"event": event, **facts})
        tx.after_commit(lambda: self._changed(number))
