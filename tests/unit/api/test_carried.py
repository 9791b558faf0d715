"""Requests that nodes send over a link: the same routes, signatures and limits as by HTTP, and what offends (§9.2)."""

from collections.abc import Callable
from typing import Any

import pytest

from loopd.api.access import AccessControl, Plane
from loopd.api.answers import Answer, json_answer
from loopd.api.dispatcher import Dispatcher, Serving
from loopd.api.limits import RateLimits
from loopd.api.matching import RouteTable
from loopd.api.metrics import RequestMetrics
from loopd.api.requests import Principal, Request
from loopd.api.routes import Access, Body, RateClass, Route, Success
from loopd.api.settings import ApiSettings
from loopd.gossip.frames import Request as RequestFrame
from loopd.gossip.frames import Response, decode_batch, encode_batch
from loopd.protocol.errors import Invalid, Unauthorized
from loopd.protocol.json_text import read_json
from loopd.protocol.limits import LINK_BODY_MAX_BYTES
from tests.support import ManualClock

PEER = "vienna.loop"
HEADERS = (("X-Node-ID", PEER), ("Content-Type", "application/ld+json"))


class Caller:
    node_id = PEER

    def __init__(self, verified: bool = True) -> None:
        self.verified = verified


class Authenticator:
    """Takes every signature but `bad`."""

    async def authenticate(self, method: str, target: str, headers: Any, body: bytes) -> Caller:
        if headers.get("X-Node-Signature") == "bad":
            raise Unauthorized("bad_signature", "it does not hold")
        return Caller(verified=headers.get("X-Node-Signature") != "lab")


class Noted:
    def __init__(self) -> None:
        self.reasons: list[tuple[str, str]] = []

    def refused(self, node_id: str, reason: str) -> None:
        self.reasons.append((node_id, reason))


class NoTokens:
    def verify(self, text: str) -> Principal:
        raise Unauthorized("bad_token", "there are none")


class Stage:
    """One dispatcher with a node's route, an open one, and one that fails."""

    def __init__(self, **settings: Any) -> None:
        self.offences = Noted()
        self.seen: list[Request] = []
        self.serving = Serving()
        self.failing: Exception | None = None
        self.answer = json_answer({"status": "accepted", "id": 1}, 202)
        node: dict[str, Any] = {"access": Access.NODE, "rate": RateClass.NODE, "body": Body.REQUIRED}
        routes = [
            self._route("POST", "/api/v1/federate/offer", **node),
            self._route("GET", "/api/v1/node/info"),
        ]
        limits = ApiSettings(**settings)
        self.dispatcher = Dispatcher(
            RouteTable(routes),
            Plane.PUBLIC,
            limits,
            AccessControl(Plane.PUBLIC, NoTokens()),
            RateLimits(limits, ManualClock()),
            RequestMetrics(),
            self.serving,
            Authenticator(),
            self.offences,
        )

    def _route(self, method: str, path: str, **rest: Any) -> Route:
        success = {202: Success(description="Taken")}
        return Route(
            method=method, path=path, handler=self._take, noun="Federation", summary="s", successes=success, **rest
        )

    async def _take(self, request: Request) -> Answer:
        self.seen.append(request)
        if self.failing is not None:
            raise self.failing
        return self.answer

    async def send(
        self,
        path: str = "/api/v1/federate/offer",
        headers: tuple[tuple[str, str], ...] = HEADERS,
        body: bytes = b'{"a": 1}',
        method: str = "POST",
    ) -> Response:
        response = await self.dispatcher.handle_carried(PEER, RequestFrame(7, method, path, headers, body))
        # Whatever it is, a link takes it.
        assert decode_batch(encode_batch([response])) == [response]
        assert response.number == 7
        return response


def reason(response: Response) -> str:
    return str(read_json(response.body)["error"]["details"]["reason"])


async def test_a_request_over_a_link_is_answered_by_its_route() -> None:
    stage = Stage()
    response = await stage.send()
    assert (response.status, dict(response.headers)["Content-Type"]) == (202, "application/json")
    (request,) = stage.seen
    assert (request.node.node_id, request.body, request.target) == (PEER, b'{"a": 1}', "/api/v1/federate/offer")
    assert stage.offences.reasons == []
    with pytest.raises(RuntimeError):
        _ = request.http


@pytest.mark.parametrize(
    ("sent", "status", "found"),
    [
        ({"path": "/api/v1/node/info", "method": "GET"}, 404, "unknown_path"),
        ({"path": "/api/v1/nothing"}, 404, "unknown_path"),
        ({"method": "GET"}, 405, "method_not_allowed"),
        ({"path": "/api/v1/federate/offer?a=1"}, 400, "unknown_parameter"),
        ({"headers": (("X-Node-ID", PEER),)}, 415, "unsupported_media_type"),
        ({"headers": (("X-Node-ID", "berlin.loop"), HEADERS[1])}, 401, "bad_signature"),
        ({"headers": (HEADERS[1],)}, 401, "bad_signature"),
        ({"headers": (*HEADERS, ("X-Node-Signature", "bad"))}, 401, "bad_signature"),
    ],
)
async def test_what_would_be_refused_by_http_is_refused(sent: dict[str, Any], status: int, found: str) -> None:
    stage = Stage()
    response = await stage.send(**sent)
    assert (response.status, reason(response)) == (status, found)
    assert stage.seen == []
    # Over a link it is certain who sent what does not hold.
    assert stage.offences.reasons == ([(PEER, "bad_link_signature")] if found == "bad_signature" else [])


@pytest.mark.parametrize("signature", ["", "lab"])
async def test_a_document_that_is_none_counts_against_who_signed_it(signature: str) -> None:
    stage = Stage()
    stage.failing = Invalid("schema", "no such document")
    response = await stage.send(headers=(*HEADERS, ("X-Node-Signature", signature)))
    assert (response.status, reason(response)) == (400, "schema")
    assert stage.offences.reasons == ([] if signature == "lab" else [(PEER, "schema")])


async def test_a_nodes_share_of_requests_counts_over_links_too() -> None:
    stage = Stage(node_requests_per_minute=3)
    statuses = [(await stage.send()).status for _ in range(5)]
    assert statuses == [202, 202, 202, 429, 429]
    assert "Retry-After" in dict((await stage.send()).headers)
    assert stage.offences.reasons == [(PEER, "over_share")] * 3


async def test_while_the_node_stops_nothing_is_taken() -> None:
    stage = Stage()
    stage.serving.draining = True
    assert reason(await stage.send()) == "draining"


@pytest.mark.parametrize(
    "break_it",
    [
        lambda stage: setattr(stage, "failing", RuntimeError("a bug")),
        lambda stage: setattr(stage, "answer", Answer(200, b"x" * (LINK_BODY_MAX_BYTES + 1))),
    ],
    ids=["bug", "too long"],
)
async def test_a_bug_is_answered_without_any_detail(break_it: Callable[[Stage], None]) -> None:
    stage = Stage()
    break_it(stage)
    response = await stage.send()
    assert (response.status, reason(response)) == (500, "internal_error")
