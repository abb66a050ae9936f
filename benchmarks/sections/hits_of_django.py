"""A hit of Django's cache, awaited and plain: this library's L1 beside LocMemCache and Django's RedisCache.

Django's own backends answer ``aget`` in a thread. The clock is the one on the wall, since two of the three wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.core.cache import caches

from benchmarks.harness.timing import EMPTY, Case, Times, compare
from nearcache.testing import EmbeddedServer
from tests.support.tables import Table

BACKENDS: Mapping[str, Mapping[str, Any]] = {
    "nearcache": {
        "BACKEND": "nearcache.integrations.django.NearCacheBackend",
        "OPTIONS": {"namespace": "hits", "max_staleness": 20, "redis_timeout": 5},
    },
    "LocMemCache": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
    "RedisCache": {"BACKEND": "django.core.cache.backends.redis.RedisCache"},
}
KEYS = [f"user:{number}" for number in range(50)]
VALUE = "Ada Lovelace"


def measure(rounds: int) -> Times:
    """Hits of each, by ``aget`` and ``get``."""
    with EmbeddedServer() as server:
        settings.configure(
            CACHES={
                alias: {"LOCATION": "" if alias == "LocMemCache" else server.url, **backend}
                for alias, backend in {"default": BACKENDS["nearcache"], **BACKENDS}.items()
            }
        )
        return asyncio.run(_measure(rounds))


async def _measure(rounds: int) -> Times:
    cases = []
    for name in BACKENDS:
        cache = caches[name]
        for key in KEYS:
            await cache.aset(key, VALUE, 3600)
            if await cache.aget(key) != VALUE:
                raise RuntimeError(f"{name} has not kept {key}")
        names = {"cache": cache}
        cases += [
            Case(f"{name}, await aget", "await cache.aget(key)", names),
            Case(f"{name}, get", "cache.get(key)", names),
        ]
    times = await compare(cases, KEYS, rounds, seconds=0.2, waits=True)
    near = caches["nearcache"].near
    if near.stats().l2_hits or near.stats().misses:
        raise RuntimeError(f"not all reads were hits of L1: {near.stats()}")
    return times


def table(times: Times) -> Table:
    """Microseconds of each."""
    spreads = {label: times.ns(label) for label in times.rounds[0] if label != EMPTY}
    rows = [
        [label, f"{ns.median / 1e3:.2f}", f"{ns.least / 1e3:.2f}–{ns.greatest / 1e3:.2f}"]
        for label, ns in spreads.items()
    ]
    notes = [f"medians of {len(times.rounds)} interleaved rounds, by the clock on the wall"]
    return Table("A hit in Django", ["", "µs", "least–greatest"], rows, notes)
