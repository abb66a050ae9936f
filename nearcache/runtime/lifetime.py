"""How the bus of a cache begins, and how it ends if nobody closes: with the last reference, the loop, the process.

The thread or task has the listener and the core; the face, which users hold, has a finaliser. So a forgotten cache is
collected, and then its bus ends. A callback given to ``on_event`` that refers to the cache keeps it alive.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from nearcache.engine.subscriber import Listener
from nearcache.runtime.run_sync import run_sync
from nearcache.transport.open import Backend


class BusThread:
    """The thread that keeps the bus of a NearCache, from the first use on."""

    def __init__(self, listener: Listener) -> None:
        self._subscriber = listener
        self.starting = threading.RLock()  # a signal handler may use the cache while its thread starts the bus
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Start it, unless it was."""
        listener = self._subscriber
        with self.starting:
            if self.thread is None:
                thread = threading.Thread(target=lambda: run_sync(listener.run()), name="nearcache-bus", daemon=True)
                self.thread = thread
                try:
                    thread.start()
                except BaseException as error:
                    self.thread = None
                    if not isinstance(error, RuntimeError):  # interrupted; if it runs all the same, it is the only one
                        raise
                    listener.tried.set()  # no thread to be had: this read does without L1, the next one tries again

    def join(self, timeout: float) -> None:
        """Wait for its end, unless this is it."""
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(timeout)


def end_of_threads(listener: Listener, where: Backend) -> None:
    """A NearCache was forgotten without ``close``, or the process ends: what is open is closed, and nothing waits."""
    listener.end()
    if listener.core.bus is not None:
        listener.core.bus.interrupt()
    run_sync(listener.core.remote.close())
    if where.server is not None:
        where.server.stop()


async def live(listener: Listener) -> None:
    """The task that keeps the bus of an AsyncNearCache; when its loop ends, it takes the connections along."""
    try:
        await listener.run()
    finally:
        if not listener.stopping:
            listener.end()
            await listener.core.remote.close()


def end_of_tasks(bus: asyncio.Task[object], loop: asyncio.AbstractEventLoop) -> None:
    """An AsyncNearCache was forgotten without ``close``."""
    with suppress(RuntimeError):  # the loop is closed, and all that was on it has ended
        loop.call_soon_threadsafe(bus.cancel)
