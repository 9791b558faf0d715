"""A node's card, its NodeInfo: whether the node is there and still itself, and where it is (§9.1)."""

from dataclasses import dataclass
from typing import Final

import structlog

from loopd.clock import Clock
from loopd.database.database import Database
from loopd.federation import key_store, nodes
from loopd.federation.handshake import NodeCard, read_node_info
from loopd.federation.requests import Destination, NodeRequests, retry_after_ms
from loopd.net.http_client import DialError, PeerAnswer
from loopd.protocol.errors import Refusal
from loopd.protocol.nodes import KnownNode

log = structlog.get_logger(__name__)

NODE_INFO_PATH: Final = "/node/info"


@dataclass(frozen=True, slots=True)
class Look:
    """What a look at a node's card came to.

    `patience_ms`: so long it asks to be left alone; 0 where it does not. `other_answer`: something answers at its
    address, and it is not the node as it should be.
    """

    is_there: bool
    patience_ms: int = 0
    other_answer: bool = False


class NodeCards:
    """Asks nodes for their cards."""

    def __init__(self, database: Database, requests: NodeRequests, clock: Clock) -> None:
        self._database = database
        self._requests = requests
        self._clock = clock

    async def look(self, node: KnownNode) -> Look:
        """Ask the node for its NodeInfo: is it there, is it still itself, and where is it?"""
        try:
            answer = await self._requests.get(Destination(node.endpoint, None, node.named_by_operator), NODE_INFO_PATH)
        except DialError as error:
            log.debug("probe_failed", peer=node.node_id, error=str(error))
            return Look(is_there=False)
        if answer.status == 429:
            return Look(is_there=True, patience_ms=retry_after_ms(answer))
        card = _card(answer)
        if answer.status >= 500 or not self._is_itself(node, card):
            return Look(is_there=False, other_answer=True)
        if card is not None and node.location != card.location:
            await self._keep_location(node.node_id, card)
        return Look(is_there=True)

    def _is_itself(self, node: KnownNode, card: NodeCard | None) -> bool:
        """Whether what answered is the node. A node of this project shows its card; another may answer without one.

        What else answers there, as a proxy whose node is gone, would refuse what waits, and refusals are final.
        """
        if card is None:
            return not node.is_loopd
        shown = None if card.public_key is None else card.public_key.raw
        if card.node_id == node.node_id and (node.public_key is None or shown == node.public_key):
            return True
        if card.node_id == node.node_id and shown in key_store.former_keys(self._database.points, node.node_id):
            return True  # it stated its new key a moment ago, and takes it up now
        log.warning("probe_found_another_node", peer=node.node_id, found=card.node_id)
        return False

    async def _keep_location(self, node_id: str, card: NodeCard) -> None:
        now_ms = self._clock.now_ms()
        try:
            await self._database.write(lambda tx: nodes.set_location(tx, node_id, card.location, now_ms))
        except Refusal as refusal:  # our own storage is overloaded or closing: the next look does it
            log.warning("location_not_kept", peer=node_id, reason=refusal.reason)


def _card(answer: PeerAnswer) -> NodeCard | None:
    """The node's card; a plain node that shows none, but answers, is there all the same."""
    if answer.status != 200:
        return None
    try:
        return read_node_info(answer.body)
    except Refusal:
        return None
