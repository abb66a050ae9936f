"""A scheduler that steps flows one suspension at a time, so that a test decides the order of everything.

Flows of ``nearcache.engine`` run over a Runtime, a Remote and a Bus that suspend at named points: a request is sent,
executed at the server and answered in three separate steps; a wait; a loader; a receive on the bus. Nothing else
happens: time passes when a wait is let time out, messages arrive when they are delivered.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, TypeVar

from nearcache.engine import load, read, write
from nearcache.engine.breaker import Breaker
from nearcache.engine.core import Core
from nearcache.engine.ports import MISSING, RemoteFailed, RemoteTimeout
from nearcache.engine.subscriber import Subscriber
from nearcache.local.invalidation import Invalidation
from nearcache.local.singleflight import Outcome
from nearcache.local.tier import Tier
from nearcache.policy import LoadOptions, Policy
from nearcache.protocol.answers import BusItem, Take
from nearcache.settings import Settings
from nearcache.testing.model import Line, Server

T = TypeVar("T")

STEPS = 10_000
"""More than any schedule needs: one that never ends is a failure."""


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


class Flow:
    """A coroutine under the scheduler."""

    def __init__(self, world: World, name: str, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.world = world
        self.name = name
        self._coroutine = coroutine
        self.point: Point | None = None
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def advance(self, value: object = None, error: BaseException | None = None) -> None:
        """Run to the next suspension."""
        before, self.world.running = self.world.running, self
        self.point = None
        try:
            point = self._coroutine.send(value) if error is None else self._coroutine.throw(error)
        except StopIteration as stop:
            self.done, self.result = True, stop.value
        except (Exception, Cancelled) as failure:
            self.done, self.error = True, failure
        else:
            point.flow = self
            self.point = point
        finally:
            self.world.running = before

    def cancel(self, after: float = 0.0) -> None:
        """Cancel it where it is suspended; a request that was sent stays sent."""
        del after
        point = self.point
        assert point is not None
        if isinstance(point, Request) and point.executed:
            self.world.requests.remove(point)
        self.advance(error=Cancelled())

    @property
    def request(self) -> Request:
        """The request it waits for."""
        assert isinstance(self.point, Request), f"{self} waits at {self.point}"
        return self.point

    def value(self) -> Any:
        """Its result, once it has ended well."""
        assert self.done, f"{self} waits at {self.point}"
        if self.error is not None:
            raise self.error
        return self.result

    def __repr__(self) -> str:
        return f"<{self.name}>"


class World:
    """One server, some instances, and everything that is under way between them."""

    def __init__(self, server: Callable[..., Server] = Server) -> None:
        self.now = 1000.0
        self.running: Flow | None = None
        self.requests: list[Request] = []
        self.flows: list[Flow] = []
        self.instances: list[Instance] = []
        self.server = server(self.micros)

    def micros(self) -> int:
        """The server's clock, an hour ahead of everybody's."""
        return round((self.now + 3600) * 1e6)

    def tick(self) -> None:
        """A command takes some time: no two answers have the same one."""
        self.now += 2e-6

    def start(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> Flow:
        """Run a coroutine to its first suspension."""
        flow = Flow(self, name, coroutine)
        self.flows.append(flow)
        flow.advance()
        return flow

    # ------------------------------------------------------------------------------------------------------ scripting

    def step(self, flow: Flow) -> None:
        """Let a flow go on from where it is, as if nothing were slow."""
        point = flow.point
        if isinstance(point, Request):
            if not point.executed:
                point.execute()
            point.reply()
        elif isinstance(point, Pause):
            point.end()
        else:
            assert isinstance(point, Loading), f"{flow} waits at {point}"
            point.resume()

    def run(self, flow: Flow) -> Any:
        """Let one flow run to its end, and nothing else; its result."""
        for _ in range(STEPS):
            if flow.done:
                return flow.value()
            self.step(flow)
        raise AssertionError(f"{flow} does not end")

    def reach(self, flow: Flow, label: str) -> Flow:
        """Let one flow run until it is suspended at a point of this name."""
        for _ in range(STEPS):
            assert flow.point is not None, f"{flow} has ended before {label}"
            if label in flow.point.label:
                return flow
            self.step(flow)
        raise AssertionError(f"{flow} does not reach {label}")

    def finish(self) -> None:
        """Let everything that has begun come to its end, loaders and messages too."""
        for _ in range(STEPS):
            self.deliver_all()
            flow = next((flow for flow in self.flows if not flow.done and not self.sleeps(flow)), None)
            if flow is None:
                late = [request for request in self.requests if not request.open]
                if not late:
                    return
                for request in late:
                    request.execute()
            else:
                self.step(flow)
        raise AssertionError("the schedule does not end")

    def sleeps(self, flow: Flow) -> bool:
        """Whether a flow only waits for something that may come."""
        return isinstance(flow.point, Receiving) or (isinstance(flow.point, Pause) and not flow.point.due)

    def deliver_all(self) -> None:
        """Deliver every message and answer to everybody who is connected."""
        for instance in self.instances:
            instance.deliver()


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

    async def acquire(self, timeout: float) -> bool:
        """Suspend until there is one."""
        until = self._world.now + timeout
        while not self.free:
            if self._world.now >= until:
                return False
            self._news = ModelLatch(self._world)
            await self._news.wait(until - self._world.now)
        self.free -= 1
        return True

    def release(self) -> None:
        """Whoever waits may go on."""
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

    async def settle(self, work: Coroutine[Any, Any, object]) -> None:
        """A flow of its own."""
        self._world.start("settle", work)


class ModelRemote:
    """A Remote whose every method is a Request."""

    SCRIPTS = (
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
    )

    def __init__(self, world: World, name: str) -> None:
        self._world = world
        self._name = name

    def __getattr__(self, script: str) -> Callable[..., Awaitable[Any]]:
        if script not in self.SCRIPTS:
            raise AttributeError(script)

        async def ask(*args: Any, **options: Any) -> Any:
            def call(server: Server) -> object:
                return getattr(server, script)(*args, **options)

            return await Request(self._world, f"{self._name}: {script}", call)

        return ask

    async def read_one(self, key: str, *, with_floor: bool, take: Take[T]) -> T:
        """By itself."""
        (record,), floor = await self.read([key], with_floor=with_floor)
        return take(record, floor)

    def now(self) -> int:
        """The server's clock."""
        return self._world.micros()

    async def connect(self) -> None:
        """It is known."""

    def discard_idle(self) -> None:
        """There are no connections."""

    async def close(self) -> None:
        """There are no connections."""


class ModelBus:
    """A Bus over a Line; a loss is made with ``cut`` and noticed with ``notice``, or by silence."""

    def __init__(self, owner: Instance) -> None:
        self.world = owner.world
        self.owner = owner
        self.line = Line()
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


class Instance:
    """One process: a cache without a face.

    Args:
        world: where it lives.
        name: for labels.
        tier: the class of its L1.
        invalidation: the class of its invalidation.
        remote: the class of its remote.
    """

    def __init__(
        self,
        world: World,
        name: str,
        *,
        tier: type[Tier] = Tier,
        invalidation: type[Invalidation] = Invalidation,
        remote: type[ModelRemote] = ModelRemote,
        connected: bool = True,
    ) -> None:
        self.world = world
        self.name = name
        self.bus: ModelBus | None = None
        runtime = ModelRuntime(world)
        settings = Settings(jitter=0, ttl=300, breaker_failures=1000)
        local = tier(settings.l1_max_entries)
        self.core = Core(
            settings=settings,
            runtime=runtime,
            remote=remote(world, name),  # type: ignore[arg-type]  # its methods come from __getattr__
            new_bus=lambda: ModelBus(self),
            tier=local,
            invalidation=invalidation(local, settings.max_staleness),
            breaker=Breaker(settings.breaker_failures, settings.breaker_reset),
            policy=Policy.of(settings),
        )
        self.subscriber = Subscriber(self.core, stop=runtime.latch(), tried=runtime.latch())
        world.instances.append(self)
        self.listening = world.start(f"{name}: listen", self.subscriber.run())
        if connected:
            self.connect()

    # ------------------------------------------------------------------------------------------------------- the words

    def look(self, key: str) -> Any:
        """The look into L1 as the faces do it."""
        entry = self.core.tier.entries.get(key)
        if entry is None or self.world.now >= entry.deadline or self.world.now >= self.core.tier.fresh_until:
            return MISSING
        return entry.value

    def serves(self, key: str) -> bool:
        """Whether a read is answered without L2."""
        loaded = self.core.tier.fallback.get(key)
        return self.look(key) is not MISSING or (loaded is not None and self.world.now < loaded.deadline)

    def get(self, key: str) -> Flow:
        """Begin a get; its result is MISSING when there is none."""

        async def flow() -> Any:
            value = self.look(key)
            return await read.get(self.core, key) if value is MISSING else value

        return self.world.start(f"{self.name}: get {key}", flow())

    def load(self, key: str, loader: Callable[[], Any], *, refresh: bool = False, **options: Any) -> Flow:
        """Begin a get_or_set, or a refresh; the loader reads now-or-later and suspends once before it returns."""

        async def slow() -> Any:
            value = loader()
            await Loading(self.world, f"{self.name}: loader {key}")
            return value

        async def flow() -> Any:
            value = MISSING if refresh else self.look(key)
            if value is not MISSING:
                return value
            outcome = await load.get_or_load(self.core, key, slow, self._policy(options), replace=refresh)
            return outcome.get()

        return self.world.start(f"{self.name}: load {key}", flow())

    def set(self, key: str, value: object, **options: Any) -> Flow:
        """Begin a set."""
        return self.world.start(f"{self.name}: set {key}", write.store(self.core, {key: value}, self._policy(options)))

    def delete(self, *keys: str, hold_ms: int = 0) -> Flow:
        """Begin a delete."""
        return self.world.start(f"{self.name}: delete {keys}", write.delete(self.core, keys, hold_ms))

    def mark_stale(self, *keys: str) -> Flow:
        """Begin to mark values as stale."""
        return self.world.start(f"{self.name}: mark_stale {keys}", write.mark_stale(self.core, keys))

    def clear(self) -> Flow:
        """Begin a clear."""
        return self.world.start(f"{self.name}: clear", write.clear(self.core))

    def invalidate(self, *tags: str) -> Flow:
        """Begin an invalidation of tags."""
        return self.world.start(f"{self.name}: tags {tags}", write.invalidate_tags(self.core, tags))

    def _policy(self, options: LoadOptions | dict[str, Any]) -> Policy:
        return self.core.policy.over(options)  # type: ignore[arg-type]  # a test's own

    # --------------------------------------------------------------------------------------------------------- the bus

    def deliver(self, count: int = STEPS) -> None:
        """The server answers what was asked on the bus; deliver so many items of what is on the way.

        What the subscriber asks of the server by itself meanwhile, a probe or a replay, is answered at once.
        """
        for _ in range(count):
            while isinstance(self.listening.point, Request):
                self.world.step(self.listening)
            bus, point = self.bus, self.listening.point
            if bus is None or bus.cut_off or not isinstance(point, Receiving):
                return
            while bus.line.questions:
                self.world.server.answer(bus.line)
            if not bus.line.items:
                return
            point.resume([bus.line.items.popleft()])

    def lose(self) -> None:
        """The bus is cut, and the subscriber notices."""
        assert self.bus is not None
        assert isinstance(self.listening.point, Receiving)
        self.bus.cut()
        self.listening.point.resume(error=RemoteFailed("the server closed the connection"))

    def connect(self, *, greet: bool = True) -> None:
        """Let the subscriber connect and, if asked, hear the greeting."""
        while not isinstance(self.listening.point, Receiving):
            self.world.step(self.listening)
        if greet:
            self.deliver()

    def beat(self) -> None:
        """Let the next heartbeat be asked, answered and heard."""
        assert isinstance(self.listening.point, Receiving)
        self.listening.point.silence()
        self.deliver()
