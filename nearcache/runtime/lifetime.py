"""How the bus of a cache begins, and how it ends if nobody closes: with the last reference, the loop, the process.

The thread or task has the subscriber and the core; the cache that users hold has a finaliser. So a forgotten cache is
collected, and then its bus ends. A callback given to ``on_event`` that refers to the cache keeps it alive.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from nearcache.engine.subscriber import Subscriber
from nearcache.runtime.run_sync import run_sync
from nearcache.transport.open import Backend


class BusThread:
    """The thread that keeps the bus of a NearCache, from the first use on."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self.starting = threading.RLock()  # a signal handler may use the cache while its thread starts the bus
        self.thread: threading.Thread | None = None

    def start(self) -> None:
        """Start it, unless it was."""
        subscriber = self._subscriber
        with self.starting:
            if self.thread is None:
                thread = threading.Thread(target=lambda: run_sync(subscriber.run()), name="nearcache-bus", daemon=True)
                self.thread = thread
                try:
                    thread.start()
                except BaseException as error:
                    self.thread = None
                    if not isinstance(error, RuntimeError):  # interrupted; if it runs all the same, it is the only one
                        raise
                    subscriber.tried.set()  # no thread to be had: this read does without L1, the next one tries again

    def join(self, timeout: float) -> None:
        """Wait for its end, unless this is it."""
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join(timeout)


def end_of_threads(subscriber: Subscriber, where: Backend) -> None:
    """A NearCache was forgotten without ``close``, or the process ends: what is open is closed, and nothing waits."""
    subscriber.end()
    if subscriber.core.requests.bus is not None:
        subscriber.core.requests.bus.interrupt()
    run_sync(subscriber.core.remote.close())
    if where.server is not None:
        where.server.stop()


async def live(subscriber: Subscriber) -> None:
    """The task that keeps the bus of an AsyncNearCache; when its loop ends, it takes the connections along."""
    try:
        await subscriber.run()
    finally:
        if not subscriber.ended:
            subscriber.end()
            await subscriber.core.remote.close()


def end_of_tasks(bus: asyncio.Task[object], loop: asyncio.AbstractEventLoop) -> None:
    """An AsyncNearCache was forgotten without ``close``."""
    with suppress(RuntimeError):  # the loop is closed, and all that was on it has ended
        loop.call_soon_threadsafe(bus.cancel)
