"""This library: NearCache and AsyncNearCache, hits with the bus at work, and both evictions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.rivals.base import (
    DECORATED,
    HIT,
    LOAD,
    ROOM,
    SET,
    TTL,
    VALUE,
    WIRE_GET,
    WIRE_LOAD,
    WIRE_SET,
    Cases,
    Fill,
    Rival,
    Stage,
    case,
    load,
    load_async,
    new_keys,
)
from nearcache import AsyncNearCache, NearCache
from nearcache.local.contents import STORES
from nearcache.local.store import Entry
from nearcache.protocol.versions import version_of
from nearcache.stats import Stats

PATIENT: dict[str, Any] = {"redis_timeout": 5, "max_staleness": 20}
"""Other work of the machine makes no read time out, and ends no proof."""
OPTIONS: dict[str, Any] = {"ttl": TTL, "l1_max_entries": ROOM, **PATIENT}
NARROW: dict[str, Any] = {"ttl": TTL, "l1_max_entries": 1, **PATIENT}
"""L1 has no room for a second entry, so that reads go to L2."""


def past_l1(cache: NearCache | AsyncNearCache, before: Stats) -> list[str]:
    """What shows that not every read since then was an L1 hit: the loop measured something else."""
    after = cache.stats()
    return [
        f"{cache!r} went past L1: {name} rose from {old} to {new}"
        for name in ("l2_hits", "misses", "loads", "evictions", "flushes")
        if (old := getattr(before, name)) != (new := getattr(after, name))
    ]


def _all_hits(cache: NearCache | AsyncNearCache, before: Stats) -> None:
    if problems := past_l1(cache, before):
        raise RuntimeError(problems[0])


@asynccontextmanager
async def cases(stage: Stage) -> AsyncIterator[Cases]:
    """NearCache; loads and sets without a server over memory://, as peers in the process have no server either."""
    url = stage.server.url
    with (
        NearCache.from_url(url, namespace="peers", **OPTIONS) as cache,
        NearCache.from_url(url, namespace="peers-2", **NARROW) as narrow,
        NearCache.from_url("memory://", **OPTIONS) as alone,
    ):
        user = cache.cached("user:{key}")(stage.once())
        if not (cache.wait_healthy(10) and cache.set_many(stage.values) and narrow.set_many(stage.values)):
            raise RuntimeError(f"{cache!r} did not store the values")
        for key in stage.values:
            user(key)
        names: dict[str, Any] = {"fresh": new_keys(), "load": load}
        before = cache.stats()
        yield {
            HIT: case("NearCache.get", "get(key)", get=cache.get),
            DECORATED: case("@NearCache.cached", "user(key)", user=user),
            LOAD: case("NearCache.get_or_set, memory://", "do(fresh(), load)", do=alone.get_or_set, **names),
            SET: case("NearCache.set, memory://", "do(key, VALUE)", do=alone.set, VALUE=VALUE),
            WIRE_GET: case("NearCache.get from L2, and into L1", "get(key)", get=narrow.get),
            WIRE_LOAD: case("NearCache.get_or_set", "do(fresh(), load)", do=narrow.get_or_set, **names),
            WIRE_SET: case("NearCache.set", "do(key, VALUE)", do=narrow.set, VALUE=VALUE),
        }
        _all_hits(cache, before)


@asynccontextmanager
async def cases_async(stage: Stage) -> AsyncIterator[Cases]:
    """AsyncNearCache, the same."""
    url = stage.server.url
    async with (
        AsyncNearCache.from_url(url, namespace="peers-3", **OPTIONS) as cache,
        AsyncNearCache.from_url(url, namespace="peers-4", **NARROW) as narrow,
        AsyncNearCache.from_url("memory://", **OPTIONS) as alone,
    ):
        once = stage.once()

        @cache.cached("user:{key}")
        async def user(key: str) -> Any:
            return once(key)

        stored = await cache.set_many(stage.values) and await narrow.set_many(stage.values)
        if not (await cache.wait_healthy(10) and stored):
            raise RuntimeError(f"{cache!r} did not store the values")
        for key in stage.values:
            await user(key)
        names: dict[str, Any] = {"fresh": new_keys(), "load": load_async}
        before = cache.stats()
        yield {
            HIT: case("AsyncNearCache.get", "await get(key)", get=cache.get),
            DECORATED: case("@AsyncNearCache.cached", "await user(key)", user=user),
            LOAD: case("AsyncNearCache.get_or_set, memory://", "await do(fresh(), load)", do=alone.get_or_set, **names),
            SET: case("AsyncNearCache.set, memory://", "await do(key, VALUE)", do=alone.set, VALUE=VALUE),
            WIRE_GET: case("AsyncNearCache.get from L2, and into L1", "await get(key)", get=narrow.get),
            WIRE_LOAD: case("AsyncNearCache.get_or_set", "await do(fresh(), load)", do=narrow.get_or_set, **names),
            WIRE_SET: case("AsyncNearCache.set", "await do(key, VALUE)", do=narrow.set, VALUE=VALUE),
        }
        _all_hits(cache, before)


def put_all(cache: NearCache | AsyncNearCache, entries: Callable[[int], Entry], keys: Sequence[str]) -> None:
    """Put entries into L1 by its own rule, without the way over Redis, and do the work that L1 put off.

    Args:
        cache: whose L1.
        entries: makes the entry of a key by the key's place.
        keys: of the entries.
    """
    tier = cache._core.tier
    for at, key in enumerate(keys):
        if not tier.put(key, entries(at), tier.snapshot(key)):
            raise RuntimeError(f"{key} was not put into L1")
    while tier.free_some():
        pass


def local(entries: int, **settings: Any) -> NearCache:
    """A cache over memory://, whose L1 is empty and accepts what is put into it."""
    cache = NearCache.from_url("memory://", ttl=TTL, l1_max_entries=entries, **settings)
    cache.set("first", 0)
    cache.clear_local()
    return cache


def _filling(eviction: str) -> Fill:
    async def fill(keys: Sequence[str], values: Sequence[Any]) -> object:
        cache = local(len(keys), eviction=eviction)
        make = cache._core.tier.make_entry

        def entry(at: int) -> Any:  # a deadline and a version of its own, as when entries come one after the other
            expires = 1e6 + at / 7
            return make(values[at], expires, version_of(at + 1, 1_700_000_000_000 + at), (), 20, expires)

        put_all(cache, entry, keys)
        return cache

    return fill


FILLS = {f"NearCache, {eviction}": _filling(eviction) for eviction in STORES}
SYNC = Rival("NearCache", "nearcache", cases, FILLS)
ASYNC = Rival("AsyncNearCache", "nearcache", cases_async)
