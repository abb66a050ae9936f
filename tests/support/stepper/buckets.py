"""A process of a schedule whose namespace has two buckets, each on a server of its own."""

from __future__ import annotations

from typing import Any

from nearcache.engine.buckets import core_of_buckets
from nearcache.engine.plain import LoneReads
from nearcache.engine.ports import RemoteFailed
from nearcache.engine.subscriber import Subscriber
from nearcache.local.snapshot import bucket_of
from nearcache.local.whole import WholeTier
from nearcache.settings import Settings
from nearcache.testing.model import Server
from tests.support.stepper.instance import Instance
from tests.support.stepper.points import Receiving, Request
from tests.support.stepper.ports import ModelBus, ModelRemote, ModelRuntime
from tests.support.stepper.world import STEPS, World

BUCKETS = 2


def key_of(bucket: int, number: int = 0) -> str:
    """A key of a bucket."""
    return [key for key in map("k{}".format, range(1000)) if bucket_of(key, BUCKETS) == bucket][number]


class Shard:
    """A world as one bucket sees it: the server is the one that has this bucket."""

    def __init__(self, world: World, bucket: int, server: type[Server] = Server) -> None:
        self._world = world
        self.server = server(world.micros, f"server of bucket {bucket}")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world, name)

    @property
    def now(self) -> float:
        """The world's time."""
        return self._world.now

    @now.setter
    def now(self, now: float) -> None:
        self._world.now = now


class Owner:
    """What a ModelBus knows of its process."""

    def __init__(self, shard: Shard, name: str, core: Any) -> None:
        self.world, self.name, self.core = shard, name, core
        self.bus: ModelBus | None = None


class Bucketed(Instance):
    """One process whose namespace has two buckets.

    Args:
        world: where it lives.
        shards: the servers of the buckets; all processes of a schedule share them.
        name: for labels.
    """

    def __init__(self, world: World, shards: list[Shard], name: str) -> None:
        self.world, self.name, self.shards = world, name, shards
        runtime = ModelRuntime(world)
        settings = Settings(jitter=0, ttl=300, breaker_failures=1000, buckets=BUCKETS)
        tier = WholeTier(settings.l1_max_entries, None, 10_000, "lru", buckets=BUCKETS)
        remotes: list[Any] = [ModelRemote(shard, f"{name}{bucket}") for bucket, shard in enumerate(shards)]  # type: ignore[arg-type]  # it stands for one
        self.core = core_of_buckets(
            settings=settings,
            runtime=runtime,
            remotes=remotes,
            new_bus=lambda: None,  # type: ignore[arg-type, return-value]  # it is never called
            tier=tier,
            reads=LoneReads,
        )
        self.owners: list[Owner] = []
        self.listenings = []
        for bucket, (part, shard) in enumerate(zip(self.core.parts, shards, strict=True)):
            owner = Owner(shard, f"{name}{bucket}", part)
            self.owners.append(owner)
            part.new_bus = lambda owner=owner: ModelBus(owner)
            subscriber = Subscriber(part, stop=runtime.latch(), tried=runtime.latch())
            self.listenings.append(world.start(f"{owner.name}: listen", subscriber.run()))
        world.instances.append(self)
        self.connect()

    def deliver(self, count: int = STEPS) -> None:
        """Deliver what is on the way for each bucket."""
        for bucket in range(BUCKETS):
            self.deliver_to(bucket, count)

    def deliver_to(self, bucket: int, count: int = STEPS) -> None:
        """Deliver what is on the way for one bucket."""
        owner, listening = self.owners[bucket], self.listenings[bucket]
        for _ in range(count):
            while isinstance(listening.point, Request):
                self.world.step(listening)
            bus, point = owner.bus, listening.point
            if bus is None or bus.cut_off or not isinstance(point, Receiving):
                return
            while bus.line.questions:
                self.shards[bucket].server.answer(bus.line)
            if not bus.line.items:
                return
            point.resume([bus.line.items.popleft()])

    def lose_bucket(self, bucket: int) -> None:
        """The bus of a bucket is cut, and the subscriber notices."""
        owner, point = self.owners[bucket], self.listenings[bucket].point
        assert owner.bus is not None
        assert isinstance(point, Receiving)
        owner.bus.cut()
        point.resume(error=RemoteFailed("the server closed the connection"))

    def connect_bucket(self, bucket: int) -> None:
        """The subscriber of a bucket connects anew, and hears the greeting."""
        listening = self.listenings[bucket]
        while not isinstance(listening.point, Receiving):
            self.world.step(listening)
        self.deliver_to(bucket)

    def connect(self, *, greet: bool = True) -> None:
        """Let the subscribers of all buckets connect, and hear the greetings."""
        for listening in self.listenings:
            while not isinstance(listening.point, Receiving):
                self.world.step(listening)
        if greet:
            self.deliver()

    def beat(self) -> None:
        """Let the next heartbeat of each bucket be asked, answered and heard."""
        for bucket in range(BUCKETS):
            self.beat_of(bucket)

    def beat_of(self, bucket: int) -> None:
        """Let the next heartbeat of one bucket be asked, answered and heard."""
        point = self.listenings[bucket].point
        assert isinstance(point, Receiving)
        point.silence()
        self.deliver_to(bucket)
