"""Watch whether the Sentinels still name the primary from which a bus comes.

Sentinel leaves a primary that it has replaced by hand, or that comes back, writable for 8 s or longer, and ends its
connections only then. So with each heartbeat the bus asks one of the Sentinels, in turn, who is the primary.
"""

from __future__ import annotations

import _thread
import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, cast

from nearcache.engine.ports import Bus, News, RemoteFailed, SharedBus
from nearcache.protocol.answers import BusItem, Greeting
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.sentinel_search import Opinion, name_of, shown

if TYPE_CHECKING:
    from nearcache.transport.sentinel import SentinelEndpoint
    from nearcache.transport.shared_bus import Channel


class _Watched:
    """What ends a bus when a Sentinel names another primary than the server that it comes from."""

    def __init__(self, bus: Bus | SharedBus, endpoint: SentinelEndpoint) -> None:
        self._ended = bus
        self._endpoint = endpoint
        self._sentinels = endpoint.sentinels
        self._turn = 0
        self._moved: RemoteFailed | None = None
        self._asking: asyncio.Task[None] | bool = False
        """The question that is under way, in a task or in a thread."""
        self._links: dict[Endpoint, Any] = {}
        """A connection to each Sentinel that was asked."""
        self._closed = False
        self.open = bus.open

    def _ask(self) -> None:
        """Ask the next Sentinel, unless another one is being asked."""
        if self._asking:
            return
        places = sorted(self._sentinels.places, key=name_of)
        place = places[self._turn % len(places)]
        self._turn += 1
        if self._endpoint.asynchronous:
            self._asking = asyncio.get_running_loop().create_task(self._look_on_loop(place), name="nearcache-sentinel")
            return
        self._asking = True
        try:
            _thread.start_new_thread(self._look, (place,))
        except RuntimeError:  # there is no thread: the next heartbeat tries again
            self._asking = False

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Give the failure of a bus that was ended here its reason."""
        try:
            yield
        except RemoteFailed:
            if self._moved is not None:
                raise self._moved from None
            raise

    def _check(self, items: Sequence[News]) -> None:
        for item in items:
            if isinstance(item, Greeting) and not item.master and (known := self._endpoint.opinion):
                self._sentinels.rotate()
                where = f"{shown(known.address)}, which is no primary"
                raise RemoteFailed(f"the Sentinel {name_of(known.place)} names {where}; the next one is asked")

    def interrupt(self) -> None:
        self._end_links()
        self._ended.interrupt()

    async def close(self) -> None:
        if isinstance(self._asking, asyncio.Task):
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)
        self._end_links()
        await self._ended.close()

    def _look(self, place: Endpoint) -> None:
        try:
            self._compare(self._sentinels.ask(place, self._links))
        except RemoteFailed:
            pass  # the next heartbeat asks another one
        finally:
            self._asking = False
            if self._closed:  # meanwhile
                self._end_links()

    async def _look_on_loop(self, place: Endpoint) -> None:
        try:
            self._compare(await self._sentinels.ask_on_loop(place, self._links))
        except RemoteFailed:
            pass
        finally:
            self._asking = False

    def _end_links(self) -> None:
        self._closed = True
        with suppress(KeyError):  # it is empty; a question that ends just now does the same in its thread
            while True:
                _, link = self._links.popitem()
                (link.stream if self._endpoint.asynchronous else link).close()

    def _compare(self, opinion: Opinion) -> None:
        """End the bus if there was a failover since it was opened."""
        known = self._endpoint.opinion
        if known is None or opinion.epoch <= known.epoch or opinion.address == known.address:
            return
        self._sentinels.epoch = max(self._sentinels.epoch, opinion.epoch)
        self._moved = RemoteFailed(f"the Sentinels name another primary: {shown(opinion.address)}")
        self._ended.interrupt()


class WatchedBus(_Watched):
    """The bus of a namespace that is not divided."""

    def __init__(self, bus: Bus, endpoint: SentinelEndpoint) -> None:
        super().__init__(bus, endpoint)
        self._bus = bus
        self.ask_greeting = bus.ask_greeting

    async def ask_beat(self) -> None:
        await self._bus.ask_beat()
        self._ask()

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        with self._named():
            items = await self._bus.receive(timeout)
        self._check(items)
        return items


class WatchedSharedBus(_Watched):
    """The bus of all buckets of a namespace: the heartbeat of the first bucket asks a Sentinel."""

    def __init__(self, bus: SharedBus, endpoint: SentinelEndpoint) -> None:
        super().__init__(bus, endpoint)
        self._bus = bus
        self.leave = bus.leave

    async def join(self, bucket: int) -> Bus:
        channel = await self._bus.join(bucket)
        if bucket == 0:
            cast("Channel", channel).beside_beat = self._ask
        return channel

    async def receive(self, timeout: float) -> Sequence[tuple[Bus, Sequence[News]]]:
        with self._named():
            parts = await self._bus.receive(timeout)
        for _, news in parts:
            self._check(news)
        return parts
