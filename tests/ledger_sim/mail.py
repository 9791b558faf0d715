"""A message between cities, as it is on its way."""

from dataclasses import dataclass, field
from typing import Any

from tests.ledger_sim.asks import Key


@dataclass(frozen=True)
class Sent:
    """A message that waits in the outbox; `reference` is by what the sender knows it again.

    From `expires_ms` on the sender itself does not send it any more.
    """

    number: int
    target: str
    body: bytes
    expires_ms: int
    reference: str


@dataclass(frozen=True)
class Mail:
    """What a city has said. `word` is what it decides, answers, acknowledges or asks; `content` is the rest.

    `key` is the sale that it is about; None where it is a run or a discharge, which `content` names.
    """

    sender: str
    receiver: str
    sent: Sent = field(repr=False)
    type: str
    key: Key | None
    word: str | None = None
    reason: str | None = None
    content: Any = None
