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
"""Given up threads per address: resolvers may hang for minutes, and nobody shall collect threads meanwhile."""

_hanging: dict[Hashable, list[threading.Thread]] = {}


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
    hanging = _hanging[place] = [thread for thread in _hanging.get(place, ()) if thread.is_alive()]
    if len(hanging) >= HANGING_MAX:
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
        hanging.append(thread)
        close()
        if isinstance(error, Empty):
            raise RemoteTimeout("connecting took too long") from None
        raise
    if failure is not None:
        raise failure
