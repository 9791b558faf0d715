"""The keys with which nodes sign documents that both keep; see `loopd.ledger.netting.ports`."""

from collections.abc import Sequence

from loopd.crypto.keys import NodeKey, PublicKey
from loopd.database.rows import RowSource
from loopd.federation import key_store, nodes
from loopd.identity import Identity


class SigningKeys:
    """This node's key, and those that are pinned of others."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def own(self) -> NodeKey:
        """This node's present key."""
        return self._identity.key

    def keys_of(self, source: RowSource, node_id: str) -> Sequence[PublicKey]:
        """The keys of another node: the present one, and those that it replaced lately and did not revoke."""
        known = nodes.find(source, node_id)
        present = [] if known is None or known.public_key is None else [known.public_key]
        return [PublicKey(raw) for raw in (*present, *key_store.former_keys(source, node_id))]
