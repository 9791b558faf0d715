"""`/admin/v1/peers`: the operator's side of the federation."""

from typing import Any, Final

from loopd.api.answers import Answer, json_answer
from loopd.api.request_form import RequestForm
from loopd.api.requests import Request
from loopd.api.routes import Body, Route, Scope, Success
from loopd.federation.handshake import HandshakeFailed
from loopd.federation.requests import normalise_endpoint
from loopd.federation.service import Federation, PeerAdded
from loopd.identity import Identity
from loopd.protocol.errors import Conflict, Invalid, NotFound
from loopd.protocol.nodes import PeerAuth

_AUTH = {"type": "string", "enum": [auth.value for auth in PeerAuth], "default": PeerAuth.SIGNED.value}
_ADD: Final = RequestForm(
    {
        "type": "object",
        "required": ["url"],
        "properties": {"url": {"type": "string", "description": "The other node's https address."}, "auth": _AUTH},
        "additionalProperties": False,
    }
)
_APPROVE: Final = RequestForm({"type": "object", "properties": {"auth": _AUTH}, "additionalProperties": False})


class PeerRoutes:
    """Add, approve, suspend, resume and remove peers."""

    def __init__(self, identity: Identity, federation: Federation) -> None:
        self._identity = identity
        self._federation = federation

    def routes(self) -> list[Route]:
        def route(method: str, path: str, summary: str, **rest: Any) -> Route:
            return Route(
                method=method, path=path, summary=summary, noun="Peers", access=Scope.ADMIN, admin=True, **rest
            )

        moved = {200: Success(description="Done")}
        return [
            route(
                "GET",
                "/admin/v1/peers",
                "The peers, with health, queue and fingerprint",
                handler=self._list,
                successes={200: Success(description="All of them")},
            ),
            route(
                "POST",
                "/admin/v1/peers",
                "Shake hands with a node",
                handler=self._add,
                body=Body.REQUIRED,
                request_schema=_ADD.schema,
                successes={200: Success(description="What came of it, with both fingerprints")},
                refusals={400: ("bad_endpoint",), 409: ("handshake_failed",)},
                repeatable=False,
            ),
            route(
                "POST",
                "/admin/v1/peers/{id}/approve",
                "Admit a node whose handshake waits",
                handler=self._approve,
                body=Body.OPTIONAL,
                request_schema=_APPROVE.schema,
                successes={200: Success(description="Admitted; the handshake back follows at once")},
                refusals={409: ("handshake_failed",)},
                repeatable=False,
            ),
            route(
                "POST",
                "/admin/v1/peers/{id}/suspend",
                "Set a peer aside",
                handler=self._suspend,
                successes=moved,
                refusals={404: ("unknown_peer",)},
                repeatable=False,
            ),
            route(
                "POST",
                "/admin/v1/peers/{id}/resume",
                "Take a suspended peer back",
                handler=self._resume,
                successes=moved,
                refusals={404: ("unknown_peer",)},
                repeatable=False,
            ),
            route(
                "DELETE",
                "/admin/v1/peers/{id}",
                "Forget a node and its key",
                handler=self._remove,
                successes=moved,
                refusals={404: ("unknown_peer",)},
            ),
        ]

    async def _list(self, request: Request) -> Answer:
        mix = await self._federation.keeper.report()
        return json_answer({"peers": await self._federation.peer_list(), "mix": mix})

    async def _add(self, request: Request) -> Answer:
        value = _ADD.read(request.body)
        try:
            endpoint = normalise_endpoint(value["url"])
        except ValueError as error:
            raise Invalid("bad_endpoint", str(error), {"pointer": "/url"}) from error
        try:
            return self._answer(await self._federation.add_peer(endpoint, _auth(value)))
        except HandshakeFailed as error:
            raise Conflict("handshake_failed", str(error)) from error

    async def _approve(self, request: Request) -> Answer:
        value = _APPROVE.read(request.body)
        try:
            added = await self._federation.approve_peer(request.parameters["id"], _auth(value))
        except HandshakeFailed as error:
            raise Conflict("handshake_failed", str(error)) from error
        return self._answer(added)

    def _answer(self, added: PeerAdded) -> Answer:
        return json_answer(
            {
                "peer": {"id": added.node_id},
                "status": added.status,
                "message": added.message,
                "own_fingerprint": self._identity.key.public.fingerprint,
                "peer_fingerprint": added.fingerprint,
            }
        )

    async def _suspend(self, request: Request) -> Answer:
        node_id = request.parameters["id"]
        return _moved(node_id, "suspended", await self._federation.suspend_peer(node_id))

    async def _resume(self, request: Request) -> Answer:
        node_id = request.parameters["id"]
        return _moved(node_id, "peer", await self._federation.resume_peer(node_id))

    async def _remove(self, request: Request) -> Answer:
        node_id = request.parameters["id"]
        return _moved(node_id, "removed", await self._federation.remove_peer(node_id))


def _moved(node_id: str, status: str, moved: bool) -> Answer:
    if not moved:
        raise NotFound("unknown_peer", f"no node {node_id} stands so that this could be done")
    return json_answer({"peer": node_id, "status": status})


def _auth(value: dict[str, Any]) -> PeerAuth:
    return PeerAuth(value.get("auth", PeerAuth.SIGNED))
