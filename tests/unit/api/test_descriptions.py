"""`/openapi.json`, `/docs` and `/metrics` say what is served, no more and no less."""

import re
from typing import Any

import orjson
import pytest
import schemathesis

from loopd.api.docs import curl_example
from loopd.api.openapi import entity_schemas, openapi_document, operation_id
from loopd.api.routes import Access, Body, RateClass, Route, Success, refusals_of
from tests.unit.api.harness import Client, Harness


async def _nothing(request: object) -> Any:
    raise AssertionError(f"a description calls nobody: {request}")


def _route(**changes: Any) -> Route:
    base: dict[str, Any] = {"method": "GET", "path": "/x", "handler": _nothing, "noun": "X", "summary": "x"}
    return Route(**{**base, "successes": {200: Success(description="x")}, **changes})


def _described(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, item in document["paths"].items() for method in item}


async def _openapi(client: Client) -> dict[str, Any]:
    reply = await client.call("GET", "/openapi.json")
    assert reply.headers["Content-Type"] == "application/json"
    document: dict[str, Any] = reply.json()
    return document


async def test_every_route_is_described_and_nothing_else(node: Harness) -> None:
    own = {("GET", "/openapi.json"), ("GET", "/docs"), ("GET", "/docs/style.css"), ("GET", "/docs/icon.svg")}
    public = {(route.method, route.path) for route in node.routes if not route.admin}
    admin = {(route.method, route.path) for route in node.routes}
    assert _described(await _openapi(node.public)) == public | own
    assert _described(await _openapi(node.admin)) == admin | own


async def test_the_description_is_valid_openapi_and_its_references_lead_somewhere(node: Harness) -> None:
    document = await _openapi(node.admin)
    schemathesis.openapi.from_dict(document).validate()
    for pointer in re.findall(r'"\$ref":"#/([^"]+)"', orjson.dumps(document).decode()):
        found: Any = document
        for part in pointer.split("/"):
            found = found[part]
    ids = [operation["operationId"] for item in document["paths"].values() for operation in item.values()]
    assert len(ids) == len(set(ids))


async def test_a_described_refusal_has_its_envelope(node: Harness) -> None:
    operation = (await _openapi(node.public))["paths"]["/api/v1/thing"]["post"]
    assert operation["security"] == [{"token": ["material:write"]}]
    assert "`taken`" in operation["responses"]["409"]["description"]
    assert "`idempotency_mismatch`" in operation["responses"]["409"]["description"]
    for status in ("400", "401", "403", "409", "413", "415", "429", "503"):
        schema = operation["responses"][status]["content"]["application/json"]["schema"]
        assert schema == {"$ref": "#/components/schemas/Error"}


def test_entities_of_one_file_find_each_other() -> None:
    files = [
        {
            "$id": "https://example.org/node.schema.json",
            "title": "node",
            "$defs": {"Info": {"properties": {"status": {"$ref": "#/$defs/Status"}}}, "Status": {"enum": ["online"]}},
        },
        {"$id": "urn:a", "$schema": "x", "title": "Alone", "properties": {"a": {"$ref": "#/$defs/B"}}},
    ]
    schemas = entity_schemas(files)
    assert set(schemas) == {"Info", "Status", "Alone"}
    route = _route(successes={200: Success(description="x", schema="Info")})
    document = openapi_document([route], schemas, title="x", version="1")
    components = document["components"]["schemas"]
    assert components["Info"]["properties"]["status"] == {"$ref": "#/components/schemas/Status"}
    assert set(components) == {"Info", "Status", "Error"}


def test_an_entitys_own_definitions_stay_inside_it() -> None:
    alone = {"$id": "urn:a", "$defs": {"B": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/B"}}}
    route = _route(successes={200: Success(description="x", schema="Alone")})
    document = openapi_document([route], {"Alone": alone}, title="x", version="1")
    component = document["components"]["schemas"]["Alone"]
    assert component["properties"]["a"]["$ref"] == "#/components/schemas/Alone/$defs/B"
    assert "$id" not in component


def test_a_schema_that_there_is_not_stops_the_start() -> None:
    route = _route(successes={200: Success(description="x", schema="Ghost")})
    with pytest.raises(ValueError, match="Ghost"):
        openapi_document([route], {}, title="x", version="1")
    elsewhere = {"Thing": {"$ref": "https://example.org/other.json"}}
    route = _route(successes={200: Success(description="x", schema="Thing")})
    with pytest.raises(ValueError, match="another file"):
        openapi_document([route], elsewhere, title="x", version="1")


def test_what_follows_from_a_declaration_is_listed() -> None:
    signed = _route(method="POST", access=Access.NODE, rate=RateClass.NODE, body=Body.REQUIRED)
    assert "clock_skew" in refusals_of(signed)[401]
    assert refusals_of(signed)[403] == ("suspended", "banned")
    assert "unexpected_body" in refusals_of(_route())[400]
    assert 429 not in refusals_of(_route(rate=RateClass.NONE))
    assert operation_id(_route(method="POST", path="/api/v1/material/{id}/announce")) == "post_material_id_announce"


def test_a_route_that_contradicts_itself_is_no_route() -> None:
    for changes in ({"path": "x"}, {"method": "get"}, {"access": Access.NODE}):
        with pytest.raises(ValueError):
            _route(**changes)


async def test_the_page_names_every_route_and_loads_nothing_from_outside(node: Harness) -> None:
    reply = await node.admin.call("GET", "/docs")
    page = reply.body.decode()
    assert reply.headers["Content-Security-Policy"].startswith("default-src 'none'; style-src 'self'")
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    for route in node.routes:
        assert f"<code>{route.path}</code>" in page
    assert "material:write" in page
    assert "Authorization: Bearer $TOKEN" in page
    assert not re.search(r"<script|<style|style=|javascript:|src=|\son\w+=", page)
    assert re.findall(r'<link[^>]+href="([^"]+)"', page) == ["/docs/style.css", "/docs/icon.svg"]
    anchors = re.findall(r'<article id="([^"]+)"', page)
    assert sorted(anchors) == sorted(set(anchors))
    assert set(re.findall(r'href="#([^"]+)"', page)) == {*anchors, "top"}
    style = await node.admin.call("GET", "/docs/style.css")
    assert style.headers["Content-Type"] == "text/css; charset=utf-8"
    assert b"prefers-color-scheme: dark" in style.body
    assert b"url(" not in style.body
    icon = await node.admin.call("GET", "/docs/icon.svg")
    assert icon.headers["Content-Type"] == "image/svg+xml"
    assert icon.body.startswith(b"<svg ")


async def test_descriptions_on_the_page_are_for_people(node: Harness) -> None:
    page = (await node.admin.call("GET", "/docs")).body.decode()
    assert "Read a thing. With <code>&lt;id&gt;</code> alone." in page
    assert "None" not in page


def test_a_call_that_a_token_may_authorise_shows_where_the_token_goes() -> None:
    assert "$TOKEN" in curl_example(_route(token_shows_more=True), "https://munich.example")
    assert "$TOKEN" not in curl_example(_route(), "https://munich.example")


async def test_metrics_count_by_route_and_status_never_by_path(node: Harness) -> None:
    for name in ("a", "b"):
        await node.public.call("GET", f"/api/v1/thing/{name}")
    await node.public.call("GET", "/api/v1/ghost")
    text = (await node.admin.call("GET", "/metrics")).body.decode()
    assert 'loopd_http_requests_total{route="GET /api/v1/thing/{id}",status="200"} 2.0' in text
    assert 'loopd_http_requests_total{route="(none)",status="404"} 1.0' in text
    assert "ghost" not in text
