"""Who this node is: what it says of itself and signs with."""

from dataclasses import dataclass

from loopd.crypto.keys import NodeKey
from loopd.protocol.geo import Location
from loopd.protocol.vocabulary import Feature

# What the handshake says this node can do; NodeInfo's closed list has its own words.
FEATURES: tuple[str, ...] = (
    Feature.INTEROP,
    Feature.FLOOD,
    Feature.LINK,
    Feature.PRODUCTS,
    Feature.MIRROR,
    Feature.WANTED,
    Feature.KEY_ROTATION,
)
NODE_INFO_CAPABILITIES: tuple[str, ...] = ("material-registry", "loopcoin", "loopsignal", "websocket")


@dataclass(slots=True)
class Identity:
    """One city's node. `endpoint` ends in `/api/v1`; `context_url` is the JSON-LD context it emits.

    Only the key ever changes, when it is rotated: whoever signs takes it from here each time.
    """

    node_id: str
    name: str
    city: str
    country: str
    location: Location
    endpoint: str
    key: NodeKey
    context_url: str
