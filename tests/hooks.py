"""A recipient's web server for tests: it takes notices, fails, hangs or redirects as told."""

import base64
import hmac
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import orjson

HANG_SECONDS = 60.0


@dataclass(frozen=True)
class Notice:
    """One request as it came."""

    path: str
    headers: dict[str, str]
    body: bytes
    at: float

    @property
    def told(self) -> Any:
        return orjson.loads(self.body)

    def is_signed_with(self, secret: str) -> bool:
        """As Standard Webhooks says, from its text: not our code."""
        key = base64.b64decode(secret.removeprefix("whsec_"))
        stamp = self.headers["webhook-timestamp"]
        content = f"{self.headers['webhook-id']}.{stamp}.".encode() + self.body
        wanted = base64.b64encode(hmac.digest(key, content, "sha256")).decode()
        return f"v1,{wanted}" in self.headers["webhook-signature"].split() and (
            abs(time.time() - int(stamp)) < 300
        )


@dataclass
class Hook:
    """`answer` is the status of the next answers; None hangs."""

    url: str = ""
    answer: int | None = 204
    location: str = ""
    notices: list[Notice] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    def types(self) -> list[str]:
        return [each.told["type"] for each in self.notices]


@contextmanager
def hook(port: int = 0, context: ssl.SSLContext | None = None) -> Iterator[Hook]:
    """Serves on this machine for the length of a block."""
    served = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            served.notices.append(Notice(self.path, headers, body, time.monotonic()))
            if served.answer is None:
                served.ended.wait(HANG_SECONDS)
                return
            self.send_response(served.answer)
            if served.location:
                self.send_header("location", served.location)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: the test reads `notices`."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    served.url = f"http://127.0.0.1:{server.server_address[1]}/stops"
    try:
        yield served
    finally:
        served.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
