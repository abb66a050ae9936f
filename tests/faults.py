"""A web server where Redis should be. Outages that users may stage, too, are in ``nearcache.testing``."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from nearcache.remote.embedded import HOST


class HttpServer:
    """A web server where Redis should be: it answers everything with a page."""

    def __init__(self) -> None:
        self._server = ThreadingHTTPServer((HOST, 0), _Page)
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), name="tests-http", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<h1>It works!</h1>")

    def log_message(self, *_args: object) -> None:
        """Say nothing."""
