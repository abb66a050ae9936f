"""The buckets of a cache on a fake server, divided among its primaries. The ports document the methods."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, cast

from nearcache.engine.ports import Bus, News, SharedBus
from nearcache.local.waiters import Latch
from nearcache.protocol.answers import BusItem
from nearcache.testing.fake_network import Client, Network
from nearcache.testing.fake_transport import FakeBus, FakeRemote, NewLatch

SHOWN = "fake"
"""The host of each primary; its number is the port."""


class FakeBuckets:
    """The remotes of all buckets, and the places where they are, which stay the same.

    Args:
        network: the fake server and the faults before it.
        namespace: of the cache.
        new_latch: makes the latches that operations wait with.
        timeout: seconds of real time that an answer may take.
        cache: stands for the cache, also when it has begun anew.
        buckets: how many.
        primaries: how many.
    """

    def __init__(
        self,
        network: Network,
        namespace: str,
        new_latch: NewLatch,
        timeout: float,
        cache: object,
        *,
        buckets: int,
        primaries: int,
    ) -> None:
        self._network, self._new_latch, self._timeout = network, new_latch, timeout
        self._names = [f"{namespace}:{bucket}" for bucket in range(buckets)]
        self.remotes: list[FakeRemote] = [
            FakeRemote(network, name, new_latch, timeout, Client(cache, primary_of(bucket, primaries)))
            for bucket, name in enumerate(self._names)
        ]
        self.remotes[0].beside = self.remotes[1:]
        self.trouble: Callable[[], None] = lambda: None

    async def owners(self) -> Sequence[Hashable | None]:
        return [(SHOWN, remote.client.primary) for remote in self.remotes]

    def new_bus(self, place: Hashable) -> SharedBus:
        del place
        for remote in self.remotes:  # the cache has not settled before each of its buckets is subscribed
            self._network.listens(remote.client)
        return FakeSharedBus(self._channel, self._new_latch)

    def _channel(self, shared: FakeSharedBus, bucket: int) -> Channel:
        remote = self.remotes[bucket]
        seen = lambda: remote.seen()  # noqa: E731, PLW0108  # it is set later
        return Channel(shared, self._network, remote.client, self._names[bucket], self._new_latch, self._timeout, seen)


def primary_of(bucket: int, primaries: int) -> int:
    """The primary of a bucket."""
    return bucket % primaries


class Channel(FakeBus):
    """The bus of one bucket; what comes is received for all buckets of a connection."""

    def __init__(self, shared: FakeSharedBus, *args: Any) -> None:
        self._shared = shared
        super().__init__(*args)

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        del timeout
        return ()

    def take(self) -> Sequence[BusItem]:
        """What has come."""
        return self._take()

    def look(self) -> None:
        """Wake the subscriber if it waits in ``receive``."""
        self._shared.look()

    def time_moved(self) -> None:
        """Wake the subscriber because a heartbeat may be due."""
        self._shared.moved = True
        self._shared.look()

    @property
    def at_rest(self) -> bool:
        """Whether the subscriber waits, and nothing has been sent to it since."""
        return self._shared.resting is not None


class FakeSharedBus:
    """The connection for some buckets."""

    def __init__(self, channel: Callable[[FakeSharedBus, int], Channel], new_latch: NewLatch) -> None:
        self._channel, self._new_latch = channel, new_latch
        self._channels: list[Channel] = []
        self.resting: Latch | None = None
        self.moved: bool = False
        """Whether a ManualClock was moved since the last ``receive``, so that a heartbeat may be due."""

    async def open(self) -> None:
        """Do nothing: whether the server answers shows when a bucket is subscribed."""

    async def join(self, bucket: int) -> Bus:
        channel = self._channel(self, bucket)
        await channel.open()
        self._channels.append(channel)
        return channel

    async def leave(self, channel: Bus) -> None:
        self._channels.remove(cast("Channel", channel))
        await channel.close()

    async def receive(self, timeout: float) -> Sequence[tuple[Bus, Sequence[News]]]:
        self.resting = latch = self._new_latch()  # before the items are taken, as in FakeBus
        news = self._take()
        if not news and timeout > 0 and not self.moved:
            await latch.wait(timeout)
            news = self._take()
        self.resting, self.moved = None, False
        return news

    def interrupt(self) -> None:
        for channel in tuple(self._channels):
            channel.interrupt()

    async def close(self) -> None:
        self.interrupt()

    def look(self) -> None:
        """Wake the subscriber if it waits in ``receive``."""
        latch, self.resting = self.resting, None
        if latch is not None:
            latch.set()

    def _take(self) -> list[tuple[Bus, Sequence[News]]]:
        return [(channel, items) for channel in self._channels if (items := channel.take())]
