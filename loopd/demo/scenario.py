"""A vote, the flow of §12.1 at what was voted, and a sale to another city with its payment.

The nodes decide and compute; each act gives what it saw.
"""

from typing import Final, Protocol

from loopd.demo.act import Act, Facts, Play
from loopd.demo.acts.announcing import INNER_RING, MIDDLE_RING, OUTER_RING, REGISTER
from loopd.demo.acts.bidding import BID, RANK, SELECT, TELL
from loopd.demo.acts.dealing import DELIVER, SELL
from loopd.demo.acts.discharging import DISCHARGE
from loopd.demo.acts.meeting import HANDSHAKE, START
from loopd.demo.acts.settling import ACCOUNTS, BOOKS
from loopd.demo.acts.voting import VOTE
from loopd.demo.client import Client
from loopd.demo.nodes import Nodes

ACTS: Final[tuple[Act, ...]] = (
    START,
    HANDSHAKE,
    VOTE,
    REGISTER,
    INNER_RING,
    MIDDLE_RING,
    OUTER_RING,
    BID,
    RANK,
    SELECT,
    TELL,
    ACCOUNTS,
    SELL,
    DELIVER,
    DISCHARGE,
    BOOKS,
)


class Audience(Protocol):
    """Who is shown each act: before it is played, and what came of it."""

    def begins(self, act: Act) -> None: ...

    def happened(self, act: Act, facts: Facts) -> None: ...


class Scenario:
    """Plays the acts on nodes that are not set up yet."""

    def __init__(self, nodes: Nodes, audience: Audience) -> None:
        self._nodes = nodes
        self._audience = audience

    async def play(self) -> list[Facts]:
        """Every act's facts. DemoFailed where one does not come out."""
        first, *following = ACTS
        self._audience.begins(first)
        await self._nodes.set_up()
        self._nodes.start()
        async with Client(self._nodes) as client:
            play = Play(self._nodes, client)
            played = [await self._perform(first, play)]
            for act in following:
                self._audience.begins(act)
                played.append(await self._perform(act, play))
            return played

    async def _perform(self, act: Act, play: Play) -> Facts:
        facts = await act.play(play)
        self._audience.happened(act, facts)
        return {"step": act.name, **facts}
