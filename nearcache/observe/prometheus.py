"""Metrics for Prometheus: a collector, or, where many processes are one scrape, real metrics fed by a timer.

With ``PROMETHEUS_MULTIPROC_DIR`` set (gunicorn, uvicorn with workers), a scrape reaches one process and reads the files
of all. prometheus-client runs no custom collectors then, so each process writes its values into its file itself.
"""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, make_asgi_app
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from nearcache.base import BaseCache
from nearcache.observe.metrics import METRICS, Metric, read

INTERVAL = 1.0
"""Seconds between two feeds of real metrics."""
_MODES = {"sum": "livesum", "min": "livemin", "max": "livemax"}
"""How the gauges of several processes are combined: those of processes that have ended do not count."""


class _Outlet(Protocol):
    caches: weakref.WeakSet[BaseCache]

    def close(self) -> None: ...


_outlets: weakref.WeakKeyDictionary[CollectorRegistry, _Outlet] = weakref.WeakKeyDictionary()
_registering = threading.Lock()


def register(cache: BaseCache, registry: CollectorRegistry = REGISTRY) -> Callable[[], None]:
    """Let Prometheus read the metrics of a cache; docs/operations.md has the list.

    Several caches may be registered; those of one namespace are summed up. A cache that is forgotten is no longer read.
    In prometheus-client's multiprocess mode the values are written once a second, and when the process ends; call
    ``register`` in the application itself, before or after the fork, and ``mark_process_dead`` when a worker ends.

    Args:
        cache: a NearCache or AsyncNearCache.
        registry: where to.

    Returns:
        A function that ends it, and writes the values once more before. Call it in the shutdown of an ASGI lifespan:
        uvicorn's workers end by a signal, so that nothing is written at their end.
    """
    with _registering:
        outlet = _outlets.get(registry)
        if outlet is None:
            outlet = _outlets[registry] = Feeder(registry) if _many() else CacheCollector(registry)
        outlet.caches.add(cache)

    def unregister() -> None:
        with _registering:
            if isinstance(outlet, Feeder):
                outlet.feed()
            outlet.caches.discard(cache)
            if not outlet.caches and _outlets.get(registry) is outlet:
                del _outlets[registry]
                outlet.close()

    return unregister


def metrics_app(cache: BaseCache, registry: CollectorRegistry = REGISTRY) -> Callable[..., Any]:
    """The metrics route of an application of FastAPI, Starlette or another ASGI framework.

    ``app.mount("/metrics", metrics_app(cache))`` registers the cache, and answers a scrape with all that is in the
    registry; in prometheus-client's multiprocess mode with the metrics of all workers.
    """
    register(cache, registry)
    if _many():
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus-client's own
    return make_asgi_app(registry)


def _many() -> bool:
    return "PROMETHEUS_MULTIPROC_DIR" in os.environ or "prometheus_multiproc_dir" in os.environ


class CacheCollector(Collector):
    """The caches of one registry, read at each scrape."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.caches: weakref.WeakSet[BaseCache] = weakref.WeakSet()
        self._registry = weakref.ref(registry)
        registry.register(self)

    def close(self) -> None:
        """Take it off the registry."""
        registry = self._registry()
        if registry is not None:
            registry.unregister(self)

    def describe(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """The names, so that the registry need not read the caches to know them."""
        return map(_family, METRICS)

    def collect(self) -> Iterable[CounterMetricFamily | GaugeMetricFamily]:
        """The metrics now."""
        for metric, values in zip(METRICS, read(tuple(self.caches)), strict=True):
            family = _family(metric)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family


def _family(metric: Metric) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
    return kind(metric.prometheus, metric.help, labels=("namespace", *metric.labels))


class Feeder:
    """Writes what the caches of one registry say into real metrics, every INTERVAL seconds and at the end."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.caches: weakref.WeakSet[BaseCache] = weakref.WeakSet()
        self._registry = weakref.ref(registry)
        self._metrics = [_real(metric, registry) for metric in METRICS]
        self._fed: weakref.WeakKeyDictionary[BaseCache, list[dict[tuple[str, ...], float]]] = (
            weakref.WeakKeyDictionary()
        )
        """What was read of each cache the last time."""
        self._of_primaries: dict[Metric, set[tuple[str, ...]]] = {}
        """The series of primaries that were written ever."""
        self._lock = threading.RLock()
        """Held while values are written, and during a fork: prometheus-client's own lock is not copied held."""
        self._begin()
        _feeders.add(self)

    def _begin(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self._stop,), name="nearcache-metrics", daemon=True)
        self._thread.start()

    def _run(self, stop: threading.Event) -> None:
        while not stop.wait(INTERVAL):
            self.feed()

    def feed(self) -> None:
        """Write the values now."""
        with self._lock:
            caches = tuple(self.caches)
            for cache in caches:
                before, now = self._fed.get(cache), read([cache])
                self._fed[cache] = now
                for number, values in enumerate(now):
                    real = self._metrics[number]
                    if isinstance(real, Counter):
                        _raise(real, values, {} if before is None else before[number])
            for metric, real, values in zip(METRICS, self._metrics, read(caches), strict=True):
                if isinstance(real, Gauge):
                    # In this mode no series can be taken back: that of a primary without buckets goes to 0.
                    ever = self._of_primaries.setdefault(metric, set()) if "primary" in metric.labels else set()
                    for labels in ever - values.keys():
                        real.labels(*labels).set(0)
                    for labels, value in values.items():
                        real.labels(*labels).set(value)
                    ever.update(values)

    def close(self) -> None:
        """End the thread, and take the metrics off the registry."""
        _feeders.discard(self)
        self._stop.set()
        self._thread.join()
        registry = self._registry()
        if registry is not None:
            for real in self._metrics:
                registry.unregister(real)

    def before_fork(self) -> None:
        """Let no fork copy a lock that the thread holds."""
        self._lock.acquire()

    def after_fork(self, *, child: bool) -> None:
        """Begin anew in the child: its caches count from 0; the counts of closed ones were written by the parent."""
        if child:
            self._lock = threading.RLock()
            for cache in tuple(self.caches):
                self._fed[cache] = read([cache])
            self._begin()
        else:
            self._lock.release()


def _real(metric: Metric, registry: CollectorRegistry) -> Counter | Gauge:
    labels = ("namespace", *metric.labels)
    if metric.kind == "counter":
        return Counter(metric.prometheus, metric.help, labels, registry=registry)
    mode = _MODES[metric.combine]
    return Gauge(metric.prometheus, metric.help, labels, registry=registry, multiprocess_mode=mode)  # type: ignore[arg-type]


def _raise(real: Counter, now: dict[tuple[str, ...], float], before: dict[tuple[str, ...], float]) -> None:
    """Raise a counter by what a cache has counted; one that was opened again has begun at 0."""
    for labels, value in now.items():
        last = before.get(labels, 0.0)
        real.labels(*labels).inc(value - last if value >= last else value)


_feeders: set[Feeder] = set()


@atexit.register
def _feed_all() -> None:
    for feeder in tuple(_feeders):
        feeder.feed()


_forking: list[Feeder] = []
"""Those whose lock is held by the fork under way."""


def _before_fork() -> None:
    _forking[:] = _feeders
    for feeder in _forking:
        feeder.before_fork()


def _after_fork(*, child: bool) -> None:
    for feeder in _forking:
        feeder.after_fork(child=child)


# Behind the hook of nearcache.base, which gives the caches of the child counters of their own.
os.register_at_fork(
    before=_before_fork,
    after_in_parent=lambda: _after_fork(child=False),
    after_in_child=lambda: _after_fork(child=True),
)
