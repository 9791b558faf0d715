"""Routes on listening sockets, with what a node serves beside them: tokens, limits, documentation."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from loopd.api.access import NodeAuthenticator, Plane
from loopd.api.app import ApiServices, build_app
from loopd.api.docs import ApiIdentity
from loopd.api.openapi import entity_schemas
from loopd.api.routes import Route
from loopd.api.settings import ApiSettings
from loopd.api.tokens import TokenStore
from loopd.clock import Clock
from loopd.protocol.schemas import ENTITIES_BY_FILE, schema_file

BOTH_PLANES = (Plane.PUBLIC, Plane.ADMIN_ADDRESS)
_WITHOUT_LIMITS = ApiSettings(user_requests_per_minute=0, node_requests_per_minute=0, search_requests_per_minute=0)


@asynccontextmanager
async def served(
    routes: Sequence[Route],
    clock: Clock,
    tokens: TokenStore,
    *,
    planes: Sequence[Plane] = (Plane.PUBLIC,),
    node_authenticator: NodeAuthenticator | None = None,
) -> AsyncIterator[dict[Plane, str]]:
    """Serve the routes on 127.0.0.1, without limits; gives where each plane is to be found."""
    services = ApiServices(
        settings=_WITHOUT_LIMITS,
        clock=clock,
        tokens=tokens,
        identity=ApiIdentity(title="Munich", version="0.1.0", base_url="https://munich.example"),
        schemas=entity_schemas(schema_file(name) for name in ENTITIES_BY_FILE),
        node_authenticator=node_authenticator,
    )
    apps = {plane: build_app(routes, plane, services) for plane in planes}
    try:
        bases = {}
        for plane, app in apps.items():
            host, port = await app.listen_tcp("127.0.0.1", 0)
            bases[plane] = f"http://{host}:{port}"
        yield bases
    finally:
        for app in apps.values():
            await app.close(1.0)
        await tokens.close()
