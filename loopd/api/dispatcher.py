"""The way of a request: id, path, limits, who asks, body, handler, answer. Every refusal leaves through one door."""

import asyncio
from dataclasses import dataclass
from time import perf_counter
from typing import Final

import structlog
from aiohttp import web
from multidict import CIMultiDict

from loopd.api.access import AccessControl, NodeAuthenticator, Offences, Plane
from loopd.api.answers import Answer, bug_answer, http_response, refusal_answer
from loopd.api.client_address import LOCAL_CLIENT, ClientAddresses
from loopd.api.idempotency import idempotency_key
from loopd.api.limits import RateLimits
from loopd.api.matching import MethodNotAllowed, RouteTable
from loopd.api.metrics import RequestMetrics
from loopd.api.query import parse_query
from loopd.api.request_context import begin_request
from loopd.api.requests import BodyBudget, Request, check_content_type, read_body
from loopd.api.routes import Access, Body, RateClass, Route
from loopd.api.settings import ApiSettings
from loopd.gossip import frames
from loopd.protocol.errors import Invalid, NotFound, Refusal, Unauthorized, Unavailable
from loopd.protocol.limits import LINK_BODY_MAX_BYTES
from loopd.protocol.signing import X_NODE_ID

_NO_ROUTE: Final = "(none)"
# §8.2: what nodes send each other; some of it, as what is stated about keys, asks for its signature by itself.
_BETWEEN_NODES: Final = "/api/v1/federate/"
_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(slots=True)
class Serving:
    """Whether the node takes requests, shared by its listeners."""

    draining: bool = False


class Dispatcher:
    """Handles the requests of one listener. Its `handle...` never raise but when they are cancelled."""

    def __init__(
        self,
        table: RouteTable,
        plane: Plane,
        settings: ApiSettings,
        access: AccessControl,
        limits: RateLimits,
        metrics: RequestMetrics,
        serving: Serving,
        node_authenticator: NodeAuthenticator | None,
        offences: Offences,
    ) -> None:
        self._table = table
        self._plane = plane
        self._settings = settings
        self._access = access
        self._limits = limits
        self._metrics = metrics
        self._serving = serving
        self._node_authenticator = node_authenticator
        self._offences = offences
        self._addresses = ClientAddresses(settings.trusted_proxies)
        self._bodies = BodyBudget()
        # Bound once: a line that the level leaves out then costs next to nothing.
        self._log = structlog.get_logger(__name__).bind()
        self._idle: asyncio.Event | None = None
        self._in_work = 0
        self.running = 0

    async def wait_until_idle(self) -> None:
        """Return when no request is being handled."""
        while self.running:
            self._idle = asyncio.Event()
            await self._idle.wait()

    async def handle(self, http: web.BaseRequest) -> web.StreamResponse:
        """Answer one request, whatever it is."""
        started_s = perf_counter()
        request_id = begin_request(http.headers.get("X-Request-Id"))
        route: Route | None = None
        self.running += 1
        awaited = True
        try:
            client = self._client(http)
            try:
                self._check_serving()
                target, path, query_string = _split_target(http.raw_path)
                route, parameters = self._table.find(http.method, path)
            except (Refusal, MethodNotAllowed):
                self._count(RateClass.USER, client)
                raise
            self._count(route.rate, client)
            if route.lasting:
                awaited = False
                self._left()
            request = Request(
                id=request_id,
                method=http.method,
                target=target,
                path=path,
                parameters=parameters,
                query=parse_query(query_string, route.query),
                headers=http.headers,
                client=client,
                connection=http,
                principal=self._access.principal(route, http.headers),
                idempotency_key=idempotency_key(http.headers) if route.takes_idempotency_key else None,
            )
            answer = await self._run(route, request, http)
        except Refusal as refusal:
            answer = refusal_answer(refusal)
        except MethodNotAllowed as mismatch:
            answer = _method_answer(http.method, mismatch)
        except Exception:
            self._log.exception("a request failed", route=route.key if route else _NO_ROUTE)
            answer = bug_answer()
        finally:
            if awaited:
                self._left()
        if not isinstance(answer, Answer):
            # How long a connection was kept is no time that anybody waited for an answer.
            self._observe(answer.status, http.method, route, 0.0)
            return answer
        self._observe(answer.status, http.method, route, perf_counter() - started_s)
        return self._finished(answer, request_id)

    async def handle_carried(self, peer: str, sent: frames.Request) -> frames.Response:
        """Answer a node's request that came over its link, as if it had come by HTTP; only its own, to node routes."""
        started_s = perf_counter()
        request_id = begin_request(None)
        route: Route | None = None
        self.running += 1
        try:
            self._check_serving()
            route, request = self._carried_request(request_id, peer, sent)
            answer = _whole(await self._call(route, request))
        except Refusal as refusal:
            answer = refusal_answer(refusal)
            if refusal.reason == "bad_signature":
                # Who sent this is certain: the link was made by showing its key.
                self._offences.refused(peer, "bad_link_signature")
        except MethodNotAllowed as mismatch:
            answer = _method_answer(sent.method, mismatch)
        except Exception:
            self._log.exception("a request failed", route=route.key if route else _NO_ROUTE)
            answer = bug_answer()
        finally:
            self._left()
        self._observe(answer.status, sent.method, route, perf_counter() - started_s, link=peer)
        response = self._finished(answer, request_id)
        headers = tuple((str(name), value) for name, value in response.headers.items())
        return frames.Response(sent.number, answer.status, headers, answer.body)

    def _carried_request(self, request_id: str, peer: str, sent: frames.Request) -> tuple[Route, Request]:
        """The request as its handler gets it. Everything is checked that can be before its signature is."""
        self._count_share(f"link:{peer}", peer)
        target, path, query_string = _split_target(sent.path)
        route, parameters = self._table.find(sent.method, path)
        headers = CIMultiDict(sent.headers)
        if route.lasting or (route.access is not Access.NODE and not route.path.startswith(_BETWEEN_NODES)):
            raise NotFound("unknown_path", "Over a link nodes send each other what only nodes send.")
        if headers.get(X_NODE_ID) != peer:
            raise Unauthorized("bad_signature", "over a link a node sends what it signed itself")
        if route.body is Body.REQUIRED:
            check_content_type(headers)
        request = Request(
            id=request_id,
            method=sent.method,
            target=target,
            path=path,
            parameters=parameters,
            query=parse_query(query_string, route.query),
            headers=headers,
            client=f"link:{peer}",
            body=sent.body,
        )
        if sent.body:
            _check_body(route, request, sent.body)
        return route, request

    def _left(self) -> None:
        """One request less that the end of serving waits for."""
        self.running -= 1
        if self._idle is not None and not self.running:
            self._idle.set()

    async def _run(self, route: Route, request: Request, http: web.BaseRequest) -> Answer | web.StreamResponse:
        if not http.body_exists and route.body is not Body.REQUIRED:
            return await self._call(route, request)
        if route.body is Body.REQUIRED:
            check_content_type(http.headers)
        await _answer_expectation(http)
        body = await read_body(
            http.content, http.content_length, self._bodies, self._settings.body_timeout_s, route.body_max_bytes
        )
        try:
            if body:
                _check_body(route, request, body)
            request.body = body
            return await self._call(route, request)
        finally:
            self._bodies.give_back(len(body))

    async def _call(self, route: Route, request: Request) -> Answer | web.StreamResponse:
        if route.lasting:
            return await route.handler(request)
        # Counted from here, so that bodies which trickle in take no place from requests that are there.
        if self._in_work >= self._settings.max_concurrent_requests and route.rate is not RateClass.NONE:
            raise Unavailable("overloaded", "Too many requests at once.", retry_after_s=1)
        self._in_work += 1
        try:
            await self._authenticate_node(route, request)
            return await route.handler(request)
        except Refusal as refusal:
            caller = request.caller
            if caller is not None and caller.verified:
                self._offences.refused(caller.node_id, refusal.reason)
            raise
        finally:
            self._in_work -= 1

    async def _authenticate_node(self, route: Route, request: Request) -> None:
        if route.access is not Access.NODE:
            return
        if self._node_authenticator is None:
            raise RuntimeError(f"{route.key} needs a node authenticator")
        caller = await self._node_authenticator.authenticate(
            request.method, request.target, request.headers, request.body
        )
        request.caller = caller
        if not self._plane.is_admin:
            self._count_share(caller.node_id, caller.node_id if caller.verified else None)

    def _check_serving(self) -> None:
        if self._serving.draining:
            raise Unavailable("draining", "The node is stopping.", retry_after_s=10)

    def _client(self, http: web.BaseRequest) -> str:
        if self._plane is Plane.ADMIN_SOCKET:
            return LOCAL_CLIENT
        return self._addresses.client(http.remote or "", http.headers.getall("X-Forwarded-For", ()))

    def _count(self, rate: RateClass, client: str) -> None:
        if not self._plane.is_admin:
            self._limits.count_client(rate, client)

    def _observe(self, status: int, method: str, route: Route | None, seconds: float, **facts: str) -> None:
        name = route.key if route is not None else _NO_ROUTE
        self._metrics.observe(name, status, seconds)
        if route is None or not route.unlogged:
            log = self._log.debug if method in _READING else self._log.info
            log("request", route=name, status=status, duration_ms=round(seconds * 1000, 2), **facts)

    def _count_share(self, counted_as: str, node_id: str | None) -> None:
        """Count a request of a node; one beyond its share is held against it, where it is certain whose it is."""
        try:
            self._limits.count_node(counted_as)
        except Refusal:
            if node_id is not None:
                self._offences.refused(node_id, "over_share")
            raise

    def _finished(self, answer: Answer, request_id: str) -> web.Response:
        response = http_response(answer, request_id)
        if self._serving.draining:
            response.force_close()
        return response


def _split_target(target: str) -> tuple[str, str, str]:
    """The request's target as sent, its path, its query string. An absolute form (RFC 9112 §3.2.2) loses its origin."""
    if not target.startswith("/"):
        target = _without_origin(target)
    path, _, query_string = target.partition("?")
    return target, path, query_string


def _without_origin(target: str) -> str:
    scheme, separator, rest = target.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise NotFound("unknown_path", "There is nothing at this path; /docs lists what there is.")
    _, slash, path = rest.partition("/")
    return slash + path or "/"


async def _answer_expectation(http: web.BaseRequest) -> None:
    expectation = http.headers.get("Expect")
    if expectation is None:
        return
    if expectation.strip().lower() != "100-continue":
        raise Refusal(417, "expectation_failed", "The only expectation met here is 100-continue.")
    await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    # What was sent so far is not yet the answer.
    http.writer.output_size = 0


def _whole(answer: Answer | web.StreamResponse) -> Answer:
    if not isinstance(answer, Answer) or len(answer.body) > LINK_BODY_MAX_BYTES:
        raise RuntimeError("what nodes are answered fits a frame")
    return answer


def _check_body(route: Route, request: Request, body: bytes) -> None:
    if route.body is Body.NONE and body.strip() != b"{}":
        raise Invalid("unexpected_body", "Nothing is read from a body here; send none.")
    if route.body is Body.OPTIONAL:
        check_content_type(request.headers)


def _method_answer(method: str, mismatch: MethodNotAllowed) -> Answer:
    allow = {"Allow": ", ".join(mismatch.allowed)}
    if method == "OPTIONS":
        return Answer(204, headers=allow)
    details = {"allowed": list(mismatch.allowed)}
    answer = refusal_answer(Refusal(405, "method_not_allowed", "This path does not have that method.", details))
    return Answer(answer.status, answer.body, answer.content_type, {**answer.headers, **allow})
