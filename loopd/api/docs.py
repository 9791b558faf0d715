"""`/openapi.json` and `/docs`: what a listener serves, for machines and for people, from the same routes."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from loopd.api.answers import Answer, html_answer
from loopd.api.openapi import Schemas, nouns_of, openapi_document
from loopd.api.requests import Request
from loopd.api.routes import Access, Body, Route, Scope, Success, refusals_of
from loopd.protocol.json_text import dump_json


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiIdentity:
    """What the descriptions call this API. `base_url` is where a client reaches it, without a path."""

    title: str
    version: str
    base_url: str


@dataclass(frozen=True, slots=True)
class _Descriptions:
    openapi: bytes
    page: str


class DocsRoutes:
    """Until `describe` nothing may be asked.

    Rendered when somebody asks for the first time: that takes a fifth of what a node's start costs.
    """

    def __init__(self, identity: ApiIdentity) -> None:
        self._identity = identity
        self._routes: Sequence[Route] = ()
        self._schemas: Schemas = {}
        self._made: _Descriptions | None = None
        self._making = asyncio.Lock()

    def describe(self, routes: Sequence[Route], schemas: Schemas) -> None:
        """Both descriptions are of exactly these routes."""
        self._routes = routes
        self._schemas = schemas

    async def _descriptions(self) -> _Descriptions:
        """Both, made once and not on the loop. ValueError for a schema that there is not."""
        async with self._making:
            if self._made is None:
                self._made = await asyncio.to_thread(self._make)
            return self._made

    def _make(self) -> _Descriptions:
        identity = self._identity
        document = openapi_document(
            self._routes, self._schemas, title=identity.title, version=identity.version, server_url=identity.base_url
        )
        return _Descriptions(dump_json(document), _render(self._routes, document, identity))

    def routes(self) -> list[Route]:
        return [
            Route(
                method="GET",
                path="/openapi.json",
                handler=self._show_openapi,
                noun="Node",
                summary="This description for machines: OpenAPI 3.1",
                successes={200: Success(description="The description", schema={"type": "object"})},
            ),
            Route(
                method="GET",
                path="/docs",
                handler=self._show_page,
                noun="Node",
                summary="This description for people",
                successes={200: Success(description="A page", content_type="text/html")},
            ),
            _file_route("style.css", "docs.css", "text/css; charset=utf-8", "The page's style sheet"),
            _file_route(
                "icon.svg", "icon.svg", "image/svg+xml", "The page's icon, so that a browser asks for no other"
            ),
        ]

    async def _show_openapi(self, request: Request) -> Answer:
        return Answer(200, (await self._descriptions()).openapi)

    async def _show_page(self, request: Request) -> Answer:
        return html_answer((await self._descriptions()).page)


def _file_route(name: str, template: str, content_type: str, summary: str) -> Route:
    """Something that belongs to the page, as it is shipped."""
    body = (files("loopd.api") / "templates" / template).read_bytes()

    async def show(request: Request) -> Answer:
        return Answer(200, body, content_type, {"Cache-Control": "max-age=3600"})

    media_type = content_type.partition(";")[0]
    return Route(
        method="GET",
        path=f"/docs/{name}",
        handler=show,
        noun="Node",
        summary=summary,
        successes={200: Success(description="A file of the page's", content_type=media_type)},
    )


def _render(routes: Sequence[Route], document: dict[str, Any], identity: ApiIdentity) -> str:
    environment = Environment(
        loader=PackageLoader("loopd.api"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    groups = [(noun, [_shown(route, identity) for route in routes if route.noun == noun]) for noun in nouns_of(routes)]
    page = environment.get_template("docs.html.jinja")
    return page.render(identity=identity, groups=groups, schemas=sorted(document["components"]["schemas"]))


def _shown(route: Route, identity: ApiIdentity) -> dict[str, Any]:
    return {
        "method": route.method,
        "path": route.path,
        "anchor": f"{route.method.lower()}{route.path.replace('/', '-').replace('{', '').replace('}', '')}",
        "summary": route.summary,
        "description": route.description,
        "access": access_text(route),
        "rate": route.rate.value,
        "body": _schema_text(route.request_schema) if route.body is not Body.NONE else None,
        "body_rule": route.body.value,
        "query": route.query,
        "takes_idempotency_key": route.takes_idempotency_key,
        "successes": [
            (status, success.description.rstrip("."), _schema_text(success.schema), success.content_type)
            for status, success in sorted(route.successes.items())
        ],
        "refusals": list(refusals_of(route).items()),
        "example": curl_example(route, identity.base_url),
    }


def access_text(route: Route) -> str:
    """Who may call the route, in words."""
    if isinstance(route.access, Scope):
        return f"token with scope {route.access.value}"
    if route.token_shows_more:
        return "open; a token may authorise or show more"
    return "open" if route.access is Access.OPEN else "signature of a node (§9.2)"


def curl_example(route: Route, base_url: str) -> str:
    """A call to try out. A node's call cannot be typed by hand: it is signed."""
    if route.access is Access.NODE:
        return ""
    path = route.path
    for name in route.parameter_names:
        path = path.replace(f"{{{name}}}", f"${name.upper()}")
    parts = ["curl"]
    if route.admin:
        parts.append("--unix-socket DIR/admin.sock")
        base_url = "http://localhost"
    if route.method != "GET":
        parts.append(f"-X {route.method}")
    if (isinstance(route.access, Scope) and not route.admin) or route.token_shows_more:
        parts.append('-H "Authorization: Bearer $TOKEN"')
    if route.body is not Body.NONE:
        parts.append("-H 'Content-Type: application/ld+json'")
        parts.append(f"-d '{route.example}'" if route.example else "-d @document.json")
    parts.append(f'"{base_url}{path}"')
    return " \\\n  ".join(parts) if len(parts) > 3 else " ".join(parts)


def _schema_text(schema: object) -> str | None:
    if isinstance(schema, str):
        return schema
    if isinstance(schema, dict):
        properties = schema.get("properties")
        return "{" + ", ".join(properties) + "}" if isinstance(properties, dict) else str(schema.get("type", "JSON"))
    return None
