"""What lies between some caches and their fake server: connections, and the faults that are on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from enum import Enum
from time import monotonic
from typing import Protocol, Self

from nearcache.engine.ports import RemoteFailed
from nearcache.local.waiters import Latch
from nearcache.testing.model import Line, Server


class Kind(Enum):
    """What can go wrong."""

    AWAY = "the server is away: connections are closed and refused"
    HUNG = "the server has stopped: it takes everything and answers nothing"
    LOST_REPLIES = "what is asked is done, but the answer never comes"
    DELAY = "answers come late"
    BUS_CUT = "subscribed connections are closed and refused"
    BUS_HELD = "subscribed connections bring nothing"


BUS_FAULTS = frozenset({Kind.AWAY, Kind.HUNG, Kind.BUS_CUT, Kind.BUS_HELD})
"""What keeps a bus from bringing anything."""

OPERATIONS = frozenset(
    {
        "read",
        "tag_floors",
        "set",
        "delete",
        "mark_stale",
        "lease",
        "fill",
        "abort",
        "clear",
        "invalidate_tags",
        "probe",
    }
)
"""What a cache asks of its server; a fault may be for some of them alone."""


class Port(Protocol):
    """A subscribed connection that the network can end and wake."""

    client: object
    namespace: str
    line: Line
    closed: bool

    @property
    def at_rest(self) -> bool:
        """Whether all that has come was applied."""
        ...

    def look(self) -> None:
        """Something has changed."""
        ...


@dataclass(eq=False)
class Late:
    """A command that a hung server has taken and not executed, or somebody who connects to it."""

    wake: Latch
    call: Callable[[], object] = lambda: None
    answer: object = None
    failure: RemoteFailed | None = None

    def execute(self) -> None:
        """It runs, whether anybody still waits or not."""
        try:
            self.answer = self.call()
        except RemoteFailed as refusal:
            self.failure = refusal
        self.wake.set()

    def get(self) -> object:
        """What came of it."""
        if self.failure is not None:
            raise self.failure
        return self.answer


@dataclass(eq=False)
class Fault:
    """Something that goes wrong from ``start`` to ``stop``, or inside a ``with``; it may be started again."""

    network: Network = field(repr=False)
    kind: Kind
    operations: Collection[str] = ()
    """Those that it is for; none: all."""
    client: object = field(default=None, repr=False)
    """Whose connections it is for; None: everybody's."""
    seconds: float = 0.0
    late: list[Late] = field(default_factory=list, repr=False)
    """What was taken and not executed, in order."""

    def start(self) -> Self:
        """From now on."""
        self.network.start(self)
        return self

    def stop(self) -> None:
        """It is over; what was held back comes now."""
        self.network.stop(self)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def meets(self, client: object, operation: str | None) -> bool:
        """Whether it is for this cache's operation; None: its bus."""
        if self.client is not None and self.client is not client:
            return False
        return not self.operations or operation in self.operations


class Network:
    """A server, whoever is connected to it, and the faults that are on. All of it happens at once, under a lock."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._faults: list[Fault] = []
        self._buses: list[Port] = []
        self._listening: set[object] = set()
        """Whose bus is connected, or will be again."""
        self._servers: dict[str, Server] = {}
        """One per namespace, since they have nothing in common."""
        self._history = 1
        self.life = 0
        """Which connections are still good: those that were made in this life."""

    @property
    def identity(self) -> str:
        """Who the server is; another one after a restart, since it has forgotten everything."""
        return f"history-{self._history}"

    def server(self, namespace: str) -> Server:
        """What keeps a namespace."""
        with self.lock:
            if namespace not in self._servers:
                self._servers[namespace] = Server(self.micros, self.identity)
            return self._servers[namespace]

    def micros(self) -> int:
        """The server's clock, which is ours: then nothing is lost by rounding."""
        return int(monotonic() * 1e6)

    def restart(self) -> None:
        """Another server in place of this one, with nothing in it; what waits to be executed is lost."""
        with self.lock:
            self._close(None)
            self._servers.clear()
            self._history += 1
            for fault in self._faults:
                fault.late.clear()

    # --------------------------------------------------------------------------------------------------------- faults

    def fault(self, kinds: Collection[Kind], client: object, operation: str | None = None) -> Fault | None:
        """The latest fault of these kinds that is on for a cache's operation; None as operation: for its bus."""
        with self.lock:
            on = [fault for fault in self._faults if fault.kind in kinds and fault.meets(client, operation)]
            return on[-1] if on else None

    def defer(self, kinds: Collection[Kind], client: object, late: Late, operation: str | None = None) -> bool:
        """Put something off to the end of such a fault, if one is on; whether it was."""
        with self.lock:
            fault = self.fault(kinds, client, operation)
            if fault is not None:
                fault.late.append(late)
            return fault is not None

    def start(self, fault: Fault) -> None:
        """A fault begins."""
        with self.lock:
            if fault in self._faults:
                raise RuntimeError(f"{fault} has been started already")
            self._faults.append(fault)
            if fault.kind is Kind.AWAY and not fault.operations:
                self._close(fault.client)
            elif fault.kind is Kind.BUS_CUT:
                self._close_buses(fault.client)

    def stop(self, fault: Fault) -> None:
        """A fault ends."""
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
            return self._settled()

    def _settled(self) -> bool:
        resting = {bus.client for bus in self._buses if bus.at_rest}
        return all(client in resting or self.fault(BUS_FAULTS, client) for client in self._listening)

    # ---------------------------------------------------------------------------------------------------- connections

    def listens(self, client: object) -> None:
        """A cache keeps a bus from now on."""
        with self.lock:
            self._listening.add(client)

    def leaves(self, client: object) -> None:
        """A cache is closed."""
        with self.lock:
            self._listening.discard(client)

    def subscribe(self, bus: Port) -> None:
        """A connection is subscribed."""
        with self.lock:
            self._buses.append(bus)
            self.server(bus.namespace).subscribe(bus.line)

    def drop(self, bus: Port) -> None:
        """A connection ends, by whatever side."""
        with self.lock:
            if bus in self._buses:
                self._buses.remove(bus)
            self.server(bus.namespace).drop(bus.line)
            bus.closed = True
            bus.look()

    def _close(self, client: object) -> None:
        self.life += 1
        self._close_buses(client)

    def _close_buses(self, client: object) -> None:
        for bus in [bus for bus in self._buses if client is None or bus.client is client]:
            self.drop(bus)
