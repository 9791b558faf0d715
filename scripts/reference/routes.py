"""docs/api.md: every route, from the same table that serves it."""

import asyncio
import tempfile
from pathlib import Path

from loopd.api.docs import access_text
from loopd.api.routes import Route, refusals_of
from loopd.clock import SystemClock
from loopd.crypto.keys import NodeKey
from loopd.daemon import Node
from loopd.database import Database
from loopd.directory import NodeDirectory
from loopd.identity import Identity
from loopd.net import tls
from loopd.net.dial_guard import DialGuard
from loopd.net.http_client import PeerClient
from loopd.protocol.contexts import context_url
from loopd.protocol.geo import Location
from loopd.settings import parse_settings
from loopd.settings.example import example_toml

_INTRODUCTION = """# API

Generated from the table of routes. A running node shows the same at `/docs`, with examples, and for machines at
`/openapi.json`. What holds for every route:

- Documents are JSON or JSON-LD in UTF-8, of at most 1 MiB. Entities are answered as `application/ld+json`, all else
  as `application/json`.
- Writing takes `Authorization: Bearer TOKEN` with the scope named; `admin` implies the others. `loopd token create`
  makes tokens. On the operator's socket no token is asked for.
- A refusal is `{"error": {"code", "message", "details"}}`, and `details.reason` is one of the words listed.
"""


def routes_page() -> str:
    """The page."""
    parts = [_INTRODUCTION]
    routes = asyncio.run(served_routes())
    for noun in dict.fromkeys(route.noun for route in routes):
        parts.append(f"## {noun}\n")
        parts += [_entry(route) for route in routes if route.noun == noun]
    return "\n".join(parts)


async def served_routes() -> tuple[Route, ...]:
    """The routes of a node that never listens; the operator's listener serves all."""
    settings = parse_settings(example_toml(), "example", {})
    node = settings.node
    identity = Identity(
        node.id,
        node.name,
        node.city,
        node.country,
        Location(node.lat, node.lon),
        node.endpoint,
        NodeKey.from_seed(bytes(32)),
        context_url(node.context_host),
    )
    clock = SystemClock()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "loopd.db"
        async with await Database.create(path, settings.database, clock) as database:
            client = PeerClient(DialGuard((), open_all=False), tls.client_context(), clock)
            try:
                _, admin = Node(NodeDirectory(Path(directory)), settings, identity, database, client, client).apps()
                return admin.routes
            finally:
                await client.close()


def _entry(route: Route) -> str:
    lines = [f"### `{route.method} {route.path}`\n", f"{route.summary}. {route.description}".strip() + "\n"]
    lines.append(f"- access: {access_text(route)}{'; operator only' if route.admin else ''}")
    for status, success in route.successes.items():
        schema = f": `{success.schema}`" if isinstance(success.schema, str) else ""
        lines.append(f"- {status}{schema} ({success.content_type})")
    for status, reasons in refusals_of(route).items():
        lines.append(f"- {status}: {', '.join(f'`{reason}`' for reason in reasons)}")
    return "\n".join(lines) + "\n"
