"""The start of a cache's bus, and its end without ``close``: with the last reference, the loop or the process.

The thread or task of the bus refers to the subscriber and the core, but not to the cache of the user, which has a
finaliser. So a forgotten cache is collected, and then its bus ends. A callback given to ``on_event`` that refers to the
cache keeps it alive.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import suppress

from nearcache.engine.core import Core
from nearcache.engine.subscriber import Subscriber
from nearcache.local.interrupts import make_lock, release_left
from nearcache.runtime.run_sync import run_sync
from nearcache.transport.backend import Backend


def subscriber_of(core: Core, where: Backend) -> Subscriber:
    """What keeps the bus of a cache, or those of its buckets."""
    latch = core.runtime.latch
    if where.buckets is None:
        return Subscriber(core, stop=latch(), tried=latch())
    from nearcache.engine.lines import Lines  # noqa: PLC0415  # few need it, and it takes its time to import

    return Lines(core, stop=latch(), tried=latch(), places=where.buckets.places)


class BusThread:
    """The thread of a NearCache's bus, which runs from the first use on."""

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber
        self.starting = make_lock()  # a signal handler may use the cache while its thread starts the bus
        self.thread: threading.Thread | None = None
        self._runs = False

    def start(self) -> None:
        """Start the thread, unless it was started."""
        try:
            self._start()
        except BaseException:
            release_left()
            raise

    def _start(self) -> None:
        subscriber = self._subscriber
        with self.starting:
            if sys.is_finalizing():  # a thread that is started now never runs, and on 3.11 its start waits for that
                subscriber.tried.set()
            elif self.thread is None:
                try:
                    self.thread = threading.Thread(target=self._run, name="nearcache-bus", daemon=True)
                    self.thread.start()
                except BaseException as error:
                    self.thread = None
                    if not isinstance(error, RuntimeError):  # an interrupt: the thread may run all the same
                        raise
                    subscriber.tried.set()  # no thread is left: this read goes without L1, the next one tries again

    def _run(self) -> None:
        """Run the bus, unless another thread does.

        An interrupt may end ``start`` after the thread was started and before that is known: the next use starts
        another one, and the first of the two to come here is the bus.
        """
        with self.starting:
            if self._runs:
                return
            self._runs = True
            self.thread = threading.current_thread()
        run_sync(self._subscriber.run())

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread, unless it is the caller's."""
        if self.thread is not None and self.thread is not threading.current_thread():
            with suppress(RuntimeError):  # an interrupt came before it started
                self.thread.join(timeout)


def end_of_threads(subscriber: Subscriber, where: Backend) -> None:
    """End a NearCache that was forgotten without ``close``, or at the end of the process, without waiting."""
    subscriber.end()
    subscriber.core.interrupt()
    run_sync(subscriber.core.remote.close())
    if where.server is not None:
        where.server.stop()


async def live(subscriber: Subscriber) -> None:
    """Run the bus of an AsyncNearCache; at the end of its loop close the connections as well."""
    try:
        await subscriber.run()
    finally:
        if not subscriber.ended:
            subscriber.end()
            await subscriber.core.remote.close()


def end_of_tasks(bus: asyncio.Task[object], loop: asyncio.AbstractEventLoop) -> None:
    """End an AsyncNearCache that was forgotten without ``close``."""
    with suppress(RuntimeError):  # the loop is closed, and its tasks have ended
        loop.call_soon_threadsafe(bus.cancel)
