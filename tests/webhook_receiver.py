"""An endpoint that takes webhooks and checks every signature with the reference library."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook as Verifier


class WebhookReceiver:
    """Answers with `status`, and keeps what it took and what it refused. `secret` is set once it is known."""

    def __init__(self) -> None:
        self.status = 204
        self.secret = ""
        self.taken: list[Any] = []
        self.refused = 0
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        assert self._server is not None
        return f"http://127.0.0.1:{self._server.server_address[1]}/hook"

    @contextmanager
    def serving(self) -> Iterator["WebhookReceiver"]:
        """Serve on a free port until the end of the block."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(receiver.take(dict(self.headers), body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            self._server.server_close()
            thread.join(10)

    def take(self, headers: dict[str, str], body: bytes) -> int:
        """Take a message; WebhookVerificationError ends the connection, and so the test notices."""
        Verifier(self.secret).verify(body, headers)
        if self.status != 204:
            self.refused += 1
            return self.status
        self.taken.append({"message": headers["webhook-id"], **json.loads(body)})
        return 204

    @property
    def subjects(self) -> list[str]:
        """The subjects of what was taken, each message once."""
        first = {taken["message"]: taken["data"].get("subject", "") for taken in list(self.taken)}
        return list(first.values())
