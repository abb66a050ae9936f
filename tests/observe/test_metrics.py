"""The table of metrics: names by Prometheus' conventions, bounded labels, and nothing of stats() left out."""

from __future__ import annotations

import dataclasses
import gc
import math
import os
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from nearcache import NearCache, Stats
from nearcache.health import Health
from nearcache.local.effects import Cause
from nearcache.observe.metrics import METRICS, Look, read
from nearcache.observe.prometheus import register
from nearcache.testing import FakeServer, FaultProxy
from tests.support.cases import each
from tests.support.twins import MakeCache
from tests.support.waiting import channel_name, redis_of, until


def scraped(registry: CollectorRegistry) -> dict[str, float]:
    """What a scrape has, by name and the labels behind the namespace."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            labels = [value for name, value in sorted(sample.labels.items()) if name != "namespace"]
            found[" ".join([sample.name, *labels])] = sample.value
    return found


@each("metric", METRICS)
def test_a_name_follows_the_conventions(metric: Any) -> None:
    """Lower case, the base unit in the name, _total for what counts; help is a sentence; a label is bounded."""
    assert metric.prometheus.removeprefix("nearcache_").replace("_", "").isalnum()
    assert metric.prometheus.endswith("_total") == (metric.kind == "counter")
    assert metric.help.endswith(".")
    assert set(metric.labels) <= {"result", "direction", "reason", "code", "version", "protocol", "primary"}


def test_the_page_lists_every_metric_with_its_labels() -> None:
    """docs/operations.md has a row of each, in the order of the table, with its help."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if "| `nearcache_" in line
    ]
    assert [(row[0], row[2]) for row in rows] == [(f"`{metric.prometheus}`", metric.help) for metric in METRICS]
    for row, metric in zip(rows, METRICS, strict=True):
        assert all(f"`{label}`" in row[1] for label in metric.labels)
        assert bool(row[1]) == bool(metric.labels)
    (reasons,) = (row[1] for row in rows if row[0] == "`nearcache_flushes_total`")
    assert reasons == "`reason`: " + ", ".join(f"`{cause.value}`" for cause in Cause)


def test_every_counter_of_stats_has_its_metric() -> None:
    """Each field alone makes a metric differ."""
    cache = NearCache.from_url("memory://")
    nothing = [metric.values(Look(Stats(), cache.health(), cache)) for metric in METRICS]
    for field in dataclasses.fields(Stats):
        if field.name in ("flushes", "l2_errors"):
            continue  # the sums of their tables
        value: Any = {"a": 1} if "_by_" in field.name else 1
        look = Look(Stats(**{field.name: value}), cache.health(), cache)
        assert [metric.values(look) for metric in METRICS] != nothing, field.name


def test_what_has_not_happened_is_a_series_too() -> None:
    """Else the first flush, or the first timeout, would be no increase to Prometheus."""
    registry = CollectorRegistry()
    cache = NearCache.from_url("memory://")
    register(cache, registry)
    found = scraped(registry)
    assert {found[f"nearcache_flushes_total {cause.value}"] for cause in Cause} == {0.0}
    assert found["nearcache_l2_errors_total timeout"] == found["nearcache_l2_errors_total connection"] == 0.0


async def test_a_scrape_says_what_was_done(make_cache: MakeCache, namespace: str) -> None:
    """Gets by result, loads and their time, invalidations, what L1 has, and how the cache is."""
    registry = CollectorRegistry()
    async with make_cache() as cache:
        end = register(cache.cache, registry)
        await cache.get_or_set("a", cache.loader(1))
        await cache.get("a")
        with pytest.raises(ZeroDivisionError):
            await cache.get_or_set("b", cache.loader(lambda: 1 / 0))
        cache.clear_local()
        await cache.get("a")
        await cache.set("c", 1)
        with redis_of(cache.url) as client:
            client.publish(channel_name(namespace), b"garbage")
        await until(lambda: cache.stats().flushes == 1)
        await until(lambda: cache.healthy)
        now = scraped(registry)
    assert {name: now[f"nearcache_gets_total {name}"] for name in ("l1_hit", "l2_hit", "miss", "stale")} == {
        "l1_hit": 1,
        "l2_hit": 1,
        "miss": 2,
        "stale": 0,
    }
    assert (now["nearcache_loads_total"], now["nearcache_load_errors_total"]) == (2, 1)
    assert 0 < now["nearcache_load_duration_seconds_total"] < 5
    assert now["nearcache_invalidations_total sent"] == 1
    assert now["nearcache_invalidations_total received"] >= 2
    assert now["nearcache_flushes_total unreadable"] == 1
    assert (now["nearcache_healthy"], now["nearcache_breaker_open"], now["nearcache_journal_entries"]) == (1, 0, 0)
    assert 0 <= now["nearcache_proof_age_seconds"] < 2
    assert 0 < now["nearcache_bus_round_trip_seconds"] < 5
    assert now["nearcache_l1_max_entries"] == 10_000
    assert any(name.startswith("nearcache_build_info ") for name in now)
    end()
    assert scraped(registry) == {}


async def test_no_key_is_told(make_fake: MakeCache) -> None:
    """Neither keys nor tags nor what a loader says are anywhere in a scrape."""
    registry = CollectorRegistry()
    async with make_fake() as cache:
        register(cache.cache, registry)
        await cache.set("sekret", 1, tags=["sekret"])

        def fail() -> None:
            raise ZeroDivisionError("sekret")

        with pytest.raises(ZeroDivisionError, match="sekret"):
            await cache.get_or_set("sekret:2", cache.loader(fail))
        assert b"sekret" not in generate_latest(registry)
        assert b"nearcache_gets_total" in generate_latest(registry)


async def test_errors_are_counted_by_code(make_cache: MakeCache, proxy: FaultProxy, namespace: str) -> None:
    """The server's code, or that there was no answer, or no connection; their sum is l2_errors."""
    async with make_cache(proxy.url, redis_timeout=0.1, breaker_reset=0.05) as cache:
        with redis_of(cache.url) as client:
            client.delete(f"{{{namespace}:0}}:m")
            client.rpush(f"{{{namespace}:0}}:m", "of another type")
        await cache.set("a", 1)
        proxy.cut()
        await until(lambda: not cache.healthy)
        await cache.set("a", 1)
        await cache.get("b")
        stats = cache.stats()
    assert stats.l2_errors_by_code.get("WRONGTYPE", 0) >= 1
    assert stats.l2_errors_by_code.get("connection", 0) + stats.l2_errors_by_code.get("timeout", 0) >= 1
    assert sum(stats.l2_errors_by_code.values()) == stats.l2_errors
    assert sum(stats.flushes_by_reason.values()) == stats.flushes


def test_codes_of_errors_are_bounded() -> None:
    """A server that invents codes fills no table."""
    from nearcache.counters import CODES_MAX, Counters

    counters = Counters()
    for number in range(CODES_MAX + 10):
        counters.failed(f"CODE{number}")
    assert len(counters.l2_errors_by_code) == CODES_MAX + 1
    assert (counters.l2_errors_by_code["other"], counters.l2_errors) == (10, CODES_MAX + 10)


def test_an_unused_cache_is_neither_healthy_nor_not() -> None:
    """Before the first use there is no such series, at which an alert might go off."""
    cache = FakeServer().cache()
    names = [metric.name for metric in METRICS]
    table = dict(zip(names, read([cache]), strict=True))
    assert (table["healthy"], table["proof_age"]) == ({}, {})
    memory = dict(zip(names, read([NearCache.from_url("memory://")]), strict=True))
    assert list(memory["healthy"].values()) == [1.0]
    assert list(memory["proof_age"].values()) == [0.0]
    unproven = Health(status="down", round_trip=None, bus="lost", proof_age=None, breaker="open", journal=0)
    (metric,) = (metric for metric in METRICS if metric.name == "proof_age")
    assert metric.values(Look(Stats(), unproven, cache)) == {(): math.inf}


def test_caches_of_one_namespace_are_one_series() -> None:
    """Two caches are summed up; one that is forgotten is no longer read, and not kept alive."""
    registry = CollectorRegistry()
    one, other = (NearCache.from_url("memory://", namespace="shop") for _ in range(2))
    third = NearCache.from_url("memory://", namespace="blog")
    for cache in (one, other, third, one):
        register(cache, registry)
        cache.get("a")
    text = generate_latest(registry).decode()
    assert 'nearcache_gets_total{namespace="shop",result="miss"} 3.0' in text
    assert 'nearcache_gets_total{namespace="blog",result="miss"} 1.0' in text
    gone = weakref.ref(third)
    del third, cache
    gc.collect()
    assert gone() is None
    assert "blog" not in generate_latest(registry).decode()


COUNTING = """
import os, time
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from nearcache import NearCache
from nearcache.observe.prometheus import register
cache = NearCache.from_url("memory://", namespace="shop")
closed = NearCache.from_url("memory://", namespace="shop")
register(cache); register(closed)
for _ in range(10): cache.get("a"); closed.get("a")
closed.close()
child = os.fork()
for _ in range(5): cache.get("a")
if not child:
    time.sleep(1.5)
    cache.get("a")
    raise SystemExit
os.waitpid(child, 0)
"""


def test_many_processes_are_one_scrape(tmp_path: Path) -> None:
    """In multiprocess mode all counts of parent and child arrive, also the last ones; nothing is counted twice."""
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    script = [sys.executable, "-W", "error", "-c", COUNTING]
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    show = (
        "from prometheus_client import CollectorRegistry, generate_latest\n"
        "from prometheus_client.multiprocess import MultiProcessCollector\n"
        "registry = CollectorRegistry(); MultiProcessCollector(registry)\n"
        "print(generate_latest(registry).decode())"
    )
    text = subprocess.run(
        [sys.executable, "-c", show], env=environment, capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert 'nearcache_gets_total{namespace="shop",result="miss"} 31.0' in text
