"""One process of a schedule: a cache without its public class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nearcache.engine import atomic, load, load_many, read, write
from nearcache.engine.breaker import Breaker
from nearcache.engine.core import Core
from nearcache.engine.ports import MISSING, RemoteFailed
from nearcache.engine.subscriber import Subscriber
from nearcache.local.invalidation import Invalidation
from nearcache.local.tier import Tier
from nearcache.policy import LoadOptions, Policy
from nearcache.settings import Settings
from tests.support.stepper.points import Loading, Receiving, Request
from tests.support.stepper.ports import ModelBus, ModelRemote, ModelRuntime
from tests.support.stepper.world import STEPS, Flow, World


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
        if entry is None or self.world.now >= entry.deadline or self.world.now >= entry.proof.until:
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

    def load_many(self, keys: Sequence[str], loader: Callable[[str], Any], **options: Any) -> Flow:
        """Begin a get_or_set_many; its loader gives what this one gives for each key, but what is MISSING."""

        async def slow(names: Sequence[str]) -> dict[str, Any]:
            values = {name: loader(name) for name in names}
            await Loading(self.world, f"{self.name}: loader {names}")
            return {name: value for name, value in values.items() if value is not MISSING}

        async def flow() -> dict[str, Any]:
            found = {key: value for key in keys if (value := self.look(key)) is not MISSING}
            absent = [key for key in keys if key not in found]
            outcomes = await load_many.get_or_load_many(self.core, absent, slow, self._policy(options))
            return found | load_many.values_of(outcomes)

        return self.world.start(f"{self.name}: load {keys}", flow())

    def set(self, key: str, value: object, **options: Any) -> Flow:
        """Begin a set."""
        return self.world.start(
            f"{self.name}: set {key}", write.store_one(self.core, key, value, self._policy(options))
        )

    def delete(self, *keys: str, hold_ms: int = 0) -> Flow:
        """Begin a delete."""
        return self.world.start(f"{self.name}: delete {keys}", write.delete(self.core, keys, hold_ms))

    def add(self, key: str, value: object, **options: Any) -> Flow:
        """Begin an add."""
        return self.world.start(f"{self.name}: add {key}", atomic.add(self.core, key, value, self._policy(options)))

    def touch(self, key: str, ttl: float) -> Flow:
        """Begin a touch."""
        return self.world.start(f"{self.name}: touch {key}", atomic.touch(self.core, key, self._policy({"ttl": ttl})))

    def incr(self, key: str, delta: int = 1, initial: int | None = 0) -> Flow:
        """Begin an incr."""
        flow = atomic.incr(self.core, key, delta, initial, self.core.policy)
        return self.world.start(f"{self.name}: incr {key}", flow)

    def delete_existing(self, key: str) -> Flow:
        """Begin a delete that tells whether it made a difference."""
        return self.world.start(f"{self.name}: delete_existing {key}", write.delete_existing(self.core, key))

    def mark_stale(self, *keys: str) -> Flow:
        """Begin to mark values as stale."""
        return self.world.start(f"{self.name}: mark_stale {keys}", write.mark_stale(self.core, keys))

    def clear(self) -> Flow:
        """Begin a clear."""
        return self.world.start(f"{self.name}: clear", write.clear(self.core))

    def invalidate(self, *tags: str, stale: bool = False) -> Flow:
        """Begin an invalidation of tags."""
        what = "mark_stale tags" if stale else "tags"
        return self.world.start(f"{self.name}: {what} {tags}", write.invalidate_tags(self.core, tags, stale=stale))

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
