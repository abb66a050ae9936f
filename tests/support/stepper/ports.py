"""The ports of the engine as the scheduler has them: each call that waits is a point."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from nearcache.local.singleflight import Outcome
from nearcache.protocol.answers import BusItem
from nearcache.testing.model import Server
from nearcache.testing.state import Line
from tests.support.stepper.points import Pause, Receiving, Request
from tests.support.stepper.world import Flow, World

if TYPE_CHECKING:
    from tests.support.stepper.instance import Instance


class ModelLatch:
    """A Wake of the scheduler."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.rung = False

    def set(self) -> None:
        """Wake; whoever waits goes on when it is stepped."""
        self.rung = True

    async def wait(self, timeout: float) -> bool:
        """Suspend, unless it was woken already."""
        if self.rung:
            return True
        return bool(await Pause(self._world, "wait", self, timeout))


class ModelPermits:
    """Permits of the scheduler."""

    def __init__(self, world: World, count: int) -> None:
        self._world = world
        self.free = count
        self._news = ModelLatch(world)

    def more(self) -> object:
        """One beyond the bound."""
        return True

    def retire(self, permit: object) -> None:
        """It was one beyond the bound."""

    async def acquire(self, timeout: float) -> object | None:
        """Suspend until there is one."""
        until = self._world.now + timeout
        while not self.free:
            if self._world.now >= until:
                return None
            self._news = ModelLatch(self._world)
            await self._news.wait(until - self._world.now)
        self.free -= 1
        return True

    def release(self, permit: object) -> None:
        """Whoever waits may go on."""
        del permit
        self.free += 1
        self._news.set()


class ModelRuntime:
    """A Runtime of the scheduler: flows are its tasks."""

    def __init__(self, world: World) -> None:
        self._world = world

    def permits(self, count: int) -> ModelPermits:
        """So many permits."""
        return ModelPermits(self._world, count)

    async def spawn(self, work: Coroutine[Any, Any, object], owner: object, timeout: float) -> Flow:
        """A flow of its own."""
        del owner, timeout
        return self._world.start("background", work)

    async def together(self, works: Sequence[Coroutine[Any, Any, Any]]) -> list[Any]:
        """One after the other."""
        return [await work for work in works]

    def start(self, work: Coroutine[Any, Any, object], name: str) -> Flow:
        """A flow of its own."""
        return self._world.start(name, work)

    def monotonic(self) -> float:
        """The world's time."""
        return self._world.now

    def callers(self) -> tuple[object, ...]:
        """The flow that runs."""
        return (self._world.running,)

    def latch(self) -> ModelLatch:
        """A new Latch."""
        return ModelLatch(self._world)

    async def load(self, loader: Callable[[], Awaitable[Any]]) -> Outcome:
        """Await the loader."""
        try:
            return Outcome(await loader())
        except Exception as error:
            return Outcome(error=error)

    async def give_way(self) -> None:
        """Go on at once."""

    async def settle(self, work: Coroutine[Any, Any, object]) -> None:
        """A flow of its own."""
        self._world.start("settle", work)


class ModelRemote:
    """A Remote whose every method is a Request."""

    SCRIPTS = (
        "read",
        "tag_floors",
        "set",
        "add",
        "touch",
        "incr",
        "delete_existing",
        "delete",
        "mark_stale",
        "lease",
        "fill",
        "abort",
        "clear",
        "invalidate_tags",
        "probe",
        "greet",
    )
    SEEN = (
        "set",
        "add",
        "touch",
        "incr",
        "delete",
        "delete_existing",
        "mark_stale",
        "lease",
        "clear",
        "invalidate_tags",
        "greet",
    )
    """Those that carry the highest number that the client has seen."""
    PIPELINED = ("lease", "fill", "abort")
    """Those that come as many scripts in one request."""

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name
        self.seen: Callable[[], int] = lambda: 0
        self.server: Server | None = None
        """The server behind its connections; None: they are made anew, to the world's present one."""

    def __getattr__(self, script: str) -> Callable[..., Awaitable[Any]]:
        if script not in self.SCRIPTS:
            raise AttributeError(script)

        async def ask(*args: Any, **options: Any) -> Any:
            options.pop("waited", None)  # a part of its time limit; here nothing takes time
            if script in self.SEEN:
                options["seen"] = self.seen()

            def call(server: Server) -> object:
                run = getattr(self.server or server, script)
                if script not in self.PIPELINED:
                    return run(*args, **options)
                many, *rest = args
                return [run(*one, *rest, **options) for one in many]

            return await Request(self._world, f"{self._name}: {script}", call)

        return ask

    def now(self) -> int:
        """The server's clock."""
        return self._world.micros()

    async def connect(self) -> None:
        """It is known."""

    def discard_idle(self) -> None:
        """The next request goes to the server of then."""
        self.server = None

    async def close(self) -> None:
        """There are no connections."""


class ModelBus:
    """A Bus over a Line; a loss is made with ``cut`` and noticed with ``notice``, or by silence."""

    def __init__(self, owner: Instance) -> None:
        self.world = owner.world
        self.owner = owner
        self.line = Line(seen=lambda: owner.core.invalidation.seen)
        self.cut_off = False
        self._server = self.world.server
        owner.bus = self

    async def open(self) -> None:
        """Subscribe."""
        await Request(self.world, f"{self.owner.name}: connect", lambda server: server.subscribe(self.line))

    async def ask_greeting(self) -> None:
        """The question is on its way."""
        self.line.questions.append("greeting")

    async def ask_beat(self) -> None:
        """The question is on its way."""
        self.line.questions.append("beat")

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        """Suspend."""
        items: Sequence[BusItem] = await Receiving(self, timeout)
        return items

    def interrupt(self) -> None:
        """The connection ends, and the subscriber notices."""
        self.cut()

    async def close(self) -> None:
        """The connection ends."""
        self.cut()

    def cut(self) -> None:
        """The connection ends, and nobody here has noticed."""
        self.cut_off = True
        self._server.drop(self.line)
