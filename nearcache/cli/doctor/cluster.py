"""Examine each primary of a cluster that has buckets of the namespace, and try all of them at once as a cache does."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from nearcache.advice import kind_of
from nearcache.cli.doctor.judge import judge
from nearcache.cli.doctor.trial import Trial
from nearcache.cli.servers import introduce
from nearcache.engine.ports import Bus, News, RemoteFailed, RemoteMisconfigured, SharedBus
from nearcache.errors import NearCacheWarning
from nearcache.findings import Finding
from nearcache.primaries import named
from nearcache.protocol.answers import BusItem
from nearcache.runtime.run_sync import run_sync
from nearcache.settings import Settings
from nearcache.sync import NearCache
from nearcache.transport.backend import Backend
from nearcache.transport.cluster import Cluster
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.examine import Server, examine_endpoint
from nearcache.transport.open import open_url

OF_SETTINGS = {"default-namespace"}
"""Kinds that are the same for each primary."""


@dataclass
class Examined:
    """A primary, and what it has said of itself."""

    address: str | None
    buckets: tuple[int, ...]
    server: Server | None = None
    echo: float | None = None
    """Seconds that a message took from one connection to another, the median."""


class OneChannel:
    """The Bus of one bucket, alone on a connection that could have several."""

    def __init__(self, bus: SharedBus, bucket: int) -> None:
        self._bus, self._bucket = bus, bucket
        self._channel: Any = None
        self.interrupt = bus.interrupt

    async def open(self) -> None:
        """Connect, and subscribe."""
        await self._bus.open()
        self._channel = await self._bus.join(self._bucket)

    async def ask_greeting(self) -> None:
        """Ask for a Greeting."""
        await self._channel.ask_greeting()

    async def ask_beat(self) -> None:
        """Ask for a Beat."""
        await self._channel.ask_beat()

    async def receive(self, timeout: float) -> Sequence[BusItem]:
        """What has come; a failure of the channel is raised."""
        news: list[News] = [item for _, items in await self._bus.receive(timeout) for item in items]
        for item in news:
            if isinstance(item, RemoteFailed):
                raise item
        return [item for item in news if not isinstance(item, RemoteFailed)]

    async def close(self) -> None:
        """Close the connection."""
        await self._bus.close()


class Examination:
    """The examination of a cluster.

    Attributes:
        primaries: those that have buckets, by the number of the first one.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        self._url, self._settings = url, settings
        self.primaries: list[Examined] = []

    def findings(self) -> Iterator[Finding]:
        """What is wrong, with the name of the primary.

        Raises:
            ConfigError: the URL can never work.
            RemoteFailed: no node tells where the buckets are.
        """
        told: set[tuple[str, str]] = set()
        for finding in self._all():
            about = finding.kind, "" if finding.kind in OF_SETTINGS else finding.detail.partition(" (")[0]
            if about not in told:
                told.add(about)
                yield finding

    def _all(self) -> Iterator[Finding]:
        cluster = _cluster_of(open_url(self._url, self._settings, asynchronous=False))
        try:
            run_sync(cluster.owners())
            introduce(cluster.remotes)
        finally:
            run_sync(cluster.close())
        endpoints = [None if node is None else node.endpoint for node in cluster.owner]
        for endpoint in dict.fromkeys(endpoints):
            buckets = tuple(bucket for bucket, owner in enumerate(endpoints) if owner is endpoint)
            address = None if endpoint is None else endpoint.shown.partition("://")[2]
            primary = Examined(address, buckets)
            self.primaries.append(primary)
            if endpoint is None:
                yield Finding("unreachable", f"{named(None, buckets)}: no node of the cluster has their slots")
                continue
            for finding in self._of(primary, endpoint):
                whose = "" if finding.kind in OF_SETTINGS else f"{named(address, buckets)}: "
                yield Finding(finding.kind, f"{whose}{finding.detail}")
        yield from self._of_whole()
        names = cluster.remotes[0].names
        if (disagreement := cluster.claims.disagreement(names)) is not None:
            yield Finding("other-protocol", disagreement)

    def _of(self, primary: Examined, endpoint: Endpoint) -> Iterator[Finding]:
        """What is wrong with one primary."""
        settings = self._settings
        try:
            primary.server = examine_endpoint(endpoint, settings)
        except RemoteMisconfigured as failure:
            yield Finding(kind_of(str(failure), "set-up"), str(failure))
            return
        except RemoteFailed as failure:
            yield Finding(kind_of(str(failure), "unreachable"), str(failure))
            return
        yield from judge(primary.server, settings, of_cluster=True)
        where = open_url(self._url, settings, asynchronous=False)
        cluster, bucket = _cluster_of(where), primary.buckets[0]
        with suppress(RemoteFailed):  # found out by the trial again
            run_sync(cluster.owners())

        def new_bus() -> Bus:
            place = endpoint.arguments["host"], endpoint.arguments["port"]
            return OneChannel(cluster.new_bus(place), bucket)

        trial = Trial(where._replace(remote=cluster.remotes[bucket], new_bus=new_bus), settings)
        yield from trial.findings()
        primary.echo = trial.echo

    def _of_whole(self) -> Iterator[Finding]:
        """What a cache says of itself after its first attempt to prove all buckets."""
        settings = self._settings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NearCacheWarning)
            cache = NearCache._make(self._url, settings)  # from_url takes no Settings
            try:
                proven = cache.wait_healthy(settings.redis_connect_timeout + settings.max_staleness)
                health = cache.health()
            finally:
                cache.close()
        yield from health.reasons
        if not proven and not health.reasons:
            yield Finding("unreachable", health.reason or "not every bucket was proven")


def _cluster_of(where: Backend) -> Cluster:
    assert where.buckets is not None  # noqa: S101  # the URL is that of a cluster
    places = where.buckets.places
    assert isinstance(places, Cluster)  # noqa: S101  # the same
    return places
