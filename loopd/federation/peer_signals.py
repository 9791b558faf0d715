"""The signals that other nodes publish, fetched when it is time to, or when somebody waits for a cost (§6.2)."""

import structlog

from loopd.database import Database
from loopd.federation import nodes
from loopd.federation.requests import Destination, NodeRequests
from loopd.net.http_client import DialError
from loopd.protocol.documents import check_document
from loopd.protocol.errors import Refusal
from loopd.protocol.nodes import KnownNode
from loopd.protocol.vocabulary import DEFAULT_SIGNAL
from loopd.signals.service import Signals

log = structlog.get_logger(__name__)

_PATH = "/signals"


class PeerSignals:
    """Fetches signals and has them remembered. A fetch that fails is logged, and leaves what was known."""

    def __init__(self, database: Database, signals: Signals, requests: NodeRequests) -> None:
        self._database = database
        self._signals = signals
        self._requests = requests

    async def fetch_due(self, node: KnownNode, requests: NodeRequests) -> None:
        """Fetch those of a node that answered, when it is time to."""
        if self._signals.due(self._database.points, [node.node_id]):
            await self._fetch(node, requests)

    async def fetch_unknown(self, node_id: str) -> None:
        """Fetch those of a node of which none are known: without them its bid has no rank."""
        if self._signals.basis_points(self._database.points, node_id, DEFAULT_SIGNAL) is None:
            await self.fetch(node_id)

    async def fetch(self, node_id: str) -> None:
        """Fetch those of a node now, because somebody waits for a cost."""
        node = nodes.find(self._database.points, node_id)
        if node is not None:
            await self._fetch(node, self._requests)

    async def _fetch(self, node: KnownNode, requests: NodeRequests) -> None:
        destination = Destination(node.endpoint, node.node_id, node.named_by_operator)
        try:
            answer = await requests.get(destination, _PATH)
            document = check_document(answer.body, "LoopSignalConfig")
            await self._database.write(lambda tx: self._signals.remember(tx, node.node_id, document))
        except (DialError, Refusal) as error:
            log.info("signals_not_fetched", node=node.node_id, error=str(error))
