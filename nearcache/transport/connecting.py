"""Connect within a deadline, from a thread that may not wait longer.

The look-up of a name cannot be cancelled, and redis-py's timeouts are for each address and each receive: a server that
sends its greeting byte by byte holds ``connect`` for as long as it likes. So a thread of its own connects, and the
caller waits for it until the deadline. A thread that was given up ends by itself: its socket is shut down as soon as it
has one, and the connection that it makes in the end is closed.
"""

from __future__ import annotations

import _thread
import os
import sys
from collections.abc import Callable, Hashable
from queue import Empty, SimpleQueue

from nearcache.engine.ports import RemoteFailed, RemoteTimeout

HANGING_MAX = 4
"""Given up threads per address that refuse a further attempt: resolvers may hang for minutes, and threads add up."""

_hanging: set[Attempt] = set()
os.register_at_fork(after_in_child=_hanging.clear)


class Attempt:
    """One attempt to connect, and the thread that makes it."""

    def __init__(self, place: Hashable, connect: Callable[[], None], close: Callable[[], None]) -> None:
        self.place = place
        self.given_up = self._ended = False
        self.done: SimpleQueue[BaseException | None] = SimpleQueue()
        self._connect = connect
        self._close = close

    def run(self) -> None:
        """Connect, in the thread of the attempt."""
        failure: BaseException | None = None
        try:
            self._connect()
        except BaseException as error:  # noqa: BLE001  # it is raised in the thread of the caller
            failure = error
        self.done.put(failure)
        if self.given_up:
            self._close()
        self._ended = True
        _hanging.discard(self)

    def give_up(self) -> None:
        """Stop waiting: end the attempt and close its connection, now or when it comes."""
        _hanging.add(self)
        self.given_up = True
        self._close()
        if self._ended:
            _hanging.discard(self)


def within(seconds: float, place: Hashable, connect: Callable[[], None], close: Callable[[], None]) -> None:
    """Call ``connect`` in a thread, and wait for it for at most ``seconds``.

    Args:
        seconds: how long to wait.
        place: the address, to count the attempts that hang there.
        connect: raises RemoteFailed when it fails.
        close: ends the connection that ``connect`` has made so far, from any thread; may be called twice.

    Raises:
        RemoteFailed: as ``connect`` raised it. RemoteTimeout: it did not end in time.
    """
    if sum(one.place == place for one in tuple(_hanging)) >= HANGING_MAX:
        raise RemoteTimeout("connecting hangs, and has been tried often enough for now")
    if sys.is_finalizing():  # a thread that is started now never runs
        raise RemoteFailed("the interpreter is ending")
    attempt = Attempt(place, connect, close)
    try:
        # Not threading.Thread, whose start() waits under a lock that a KeyboardInterrupt leaves locked.
        _thread.start_new_thread(attempt.run, ())
        failure = attempt.done.get(timeout=seconds)
    except RuntimeError:
        raise RemoteFailed("there is no thread to connect in") from None
    except Empty:
        attempt.give_up()
        raise RemoteTimeout("connecting took too long") from None
    except BaseException:
        attempt.give_up()
        raise
    if failure is not None:
        raise failure
