"""What stands where Redis should be: a web server, a port that trickles. More is in ``nearcache.testing``."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

from nearcache.transport.embedded import HOST


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


@contextmanager
def trickle(pause: float = 0.02) -> Iterator[int]:
    """A port that answers with a greeting that does not end, a byte at a time."""
    stop = threading.Event()
    with socket.socket() as listener:
        listener.bind((HOST, 0))
        listener.listen(128)
        listener.settimeout(0.05)

        def drip(client: socket.socket) -> None:
            with client, suppress(OSError):
                while not stop.wait(pause):
                    client.sendall(b"+")

        def accept() -> None:
            while not stop.is_set():
                with suppress(TimeoutError):
                    threading.Thread(target=drip, args=[listener.accept()[0]], name="tests-drip").start()

        thread = threading.Thread(target=accept, name="tests-trickle")
        thread.start()
        try:
            yield int(listener.getsockname()[1])
        finally:
            stop.set()
            thread.join()
