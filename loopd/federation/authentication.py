"""Who sent a node request, and whether it is theirs (§9.2; see docs/protocol-notes.md, Signatures)."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from loopd.clock import Clock
from loopd.crypto.keys import PublicKey, decode_signature
from loopd.database.rows import RowSource
from loopd.federation import key_store, nodes
from loopd.protocol.errors import Forbidden, Unauthorized
from loopd.protocol.ids import is_node_id
from loopd.protocol.nodes import KnownNode, PeerAuth, Standing
from loopd.protocol.signing import (
    X_LOOP_HOP,
    X_LOOP_TTL,
    X_NODE_ID,
    X_NODE_SIGNATURE,
    X_NODE_TARGET,
    X_TIMESTAMP,
    check_timestamp,
    read_utc_timestamp,
    replay_digest,
    request_signing_string,
    signed_path,
)


@dataclass(frozen=True, slots=True)
class NodeHeaders:
    """The sender's own headers as they were sent; `target` is None where the header is absent."""

    node_id: str
    timestamp_text: str
    signature: str
    target: str | None

    @classmethod
    def read(cls, headers: Mapping[str, str]) -> "NodeHeaders":
        """Unauthorized `missing_header` where one of the three of §9.2 is absent or empty."""
        for name in (X_NODE_ID, X_TIMESTAMP, X_NODE_SIGNATURE):
            if not headers.get(name):
                raise Unauthorized("missing_header", f"a node request carries {name}", {"header": name})
        return cls(headers[X_NODE_ID], headers[X_TIMESTAMP], headers[X_NODE_SIGNATURE], headers.get(X_NODE_TARGET))

    def check_time(self, now_ms: int) -> None:
        """Unauthorized `bad_timestamp` or `clock_skew`."""
        check_timestamp(self.timestamp_text, now_ms)

    def signing_string(self, method: str, path: str, body: bytes) -> bytes:
        """What the sender signed. `path` begins at `/api/v1`."""
        try:
            return request_signing_string(method, path, self.node_id, self.timestamp_text, self.target, body)
        except ValueError as error:
            raise Unauthorized("bad_signature", "a signed header holds a line break") from error

    def verify(self, method: str, path: str, body: bytes, key: PublicKey) -> bytes:
        """The signing string, if the signature holds under the key. Unauthorized `bad_signature` otherwise."""
        signing_string = self.signing_string(method, path, body)
        try:
            signature = decode_signature(self.signature)
        except ValueError as error:
            raise Unauthorized("bad_signature", str(error)) from error
        if not key.verify(signing_string, signature):
            raise Unauthorized(
                "bad_signature", f"the signature does not hold for the key of {self.node_id}", {"key_id": key.key_id}
            )
        return signing_string

    def holds(self, method: str, path: str, body: bytes, key: PublicKey) -> bool:
        """Whether the signature holds under the key."""
        try:
            self.verify(method, path, body, key)
        except Unauthorized:
            return False
        return True

    def check_target(self, own_node_id: str) -> None:
        """Unauthorized `wrong_target` where the request names another receiver."""
        if self.target is not None and self.target != own_node_id:
            raise Unauthorized("wrong_target", f"this is {own_node_id}", {"node": own_node_id})


@dataclass(frozen=True, slots=True)
class NodeCaller:
    """Who sent a node request. `verified` is False for a lab node, whose signature is a placeholder.

    `replay_digest` is what a repeat of this request is known by.
    """

    node: KnownNode
    verified: bool
    timestamp_text: str
    signature: str
    target: str | None
    replay_digest: bytes

    @property
    def node_id(self) -> str:
        return self.node.node_id


class NodeAuthenticator:
    """Checks the sender's headers in the order of docs/protocol-notes.md.

    `settled` waits for a handshake with that node which is just under way: the other side, which already counts this
    one as its peer, must not be refused before this one has written that down. `seek` looks among the peers' registries
    for a node this one has never met, and pins it as introduced; `contacted_us` is told of every caller whose request
    held; `refuse_banned` raises Forbidden where nothing is taken from a node.
    """

    def __init__(
        self,
        own_node_id: str,
        points: RowSource,
        clock: Clock,
        settled: Callable[[str], Awaitable[None]],
        seek: Callable[[str], Awaitable[None]],
        contacted_us: Callable[[str], Awaitable[None]],
        refuse_banned: Callable[[str], None],
    ) -> None:
        self._own_node_id = own_node_id
        self._points = points
        self._clock = clock
        self._settled = settled
        self._seek = seek
        self._contacted_us = contacted_us
        self._refuse_banned = refuse_banned

    async def authenticate(self, method: str, raw_path: str, headers: Mapping[str, str], body: bytes) -> NodeCaller:
        """The caller. Unauthorized `missing_header`, `bad_timestamp`, `clock_skew`, `unknown_node`, `bad_signature`,
        `revoked_key`, `wrong_target`; Forbidden `suspended`, `banned`."""
        sent = NodeHeaders.read(headers)
        sent.check_time(self._clock.now_ms())
        node = await self._known(sent.node_id)
        path = signed_path(raw_path)
        if node.auth is PeerAuth.UNSIGNED_LAB:
            signing_string = sent.signing_string(method, path, body)
        else:
            signing_string = self._verified(node, sent, method, path, body)
        sent.check_target(self._own_node_id)
        if node.standing is Standing.SUSPENDED:
            raise Forbidden("suspended", f"{node.node_id} is suspended by this node's operator")
        self._refuse_banned(node.node_id)
        await self._contacted_us(node.node_id)
        return NodeCaller(
            node,
            node.auth is PeerAuth.SIGNED,
            sent.timestamp_text,
            sent.signature,
            sent.target,
            replay_digest(signing_string, headers.get(X_LOOP_TTL), headers.get(X_LOOP_HOP)),
        )

    def _verified(self, node: KnownNode, sent: NodeHeaders, method: str, path: str, body: bytes) -> bytes:
        """The signing string, if the signature holds under the node's key, or one that it had when it signed."""
        try:
            if node.public_key is None:
                raise Unauthorized("unknown_node", f"no key is known of {node.node_id}")
            return sent.verify(method, path, body, PublicKey(node.public_key))
        except Unauthorized:
            signed_at_ms = read_utc_timestamp(sent.timestamp_text)
            if not key_store.holds_under_former_key(
                self._points, node.node_id, signed_at_ms, lambda key: sent.holds(method, path, body, key)
            ):
                raise
            return sent.signing_string(method, path, body)

    async def _known(self, node_id: str) -> KnownNode:
        if not is_node_id(node_id) or node_id == self._own_node_id:
            raise Unauthorized("unknown_node", "X-Node-ID names no other node")
        node = nodes.find(self._points, node_id)
        if node is None or node.standing is not Standing.PEER:
            await self._settled(node_id)
            node = nodes.find(self._points, node_id)
        if node is None:
            await self._seek(node_id)
            node = nodes.find(self._points, node_id)
        if node is None:
            raise Unauthorized("unknown_node", f"{node_id} is not known here; a handshake comes first")
        return node
