"""The Remote and the Bus of a cache on a fake server, for both classes of cache. The ports document them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar, cast

from nearcache.engine.ports import Remote, RemoteFailed, RemoteTimeout
from nearcache.local.waiters import Latch
from nearcache.protocol.answers import (
    Absent,
    Ask,
    BusItem,
    Claim,
    Counted,
    Deleted,
    Fill,
    Held,
    Item,
    Lease,
    OutOfRange,
    Peer,
    Present,
    Reading,
    TagFloor,
    Written,
)
from nearcache.testing.clock import watch
from nearcache.testing.fake_network import Client, Kind, Late, Network
from nearcache.testing.model import Server
from nearcache.testing.state import Line, Question

T = TypeVar("T")

NewLatch = Callable[[], Latch]
"""ThreadLatch or TaskLatch: the only difference between the two classes of cache."""


class FakeRemote:
    """A Remote over a network.

    Args:
        network: the fake server and the faults before it.
        namespace: of the cache.
        new_latch: makes the latch that an operation waits with.
        timeout: seconds of real time that an answer may take.
        client: stands for the cache, or one bucket of it, also when it has begun anew with another FakeRemote.
    """

    def __init__(self, network: Network, namespace: str, new_latch: NewLatch, timeout: float, client: Client) -> None:
        self.client = client
        self.beside: Sequence[FakeRemote] = ()
        """Those of the other buckets, which are closed with it."""
        self._network = network
        self._namespace = namespace
        self._new_latch = new_latch
        self._timeout = timeout
        self._life: int | None = None
        self._closed = False
        self.on_connected: Callable[[Peer], None] = lambda _: None
        self.seen: Callable[[], int] = lambda: 0
        self.may_repeat: Callable[[], bool] = lambda: True

    def now(self) -> int:
        return 0 if self._life is None else self._network.micros()

    async def connect(self) -> None:
        await self._connect()

    async def read(self, keys: Sequence[str], *, with_bounds: bool, waited: float = 0.0) -> Reading:
        del waited
        return await self._ask("read", lambda server: server.read(keys, with_bounds=with_bounds))

    async def read_each(
        self, asks: Sequence[tuple[Remote, Sequence[str]]]
    ) -> Sequence[Sequence[bytes | None] | RemoteFailed]:
        return [(await remote.read(keys, with_bounds=False)).records for remote, keys in asks]

    async def tag_floors(self, tags: Sequence[str]) -> Sequence[TagFloor | None]:
        return await self._ask("tag_floors", lambda server: server.tag_floors(tags))

    async def set(self, items: Sequence[Item], tags: Sequence[str], deadline: int) -> Written:
        return await self._ask("set", lambda server: server.set(items, tags, deadline, self.seen()))

    async def delete(self, keys: Sequence[str], *, hold_ms: int = 0, not_before: int = 0) -> Written | None:
        options = {"hold_ms": hold_ms, "not_before": not_before, "seen": self.seen()}
        return await self._ask("delete", lambda server: server.delete(keys, **options))

    async def add(self, item: Item, dead: bytes, tags: Sequence[str], deadline: int) -> Written | Present | Held:
        return await self._ask("add", lambda server: server.add(item, dead, tags, deadline, self.seen()))

    async def touch(self, key: str, head: bytes, ttl_ms: int, tags: Sequence[str], deadline: int) -> Written | Present:
        asked = key, head, ttl_ms, tags, deadline, self.seen()
        return await self._ask("touch", lambda server: server.touch(*asked))

    async def incr(
        self, key: str, delta: int, initial: int | None, ttl_ms: int, head: bytes, deadline: int, was: int | None = None
    ) -> Counted | Present | Absent | OutOfRange:
        asked = key, delta, initial, ttl_ms, head, deadline, was, self.seen()
        return await self._ask("incr", lambda server: server.incr(*asked))

    async def delete_existing(self, key: str) -> Deleted:
        return await self._ask("delete_existing", lambda server: server.delete_existing(key, self.seen()))

    async def mark_stale(self, keys: Sequence[str]) -> Written:
        return await self._ask("mark_stale", lambda server: server.mark_stale(keys, self.seen()))

    async def lease(self, asks: Sequence[Ask], lease_ms: int, tags: Sequence[str], deadline: int) -> Sequence[Lease]:
        seen = self.seen()
        return await self._ask(
            "lease", lambda server: [server.lease(*ask, lease_ms, tags, deadline, seen) for ask in asks]
        )

    async def fill(self, fills: Sequence[Fill]) -> Sequence[Written | None]:
        return await self._ask("fill", lambda server: [server.fill(*one) for one in fills])

    async def abort(self, leases: Sequence[tuple[str, bytes]]) -> Sequence[bool]:
        return await self._ask("abort", lambda server: [server.abort(*lease) for lease in leases])

    async def claim(self, key: str) -> Claim | None:
        return await self._ask("claim", lambda server: server.claim(key))

    async def greet(self) -> None:
        await self._ask("greet", lambda server: server.greet(self.seen()))

    async def clear(self, *, not_before: int = 0) -> Written | None:
        return await self._ask("clear", lambda server: server.clear(not_before=not_before, seen=self.seen()))

    async def invalidate_tags(self, tags: Sequence[str], *, stale: bool = False) -> Written:
        return await self._ask(
            "invalidate_tags", lambda server: server.invalidate_tags(tags, stale=stale, seen=self.seen())
        )

    async def l1_share(self) -> float:
        return await self._ask("l1_share", lambda server: server.l1_share)

    async def limit_l1(self, share: float) -> None:
        await self._ask("limit_l1", lambda server: setattr(server, "l1_share", share))

    async def announce(self, place: int, owner: bytes, document: bytes, life_ms: int) -> bool:
        return await self._ask("announce", lambda server: server.announce(place, owner, document, life_ms))

    async def announced(self) -> Sequence[bytes]:
        return await self._ask("announced", lambda server: server.announced())

    async def probe(self, nonce: str) -> None:
        await self._ask("probe", lambda server: server.probe(nonce))

    def discard_idle(self) -> None:
        """Do nothing: only a restart of the server ends a connection."""

    async def close(self) -> None:
        for remote in (self, *self.beside):
            remote._closed = True  # noqa: SLF001  # of this class
            remote._network.leaves(remote.client)  # noqa: SLF001  # of this class

    async def _connect(self, operation: str | None = None) -> None:
        """Connect if need be.

        Raises:
            RemoteFailed: the server is away or hung, and nothing was sent.
        """
        if self._closed or self._network.fault({Kind.AWAY}, self.client, operation):
            raise _not_sent(RemoteFailed("the connection was refused"))
        if self._life != self._network.life:
            latch = self._new_latch()
            hung = self._network.defer({Kind.HUNG}, self.client, Late(latch), operation)
            if hung and not await latch.wait(self._timeout):  # the handshake is not answered
                raise _not_sent(RemoteTimeout("no answer in time"))
            with self._network.lock:
                identity, life = self._network.identity, self._network.life
            try:
                self.on_connected(Peer(identity, 0.0))
            except RemoteFailed as failure:
                raise _not_sent(failure) from None
            self._life = life

    async def _ask(self, operation: str, call: Callable[[Server], T]) -> T:
        """Execute one operation under the faults that are on."""
        await self._connect(operation)
        network = self._network
        late = Late(self._new_latch(), lambda: call(network.server(self._namespace)))
        with network.lock:
            hung = network.defer({Kind.HUNG}, self.client, late, operation)
            if not hung:
                late.execute()
        if hung and not await late.latch.wait(self._timeout):
            raise RemoteTimeout("no answer in time")
        slow = network.fault({Kind.LOST_REPLIES, Kind.DELAY}, self.client, operation)
        if slow is not None:
            lost = slow.kind is Kind.LOST_REPLIES or slow.seconds >= self._timeout
            await self._new_latch().wait(self._timeout if lost else slow.seconds)
            if lost:
                raise RemoteTimeout("no answer in time")
        return cast("T", late.get())


def _not_sent(failure: RemoteFailed) -> RemoteFailed:
    failure.sent = False
    return failure


class FakeBus:
    """A Bus over a network.

    Args:
        network: the fake server and the faults before it.
        client: that of the FakeRemote of the same cache.
        namespace: of the cache.
        new_latch: makes the latch that ``receive`` waits with.
        timeout: seconds of real time that the subscription may take.
        seen: the highest write number that the cache has seen.
    """

    def __init__(
        self,
        network: Network,
        client: Client,
        namespace: str,
        new_latch: NewLatch,
        timeout: float,
        seen: Callable[[], int] = lambda: 0,
    ) -> None:
        self.client = client
        self.namespace = namespace
        self.line: Line = Line(seen=seen, wake=self.look)
        self.closed = False
        self._network = network
        self._new_latch = new_latch
        self._timeout = timeout
        self._resting: Latch | None = None
        self._moved = False
        """Whether a ManualClock was moved since the last ``receive``, so that a heartbeat may be due."""

    async def open(self) -> None:
        self._network.listens(self.client)
        if self._fault(Kind.AWAY, Kind.BUS_CUT):
            raise RemoteFailed("the connection was refused")
        latch = self._new_latch()
        held = self._network.defer({Kind.HUNG, Kind.BUS_HELD}, self.client, Late(latch))
        if held and not await latch.wait(self._timeout):
            raise RemoteTimeout("the subscription was not confirmed in time")
        if self.closed:
            raise RemoteFailed("closed")
        self._network.subscribe(self)
        watch(self)

    async def ask_greeting(self) -> None:
        self._ask("greeting")

    async def ask_beat(self) -> None:
        self._ask("beat")

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        # Set before the items are taken, so that an item that comes in between wakes it.
        self._resting = latch = self._new_latch()
        items = self._take()
        if not items and timeout > 0 and not self._moved:
            await latch.wait(timeout)
            items = self._take()
        self._resting, self._moved = None, False
        return items

    def interrupt(self) -> None:
        self._network.drop(self)

    async def close(self) -> None:
        self._network.drop(self)

    def look(self) -> None:
        """Wake the subscriber if it waits in ``receive``."""
        latch, self._resting = self._resting, None
        if latch is not None:
            latch.set()

    def time_moved(self) -> None:
        """Wake the subscriber because a heartbeat may be due."""
        self._moved = True
        self.look()

    @property
    def at_rest(self) -> bool:
        """Whether the subscriber waits, and nothing has been sent to it since."""
        return self._resting is not None

    def _ask(self, question: Question) -> None:
        with self._network.lock:
            if self.closed:
                raise RemoteFailed("the server closed the connection")
            self.line.questions.append(question)
            self._answer()

    def _answer(self) -> None:
        """Answer the questions that were sent, unless the server hangs."""
        while self.line.questions and not self._fault(Kind.HUNG):
            self._network.server(self.namespace).answer(self.line)

    def _take(self) -> list[BusItem]:
        with self._network.lock:
            if self.closed:
                raise RemoteFailed("the server closed the connection")
            if self._fault(Kind.HUNG, Kind.BUS_HELD):
                return []
            self._answer()
            items = list(self.line.items)
            self.line.items.clear()
            return items

    def _fault(self, *kinds: Kind) -> Any:
        return self._network.fault(kinds, self.client)
