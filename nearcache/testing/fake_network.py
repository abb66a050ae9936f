"""The network between caches and their fake server: its connections, and the faults that are on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic
from typing import Protocol, Self

from nearcache.engine.ports import RemoteFailed
from nearcache.local.waiters import Latch
from nearcache.testing.model import Server
from nearcache.testing.state import Line


class Kind(Enum):
    """A kind of fault."""

    AWAY = "the server is away: connections are closed and refused"
    HUNG = "the server has stopped: it takes everything and answers nothing"
    LOST_REPLIES = "what is asked is done, but the answer never comes"
    DELAY = "answers come late"
    BUS_CUT = "subscribed connections are closed and refused"
    BUS_HELD = "subscribed connections bring nothing"


BUS_FAULTS = frozenset({Kind.AWAY, Kind.HUNG, Kind.BUS_CUT, Kind.BUS_HELD})
"""The faults in which a bus brings nothing."""

OPERATIONS = frozenset(
    {
        "read",
        "tag_floors",
        "set",
        "add",
        "touch",
        "incr",
        "delete",
        "delete_existing",
        "mark_stale",
        "lease",
        "fill",
        "abort",
        "claim",
        "clear",
        "invalidate_tags",
        "probe",
        "greet",
        "l1_share",
        "limit_l1",
        "announce",
        "announced",
    }
)
"""The operations of a Remote; a fault may concern only some of them."""


@dataclass(frozen=True, eq=False)
class Client:
    """A cache as the network knows it, or one bucket of it."""

    cache: object
    """The same for all buckets, also when the cache has begun anew."""
    primary: int = 0
    """The server that it asks."""


class SubscribedConnection(Protocol):
    """A subscribed connection, as the network ends it and wakes its subscriber."""

    client: Client
    namespace: str
    line: Line
    closed: bool

    @property
    def at_rest(self) -> bool:
        """Whether the subscriber has applied every item that has come."""
        ...

    def look(self) -> None:
        """Wake the subscriber: items, or the faults that are on, have changed."""
        ...


@dataclass(eq=False)
class Late:
    """A command, or an attempt to connect, that a hung server has received and not executed."""

    latch: Latch
    call: Callable[[], object] = lambda: None
    answer: object = None
    failure: RemoteFailed | None = None

    def execute(self) -> None:
        """Execute it, even when its caller has stopped waiting."""
        try:
            self.answer = self.call()
        except RemoteFailed as refusal:
            self.failure = refusal
        self.latch.set()

    def get(self) -> object:
        """The answer of the executed command."""
        if self.failure is not None:
            raise self.failure
        return self.answer


@dataclass(eq=False)
class Fault:
    """A fault that is on from ``start`` to ``stop``, or inside a ``with``; it may be started again."""

    network: Network = field(repr=False)
    kind: Kind
    operations: Collection[str] = ()
    """The operations that it concerns; empty: all."""
    cache: object = field(default=None, repr=False)
    """That of the Client that it concerns; None: every cache."""
    seconds: float = 0.0
    primary: int | None = None
    """The server that it concerns; None: all of them."""
    late: list[Late] = field(default_factory=list, repr=False)
    """The commands that the server has received and not executed, in order."""

    def start(self) -> Self:
        """Begin the fault."""
        self.network.start(self)
        return self

    def stop(self) -> None:
        """End the fault; everything that was held back is delivered now."""
        self.network.stop(self)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def concerns(self, client: Client, operation: str | None) -> bool:
        """Whether the fault concerns an operation of this cache; ``operation`` None: its bus."""
        if self.cache is not None and self.cache is not client.cache:
            return False
        if self.primary is not None and self.primary != client.primary:
            return False
        return not self.operations or operation in self.operations


class Network:
    """A server, the connections to it, and the faults that are on. Every change is made under one lock."""

    def __init__(self) -> None:
        self.lock: threading.RLock = threading.RLock()
        self._faults: list[Fault] = []
        self._buses: list[SubscribedConnection] = []
        self._listening: set[Client] = set()
        """The clients that keep a bus, connected or not."""
        self._servers: dict[str, Server] = {}
        """One per namespace, since two namespaces share nothing."""
        self._history = 1
        self.life: int = 0
        """Counts the times that all connections were closed; a connection of an earlier life is not used again."""

    @property
    def identity(self) -> str:
        """The identity of the server; a restart changes it, since the data are lost."""
        return f"history-{self._history}"

    def server(self, namespace: str) -> Server:
        """The server's data of a namespace."""
        with self.lock:
            if namespace not in self._servers:
                self._servers[namespace] = Server(self.micros, self.identity)
            return self._servers[namespace]

    def micros(self) -> int:
        """The server's clock: the monotonic clock of this process, so that rounding loses nothing."""
        return int(monotonic() * 1e6)

    def restart(self) -> None:
        """Replace the server by an empty one; commands that wait for their execution are lost."""
        with self.lock:
            self._close(None)
            self._servers.clear()
            self._history += 1
            for fault in self._faults:
                fault.late.clear()

    # --------------------------------------------------------------------------------------------------------- faults

    def fault(self, kinds: Collection[Kind], client: Client, operation: str | None = None) -> Fault | None:
        """The newest fault of these kinds that is on for an operation of a cache; ``operation`` None: for its bus."""
        with self.lock:
            on = [fault for fault in self._faults if fault.kind in kinds and fault.concerns(client, operation)]
            return on[-1] if on else None

    def defer(self, kinds: Collection[Kind], client: Client, late: Late, operation: str | None = None) -> bool:
        """Defer a command to the end of such a fault, if one is on; whether it was deferred."""
        with self.lock:
            fault = self.fault(kinds, client, operation)
            if fault is not None:
                fault.late.append(late)
            return fault is not None

    def start(self, fault: Fault) -> None:
        """Begin a fault."""
        with self.lock:
            if fault in self._faults:
                raise RuntimeError(f"{fault} has been started already")
            self._faults.append(fault)
            if fault.kind is Kind.AWAY and not fault.operations:
                self._close(fault)
            elif fault.kind is Kind.BUS_CUT:
                self._close_buses(fault)

    def stop(self, fault: Fault) -> None:
        """End a fault."""
        with self.lock:
            if fault in self._faults:
                self._faults.remove(fault)
            late, fault.late = fault.late, []
            for command in late:
                command.execute()
            for bus in self._buses:
                bus.look()

    def settled(self) -> bool:
        """Whether every cache whose bus no fault keeps away is connected, and has applied all that was sent to it."""
        with self.lock:
            resting = {bus.client for bus in self._buses if bus.at_rest}
            return all(client in resting or self.fault(BUS_FAULTS, client) for client in self._listening)

    # ---------------------------------------------------------------------------------------------------- connections

    def listens(self, client: Client) -> None:
        """Note that a cache keeps a bus from now on."""
        with self.lock:
            self._listening.add(client)

    def leaves(self, client: Client) -> None:
        """Note that a cache is closed."""
        with self.lock:
            self._listening.discard(client)

    def subscribe(self, bus: SubscribedConnection) -> None:
        """Subscribe a connection."""
        with self.lock:
            self._buses.append(bus)
            self.server(bus.namespace).subscribe(bus.line)

    def drop(self, bus: SubscribedConnection) -> None:
        """End a connection."""
        with self.lock:
            if bus in self._buses:
                self._buses.remove(bus)
            self.server(bus.namespace).drop(bus.line)
            bus.closed = True
            bus.look()

    def _close(self, fault: Fault | None) -> None:
        self.life += 1
        self._close_buses(fault)

    def _close_buses(self, fault: Fault | None) -> None:
        for bus in [bus for bus in self._buses if fault is None or fault.concerns(bus.client, None)]:
            self.drop(bus)
