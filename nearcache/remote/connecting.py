"""Connect within a deadline, from a thread that may not wait longer.

Looking up a name can't be cancelled, and redis-py's timeouts are for each address and each receive: a server that sends
its greeting byte by byte holds ``connect`` for as long as it likes. So a thread of its own connects, and whoever wants
the connection waits for it until the deadline. One that was given up ends by itself: its socket is shut as soon as it
has one, and what it made in the end is closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable
from queue import Empty, SimpleQueue

from nearcache.ports import RemoteFailed, RemoteTimeout

HANGING_MAX = 4
"""Given up threads per address after which nobody tries: resolvers may hang for minutes, and threads would add up."""

_hanging: set[tuple[Hashable, threading.Thread]] = set()


def within(seconds: float, place: Hashable, connect: Callable[[], None], close: Callable[[], None]) -> None:
    """Call ``connect`` in a thread, and wait for it for at most ``seconds``.

    Args:
        seconds: how long to wait.
        place: where it leads to.
        connect: raises RemoteFailed when it fails.
        close: ends what ``connect`` has made so far, from any thread.

    Raises:
        RemoteFailed: what ``connect`` raised; RemoteTimeout: it did not end in time.
    """
    if _hanging_at(place) >= HANGING_MAX:
        raise RemoteTimeout("connecting hangs, and has been tried often enough for now")
    done: SimpleQueue[BaseException | None] = SimpleQueue()
    given_up = False

    def run() -> None:
        failure: BaseException | None = None
        try:
            connect()
        except BaseException as error:  # noqa: BLE001  # it is raised where somebody waits for it
            failure = error
        done.put(failure)
        if given_up:
            close()

    thread = threading.Thread(target=run, name="nearcache-connect", daemon=True)
    try:
        thread.start()
    except RuntimeError:
        raise RemoteFailed("there is no thread to connect in") from None
    try:
        failure = done.get(timeout=seconds)
    except BaseException as error:
        given_up = True
        _hanging.add((place, thread))
        close()
        if isinstance(error, Empty):
            raise RemoteTimeout("connecting took too long") from None
        raise
    if failure is not None:
        raise failure


def _hanging_at(place: Hashable) -> int:
    for one in tuple(_hanging):
        if not one[1].is_alive():
            _hanging.discard(one)
    return sum(one[0] == place for one in tuple(_hanging))
