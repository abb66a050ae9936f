"""What the client needs of the connections to a server: the port that transports implement."""

from __future__ import annotations

from typing import Any, Protocol

from nearcache.transport.handshake import Handshake


class Transport(Protocol):
    """Connections to one server: a connection pool for threads, one multiplexed connection for asyncio."""

    handshake: Handshake | None
    """Asked on each new connection before it is used; None: nothing is asked."""

    async def execute(
        self, packed: bytes, count: int = 1, *, repeatable: bool = False, waited: float = 0.0
    ) -> list[Any]:
        """Send packed commands once, and return their replies; an error reply is an object among them.

        Args:
            packed: the commands.
            count: of the replies.
            repeatable: the caller repeats the commands after a failure, so a connection that may be dead will do.
            waited: seconds that the caller has waited for others: the wait for replies is so much shorter.

        Raises:
            RemoteFailed: the connection failed; the server may have executed the commands.
        """
        ...

    async def execute_along(self, packed: bytes, count: int, *, repeatable: bool = False) -> list[Any]:
        """As ``execute``, in one request with what other flows of the caller ask of the server at this time."""
        return await self.execute(packed, count, repeatable=repeatable)

    @property
    def server(self) -> Transport | None:
        """The connections to the server that is asked now; None: it is not known."""
        return self

    async def pause(self, seconds: float) -> None:
        """Wait before a read is repeated."""
        ...

    async def connect(self) -> None:
        """Make a connection, unless there is one."""
        ...

    def discard_idle(self) -> None:
        """Use no present connection for further commands; close those that are idle."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
