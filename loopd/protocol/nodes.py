"""What this node knows of another one."""

from dataclasses import dataclass
from enum import StrEnum

from loopd.protocol.geo import Location
from loopd.protocol.vocabulary import LOOPD_FEATURES


class Standing(StrEnum):
    """How a known node stands to this one (see docs/protocol-notes.md, Peers)."""

    PEER = "peer"
    PENDING = "pending"  # asked to be a peer; it has not accepted yet
    INTRODUCED = "introduced"  # its key came from a peer; may send targeted requests, may not announce
    SUSPENDED = "suspended"  # set aside by the operator


class PeerAuth(StrEnum):
    """How a node's requests are authenticated."""

    SIGNED = "signed"
    UNSIGNED_LAB = "unsigned-lab"  # a lab node that sends a placeholder; admitted by the operator alone


@dataclass(frozen=True, slots=True)
class KnownNode:
    """Another node: who it is, where it is, and what it can do.

    `named_by_operator`: the operator gave its endpoint, so it may lie in a private network.
    """

    node_id: str
    standing: Standing
    auth: PeerAuth
    endpoint: str
    public_key: bytes | None
    location: Location | None
    features: frozenset[str]
    named_by_operator: bool
    name: str | None = None

    @property
    def is_loopd(self) -> bool:
        """Whether it speaks this project's extensions; any other LOOP node is spoken to in the plain forms of §8.2."""
        return not self.features.isdisjoint(LOOPD_FEATURES)
