"""Set reconciliation: two nodes find what one of them missed, in few round trips and few bytes an item.

The wire is negentropy v1, so that it can be held against other implementations; the comparison of TTLs that follows is
this project's own. Pure: bytes in, bytes out. See docs/protocol-notes.md, Repair.
"""

from loopd.gossip.reconciliation.items import Items, ItemSet
from loopd.gossip.reconciliation.session import Initiator, Offer, Responder

__all__ = ["Initiator", "ItemSet", "Items", "Offer", "Responder"]
