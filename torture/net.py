"""A proxy that can also stop reading, so that what the server sends piles up there."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.faults import Predicate, Proxy, everyone

BUFFER = 64 * 1024


class StallingProxy(Proxy):
    """A Proxy whose connections may be left unread."""

    @contextmanager
    def not_reading(self, only: Predicate = everyone) -> Iterator[int]:
        """Take nothing from the server on the connections that are open now, so many; new ones are read."""
        stalled = self._do(self._stall(only))
        try:
            yield len(stalled)
        finally:
            self._do(self._go_on(stalled))

    async def _stall(self, only: Predicate) -> list[object]:
        transports = [link._writers[1].transport for link in self._links if len(link._writers) > 1 and only(link.head)]
        for transport in transports:
            # Set, it is not made larger any more: else the kernel would take tens of MB.
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
            transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport can
        return list(transports)

    async def _go_on(self, stalled: list[object]) -> None:
        for transport in stalled:
            transport.resume_reading()  # type: ignore[attr-defined]
