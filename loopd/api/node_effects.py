"""How the handlers of node requests carry out their effect: once, however often the same request arrives (§9.2)."""

from collections.abc import Callable
from typing import Final, Protocol

from loopd.api.answers import Answer, json_answer
from loopd.api.requests import Request
from loopd.api.routes import Success
from loopd.clock import Clock
from loopd.database.database import Database
from loopd.database.writer import Tx
from loopd.federation import replay
from loopd.federation.authentication import NodeCaller

Effect = Callable[[Tx], None]

ACCEPTED: Final = Success(description="Taken, durably", schema="FederateAcceptedResponse")
DOCUMENT_REFUSALS: Final = ("unknown_context", "bad_json_ld", "personal_data")


class AcceptOnce(Protocol):
    """Runs the effect of a node's request in a transaction and remembers the request; a repeat has no effect.

    Gives the number under which the request was accepted, 1 or more: the same for a repeat. A Refusal that the effect
    raises passes through, and nothing is remembered.
    """

    async def __call__(self, request: Request, effect: Effect) -> int: ...


def accepted(number: int) -> Answer:
    """202 with the FederateAcceptedResponse of §8.2."""
    return json_answer({"status": "accepted", "id": number}, 202)


def node_caller(request: Request) -> NodeCaller:
    """The caller as the federation knows it; its authenticator made it."""
    caller = request.node
    if not isinstance(caller, NodeCaller):
        raise TypeError("node requests are authenticated by the federation")
    return caller


class NodeRequestWriter:
    """The AcceptOnce of a running node."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    async def accept_once(self, request: Request, effect: Effect) -> int:
        """See AcceptOnce."""
        caller, now_ms = node_caller(request), self._clock.now_ms()
        return await self._database.write(lambda tx: replay.accept_once(tx, caller, now_ms, effect))
