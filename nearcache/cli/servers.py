"""The servers of a namespace, of which some may be away: connect to each, and name those that can't be asked."""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from typing import cast

from nearcache.engine.buckets import address_of
from nearcache.engine.core import Core
from nearcache.engine.ports import RemoteFailed
from nearcache.engine.rights import try_rights
from nearcache.primaries import named
from nearcache.runtime.run_sync import run_sync
from nearcache.sync import NearCache
from nearcache.transport.claims import Vacant
from nearcache.transport.client import RedisRemote
from nearcache.transport.port import Transport

ROUNDS = 3
"""In a new namespace the first bucket is taken when all have told that they are empty, and then the others are."""


def introduce(remotes: Sequence[object]) -> list[RemoteFailed | None]:
    """Connect to the server of each bucket; by bucket, why that could not be done."""
    failures: list[RemoteFailed | None] = []
    for _ in range(ROUNDS):
        failures = []
        tried: dict[Transport | None, RemoteFailed | None] = {}
        for remote in cast("Sequence[RedisRemote]", remotes):
            server = remote.transport.server
            if server is None or server not in tried:
                failure = None
                try:
                    run_sync(remote.connect())
                except RemoteFailed as known:
                    failure = known
                server = remote.transport.server
                tried[server] = failure
            failures.append(tried[server])
        if not any(isinstance(failure, Vacant) for failure in failures):
            break
    return failures


def named_failures(failures: Mapping[Core, RemoteFailed]) -> list[str]:
    """A sentence for each server that some of these buckets are on; of a cache of one bucket, the failure alone."""
    servers: dict[str | None, list[Core]] = {}
    for core in failures:
        servers.setdefault(address_of(core.place), []).append(core)
    return [_named(address, cores, failures[cores[0]]) for address, cores in servers.items()]


def _named(address: str | None, cores: Sequence[Core], failure: RemoteFailed) -> str:
    if cores[0].whole is None:
        return str(failure)
    return f"{named(address, [core.tier.proof.bucket for core in cores])}: {failure}"


def connect_all(cache: NearCache) -> dict[Core, RemoteFailed]:
    """Connect to every server of a cache without a bus; by bucket, why that could not be done.

    Raises:
        RemoteFailed: nobody tells where the buckets are.
    """
    core, buckets = cache._core, cache._backend.buckets  # noqa: SLF001  # the library has no method for it
    if buckets is not None:
        for part, place in zip(core.parts, run_sync(buckets.places.owners()), strict=True):
            part.place = place
    failures = introduce([one.remote for one in core.all])
    return {one: failure for one, failure in zip(core.all, failures, strict=True) if failure is not None}


def rights_lacking(cache: NearCache, cores: Iterable[Core], failures: Container[Core]) -> dict[Core, RemoteFailed]:
    """Try the rights that writes need, once on each server that answers; by bucket, which are lacking."""
    lacking: dict[Core, RemoteFailed] = {}
    tried: dict[Hashable, RemoteFailed | None] = {}
    for core in cores:
        if core in failures:
            continue
        if core.place not in tried:
            tried[core.place] = None
            if not run_sync(try_rights(core, "")):
                tried[core.place] = RemoteFailed(core.requests.denied or cache.health().reason or "no answer")
        failure = tried[core.place]
        if failure is not None:
            lacking[core] = failure
    return lacking
