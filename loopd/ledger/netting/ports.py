"""What netting needs of the rest of the node, as it sees it."""

from collections.abc import Sequence
from typing import Protocol

from loopd.crypto.keys import NodeKey, PublicKey
from loopd.database.rows import RowSource


class NodeKeys(Protocol):
    """The keys with which nodes sign what they owe."""

    def own(self) -> NodeKey:
        """This node's present key."""
        ...

    def keys_of(self, source: RowSource, node_id: str) -> Sequence[PublicKey]:
        """The keys of another node: the present one, and those that it replaced lately and did not revoke."""
        ...
