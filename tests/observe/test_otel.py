"""OpenTelemetry: the metrics of the table by observable instruments; spans under an existing parent, without keys."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from nearcache import NearCache
from nearcache.observe.metrics import METRICS
from nearcache.observe.otel import _attributes, instrument
from nearcache.testing import FaultProxy
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import shut, until


class Recorded:
    """Providers of this test alone."""

    def __init__(self) -> None:
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))

    def watch(self, cache: Twin) -> None:
        """Instrument a cache."""
        instrument(cache.cache, self.meters, self.tracers)

    def parent(self) -> Any:
        """A span around a request."""
        return self.tracers.get_tracer("application").start_as_current_span("request")

    @property
    def spans(self) -> list[Any]:
        """Those of the library that have ended."""
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith("nearcache.")]

    def metrics(self) -> dict[str, dict[str, float]]:
        """The values by instrument and labels."""
        data = self.reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: {
                " ".join(
                    str(value) for name, value in sorted((point.attributes or {}).items()) if name != "namespace"
                ): (
                    point.value  # type: ignore[union-attr]  # there are no histograms
                )
                for point in metric.data.data_points
            }
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def recorded() -> Recorded:
    """Providers of this test alone."""
    return Recorded()


async def test_the_metrics_are_those_of_the_table(make_cache: MakeCache, recorded: Recorded) -> None:
    """Each metric of the table, with its values."""
    async with make_cache() as cache:
        recorded.watch(cache)
        await cache.get_or_set("a", cache.loader(1))
        await cache.get("a")
        now = recorded.metrics()
    assert now["nearcache.gets"] == {"l1_hit": 1, "l2_hit": 0, "miss": 1, "stale": 0}
    assert now["nearcache.loads"] == {"": 1}
    assert now["nearcache.healthy"] == {"": 1}
    empty = {"nearcache.flushes", "nearcache.l2_errors"}
    empty |= {f"nearcache.{metric.name}" for metric in METRICS if "primary" in metric.labels}
    assert set(now) | empty == {f"nearcache.{metric.name}" for metric in METRICS}


async def test_a_load_and_its_requests_are_spans_of_a_request(make_cache: MakeCache, recorded: Recorded) -> None:
    """Under the request's span; with the server, the operation and the namespace; no key is anywhere."""
    async with make_cache() as cache:
        recorded.watch(cache)
        with recorded.parent() as parent:
            await cache.get_or_set("sekret", cache.loader(1), tags=["sekret-tag"])
            await cache.get("sekret")  # L1: no span
        names = [span.name for span in recorded.spans]
        assert names == ["nearcache.read", "nearcache.lease", "nearcache.load", "nearcache.fill"]
        for span in recorded.spans:
            assert span.parent.span_id == parent.get_span_context().span_id
            assert span.attributes["nearcache.namespace"] == cache.settings.namespace
            assert "sekret" not in span.to_json()
        request = recorded.spans[0].attributes
        assert (request["db.system.name"], request["db.operation.name"]) == ("redis", "read")
        assert (request["server.address"], request["db.namespace"]) == ("127.0.0.1", "0")
        assert str(request["server.port"]) in cache.url


async def test_no_parent_no_span(make_cache: MakeCache, recorded: Recorded) -> None:
    """Reads, loads and writes outside a request are no traces of their own."""
    async with make_cache() as cache:
        recorded.watch(cache)
        await cache.get_or_set("a", cache.loader(1))
        await cache.set("a", 1)
        await cache.delete("a")
    assert recorded.spans == []


async def test_failures_are_told_by_their_class(make_cache: MakeCache, proxy: FaultProxy, recorded: Recorded) -> None:
    """A loader's error and an unanswered request; the text of the error, which may hold a key, is not recorded."""
    async with make_cache(proxy.url, redis_timeout=0.1) as cache:
        recorded.watch(cache)

        def fail() -> None:
            raise ValueError("sekret")

        with recorded.parent(), pytest.raises(ValueError, match="sekret"):
            await cache.get_or_set("a", cache.loader(fail))
        proxy.cut()
        await until(lambda: not cache.healthy)
        with recorded.parent():
            await cache.set("a", 1)
    load = next(span for span in recorded.spans if span.name == "nearcache.load")
    assert (load.attributes["error.type"], load.status.is_ok) == ("ValueError", False)
    assert "sekret" not in load.to_json()
    failed = next(span for span in recorded.spans if span.name == "nearcache.set")
    assert (failed.attributes["error.type"].startswith("Remote"), failed.status.is_ok) == (True, False)


async def test_a_cache_that_is_opened_again_is_watched_still(make_cache: MakeCache, recorded: Recorded) -> None:
    """Everything in it is new then; the spans and the metrics go on."""
    cache = make_cache()
    recorded.watch(cache)
    async with cache:
        pass
    await shut(cache)
    async with cache:
        with recorded.parent():
            await cache.get("a")
        assert [span.name for span in recorded.spans] == ["nearcache.read"]
        assert recorded.metrics()["nearcache.gets"]["miss"] == 1


@pytest.mark.parametrize(
    ("url", "address", "database"),
    [
        ("redis+cluster://a.example:7000,b.example:7001", "a.example:7000,b.example:7001", "0"),
        ("redis+sentinel://a.example:26379,b.example:26379/shop/3", "a.example:26379,b.example:26379", "3"),
    ],
)
def test_several_addresses(recorded: Recorded, url: str, address: str, database: str) -> None:
    """A cluster, and Sentinels, can be watched; the addresses of the URL stand for the server that is asked."""
    cache = NearCache.from_url(url, namespace="shop")
    instrument(cache, recorded.meters, recorded.tracers)
    assert _attributes(cache) == {
        "nearcache.namespace": "shop",
        "db.system.name": "redis",
        "server.address": address,
        "db.namespace": database,
    }


def test_memory_has_loads_and_no_requests(recorded: Recorded) -> None:
    """`memory://` asks nobody."""
    cache = NearCache.from_url("memory://")
    instrument(cache, recorded.meters, recorded.tracers)
    with recorded.parent():
        cache.get_or_set("a", lambda: 1)
    assert [span.name for span in recorded.spans] == ["nearcache.load"]
