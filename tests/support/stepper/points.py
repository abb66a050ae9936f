"""The points at which a flow is suspended: a request, a wait, a loader, a receive on the bus."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

from nearcache.engine.ports import RemoteFailed, RemoteTimeout
from nearcache.testing.model import Server

if TYPE_CHECKING:
    from tests.support.stepper.ports import ModelBus, ModelLatch
    from tests.support.stepper.world import Flow, World


class Cancelled(BaseException):
    """What a cancelled flow is told; no Exception, as asyncio's."""


class Point:
    """Where a flow is suspended."""

    def __init__(self, world: World, label: str) -> None:
        self.world = world
        self.label = label
        self.flow: Flow | None = None

    def __await__(self) -> Generator[Point, Any, Any]:
        return (yield self)

    @property
    def open(self) -> bool:
        """Whether the flow still waits here."""
        return self.flow is not None and self.flow.point is self

    def resume(self, value: object = None, error: BaseException | None = None) -> None:
        """Let the flow go on."""
        assert self.flow is not None
        assert self.open
        self.flow.advance(value, error)

    def __repr__(self) -> str:
        return self.label


class Request(Point):
    """A command on its way to the server and back; it may run late, or its answer be lost."""

    def __init__(self, world: World, label: str, call: Callable[[Server], object]) -> None:
        super().__init__(world, label)
        self._call = call
        self.executed = False
        self.answer: object = None
        self.refusal: RemoteFailed | None = None
        world.requests.append(self)

    def execute(self) -> None:
        """It runs at the server, whether anybody still waits or not."""
        assert not self.executed
        self.executed = True
        self.world.tick()
        try:
            self.answer = self._call(self.world.server)
        except RemoteFailed as refusal:
            self.refusal = refusal
        if not self.open:
            self.world.requests.remove(self)

    def reply(self) -> None:
        """The answer arrives."""
        assert self.executed
        self.world.requests.remove(self)
        self.resume(self.answer, self.refusal)

    def fail(self, *, timeout: bool = False) -> None:
        """The connection fails, or patience ends. What was not executed may still be, unless it is lost."""
        if self.executed:
            self.world.requests.remove(self)
        self.resume(error=RemoteTimeout("no answer in time") if timeout else RemoteFailed("the connection failed"))

    def lose(self) -> None:
        """It will never reach the server."""
        self.world.requests.remove(self)


class Pause(Point):
    """A wait that ends when it is woken or its time is over."""

    def __init__(self, world: World, label: str, wake: ModelLatch, timeout: float) -> None:
        super().__init__(world, label)
        self.wake = wake
        self.deadline = world.now + timeout

    @property
    def ready(self) -> bool:
        """Whether it was woken."""
        return self.wake.rung

    @property
    def due(self) -> bool:
        """Whether it was woken, or its time is over."""
        return self.ready or self.deadline <= self.world.now

    def end(self) -> None:
        """Go on: woken, else the time is over."""
        if not self.ready:
            self.world.now = max(self.world.now, self.deadline)
        self.resume(self.ready)


class Loading(Point):
    """A loader that has read its row and has not returned."""


class Receiving(Point):
    """A subscriber that waits for its bus."""

    def __init__(self, bus: ModelBus, timeout: float) -> None:
        super().__init__(bus.world, f"{bus.owner.name}: receive")
        self.bus = bus
        self.deadline = bus.world.now + timeout

    def silence(self) -> None:
        """Nothing came in time."""
        self.world.now = max(self.world.now, self.deadline)
        self.resume([])
