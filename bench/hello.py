"""The floor under every request: aiohttp over TLS that reads what it is sent and answers a constant."""

import sys
from pathlib import Path

import uvloop
from aiohttp import web

from loopd.net.tls import server_context

ANSWER = b'{"status":"ok"}'


async def hello(request: web.Request) -> web.Response:
    """200 with a short constant, once the body is read."""
    await request.read()
    return web.Response(body=ANSWER, content_type="application/json")


def main() -> None:
    """`python -m bench.hello PORT CERTIFICATE KEY`."""
    port, certificate, key = sys.argv[1:]
    app = web.Application()
    app.router.add_get("/hello", hello)
    app.router.add_post("/hello", hello)
    web.run_app(
        app,
        host="127.0.0.1",
        port=int(port),
        ssl_context=server_context(Path(certificate), Path(key)),
        access_log=None,
        print=None,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    main()
