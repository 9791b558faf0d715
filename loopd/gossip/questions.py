"""Questions that a failure detector has asked, and the errands that it runs for others; see `membership`."""

from dataclasses import dataclass
from enum import StrEnum
from heapq import heappop, heappush
from typing import Final

from loopd.gossip.frames import Nack, Ping, PingRequest
from loopd.gossip.watching import AskNodeInfo, Circle, Send, Watched
from loopd.protocol.limits import PROBE_ERRANDS_PER_PEER_MAX, PROBES_UNANSWERED_MAX

# How long the answer to a probe still says something.
ANSWER_MEMORY_MS: Final = 60_000


class Errand(StrEnum):
    """Why something was asked."""

    OWN = "own"  # a probe of this node
    HELP = "help"  # a helper was asked
    RELAY = "relay"  # asked for another node


@dataclass(slots=True)
class Asked:
    """A question whose answer may still come. `asker` and `asker_number`: on whose behalf, where it is a relay."""

    errand: Errand
    asked: str
    target: str
    at_ms: int
    stalls: int
    linked: bool
    asker: str = ""
    asker_number: int = 0
    # A relay whose asker waits for an answer or a Nack.
    is_open_errand: bool = False


class Questions:
    """What was asked and may still be answered, by its number."""

    def __init__(self, circle: Circle) -> None:
        self._circle = circle
        self._asked: dict[int, Asked] = {}
        # How many errands are open for each peer, and when each has to be given up.
        self._errands: dict[str, int] = {}
        self._nacks_due: list[tuple[int, int]] = []
        self._number = 0

    def find(self, number: int) -> Asked | None:
        """The question of that number, if its answer may still come."""
        return self._asked.get(number)

    def next_nack_ms(self) -> int | None:
        """When the next errand has to be given up; None where none is open."""
        return self._nacks_due[0][0] if self._nacks_due else None

    def put_off(self, shift_ms: int) -> None:
        """This node slept: its errands have that much longer."""
        self._nacks_due = [(due_ms + shift_ms, number) for due_ms, number in self._nacks_due]

    def tick(self, now_ms: int) -> None:
        """Give up the errands whose time is over, and forget questions that are too old."""
        while self._nacks_due and self._nacks_due[0][0] <= now_ms:
            self.give_up_errand(heappop(self._nacks_due)[1])
        self._forget_old(now_ms)

    def ask(self, watched: Watched, now_ms: int, asker: str | None = None, asker_number: int = 0) -> int:
        """Ask the peer whether it is there, for this node or for another. The question's number."""
        errand = Errand.OWN if asker is None else Errand.RELAY
        asked = Asked(errand, watched.peer, watched.peer, now_ms, self._circle.stalls, watched.linked)
        if asker is not None:
            asked.asker, asked.asker_number, asked.is_open_errand = asker, asker_number, True
        number = self._remember(asked)
        if watched.linked:
            self._circle.effects.append(Send(watched.peer, Ping(number, self._circle.incarnation)))
        else:
            self._circle.effects.append(AskNodeInfo(watched.peer, number, self._circle.timeout_ms(watched)))
        return number

    def ask_helpers(self, watched: Watched, now_ms: int) -> frozenset[str]:
        """Ask some of those that know the peer whether they reach it; whom."""
        helpers = self._circle.drawn(self._circle.who_knows(watched), self._circle.preset.helpers)
        for helper in helpers:
            asked = Asked(Errand.HELP, helper, watched.peer, now_ms, self._circle.stalls, linked=True)
            self._circle.effects.append(Send(helper, PingRequest(self._remember(asked), watched.peer)))
        return frozenset(helpers)

    def run_errand(self, peer: str, request: PingRequest, now_ms: int) -> None:
        """Ask one of this node's own peers, nobody else, on behalf of another."""
        watched = self._circle.peers.get(request.target)
        if (
            watched is None
            or peer not in self._circle.peers
            or self._errands.get(peer, 0) >= PROBE_ERRANDS_PER_PEER_MAX
        ):
            self._circle.effects.append(Send(peer, Nack(request.number)))
            return
        self._errands[peer] = self._errands.get(peer, 0) + 1
        number = self.ask(watched, now_ms, peer, request.number)
        wait_ms = min(self._circle.timeout_ms(watched), self._circle.preset.nack_after_ms)
        heappush(self._nacks_due, (now_ms + wait_ms, number))

    def give_up_errand(self, number: int) -> None:
        """Say that no answer came so far. One that comes later is passed on all the same."""
        asked = self._asked.get(number)
        if asked is not None and self._close_errand(asked):
            self._circle.effects.append(Send(asked.asker, Nack(asked.asker_number)))

    def _close_errand(self, asked: Asked) -> bool:
        """Whether it was open."""
        if not asked.is_open_errand:
            return False
        asked.is_open_errand = False
        self._errands[asked.asker] -= 1
        if not self._errands[asked.asker]:
            del self._errands[asked.asker]
        return True

    def _remember(self, asked: Asked) -> int:
        self._number += 1
        self._asked[self._number] = asked
        if len(self._asked) > PROBES_UNANSWERED_MAX:
            self.forget(next(iter(self._asked)))
        return self._number

    def forget(self, number: int) -> None:
        """Its answer would say nothing any more."""
        self._close_errand(self._asked.pop(number))

    def _forget_old(self, now_ms: int) -> None:
        while self._asked:
            number, oldest = next(iter(self._asked.items()))
            if now_ms - oldest.at_ms <= ANSWER_MEMORY_MS:
                return
            self.forget(number)
