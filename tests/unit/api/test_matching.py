"""Paths and query strings, without a socket."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopd.api.matching import MethodNotAllowed, RouteTable
from loopd.api.query import parse_query
from loopd.api.routes import LIMIT, QueryParameter, Route, Success
from loopd.protocol.errors import Invalid, NotFound


async def _nothing(request: object) -> Any:
    raise NotImplementedError(request)


def _route(method: str, path: str) -> Route:
    successes = {200: Success(description="x")}
    return Route(method=method, path=path, handler=_nothing, noun="X", summary="x", successes=successes)


TABLE = RouteTable(
    [
        _route("GET", "/health"),
        _route("GET", "/api/v1/material"),
        _route("POST", "/api/v1/material"),
        _route("POST", "/api/v1/material/search"),
        _route("GET", "/api/v1/material/{id}"),
        _route("POST", "/api/v1/material/{id}/offers/{offer}"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "key", "parameters"),
    [
        ("GET", "/health", "GET /health", {}),
        ("HEAD", "/health", "GET /health", {}),
        ("POST", "/api/v1/material", "POST /api/v1/material", {}),
        ("POST", "/api/v1/material/search", "POST /api/v1/material/search", {}),
        ("GET", "/api/v1/material/MAT-1", "GET /api/v1/material/{id}", {"id": "MAT-1"}),
        ("GET", "/api/v1/material/M%C3%BC%20n", "GET /api/v1/material/{id}", {"id": "Mü n"}),
        ("GET", "/api/v1/material/a+b", "GET /api/v1/material/{id}", {"id": "a+b"}),
        (
            "POST",
            "/api/v1/material/M/offers/O",
            "POST /api/v1/material/{id}/offers/{offer}",
            {"id": "M", "offer": "O"},
        ),
    ],
)
def test_a_path_finds_its_route(method: str, path: str, key: str, parameters: dict[str, str]) -> None:
    route, found = TABLE.find(method, path)
    assert (route.key, found) == (key, parameters)


def test_a_missing_method_names_the_others() -> None:
    with pytest.raises(MethodNotAllowed) as mismatch:
        TABLE.find("DELETE", "/api/v1/material")
    assert mismatch.value.allowed == ("GET", "HEAD", "OPTIONS", "POST")


def test_a_route_is_declared_once() -> None:
    with pytest.raises(ValueError, match="twice"):
        RouteTable([_route("GET", "/x/{id}"), _route("GET", "/x/{name}")])


@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_any_path_is_found_or_refused(tail: str) -> None:
    try:
        _, parameters = TABLE.find("GET", f"/api/v1/material/{tail}")
    except (NotFound, MethodNotAllowed):
        return
    assert all(value.isprintable() and "/" not in value for value in parameters.values())


@given(st.text(st.characters(codec="latin-1"), max_size=60))
def test_any_query_is_typed_or_refused(query: str) -> None:
    kind = QueryParameter(name="kind", description="Which.")
    try:
        found = parse_query(query, (LIMIT, kind))
    except Invalid:
        return
    limit = found["limit"]
    assert isinstance(limit, int)
    assert 1 <= limit <= 100


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("100", 100), ("007", 7)])
def test_a_limit_inside_the_bounds(text: str, value: int) -> None:
    assert parse_query(f"limit={text}", (LIMIT,)) == {"limit": value}


def test_an_unbounded_integer_still_fits_the_database() -> None:
    number = QueryParameter(name="n", description="N.", kind=int, reason="bad_n")
    assert parse_query("n=-5", (number,)) == {"n": -5}
    with pytest.raises(Invalid):
        parse_query("n=" + "9" * 19, (number,))
