"""OpenTelemetry, by its API alone: the metrics as observable instruments, and spans of loads and requests to Redis.

A span is made under an existing parent only: a background refresh of nobody's request is no trace. redis-py's own
instrumentation sees nothing of this library, which sends its commands itself, so the attributes of databases are ours.
No attribute is a key or a value.
"""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import SpanKind, Status, StatusCode, Tracer, TracerProvider

from nearcache import __version__
from nearcache.base import BaseCache
from nearcache.engine.core import Core
from nearcache.engine.ports import RemoteFailed
from nearcache.local.singleflight import Outcome
from nearcache.observe.metrics import METRICS, Metric, look_at
from nearcache.transport.urls import CLUSTERS, SENTINELS

P = ParamSpec("P")
T = TypeVar("T")

REQUESTS = (
    "read",
    "tag_floors",
    "set",
    "add",
    "touch",
    "incr",
    "delete",
    "delete_existing",
    "mark_stale",
    "lease",
    "fill",
    "clear",
    "invalidate_tags",
)
"""The methods of the engine's Remote that have a span."""


def instrument(
    cache: BaseCache, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
) -> None:
    """Give OpenTelemetry the metrics of a cache, and spans of its loads and requests to Redis.

    Args:
        cache: a NearCache or AsyncNearCache, once.
        meter_provider: None: the global one.
        tracer_provider: None: the global one.
    """
    meter = metrics.get_meter("nearcache", __version__, meter_provider)
    watched = weakref.ref(cache)
    for metric in METRICS:
        create = meter.create_observable_counter if metric.kind == "counter" else meter.create_observable_gauge
        observe = partial(_observe, watched, metric)
        create(f"nearcache.{metric.name}", [observe], unit=metric.unit, description=metric.help)
    tracer = trace.get_tracer("nearcache", __version__, tracer_provider)
    cache._instrument(partial(_trace, tracer, _attributes(cache)))  # noqa: SLF001  # it is there for this


def _observe(watched: weakref.ref[BaseCache], metric: Metric, _: CallbackOptions) -> Iterable[Observation]:
    cache = watched()
    if cache is not None:
        for labels, value in metric.values(look_at(cache)).items():
            named = dict(zip(metric.labels, labels, strict=True))
            yield Observation(value, {"namespace": cache.settings.namespace, **named})


def _attributes(cache: BaseCache) -> dict[str, str | int]:
    """Those of every span, by the semantic conventions of databases."""
    url = urlsplit(cache.url)
    found: dict[str, str | int] = {"nearcache.namespace": cache.settings.namespace}
    if url.scheme in ("memory", "null"):
        return found
    found["db.system.name"] = "redis"
    if url.scheme == "unix":
        return found | {"network.transport": "unix", "server.address": url.path}
    database = url.path.strip("/") or "0"
    if url.scheme in (*SENTINELS, *CLUSTERS):  # several addresses, none of which is that of the request's server
        return found | {"server.address": url.netloc, "db.namespace": database.rpartition("/")[2]}
    return found | {"server.address": url.hostname or "", "server.port": url.port or 6379, "db.namespace": database}


def _trace(tracer: Tracer, attributes: Mapping[str, str | int], core: Core) -> None:
    """Wrap what a core loads and asks with."""
    own = {name: value for name, value in attributes.items() if name.startswith("nearcache.")}
    load = core.runtime.load

    async def traced_load(loader: Callable[[], Any]) -> Outcome:
        with _span(tracer, "nearcache.load", SpanKind.INTERNAL, own) as span:
            outcome = await load(loader)
            if outcome.error is not None and span is not None:
                _failed(span, type(outcome.error).__qualname__)
            return outcome

    core.runtime.load = traced_load  # type: ignore[method-assign]  # for this cache's runtime alone
    for name in REQUESTS if "db.system.name" in attributes else ():
        for one in core.all:
            setattr(one.remote, name, _traced(tracer, name, attributes, getattr(one.remote, name)))


def _traced(
    tracer: Tracer, name: str, attributes: Mapping[str, str | int], method: Callable[P, Awaitable[T]]
) -> Callable[P, Awaitable[T]]:
    operation = {**attributes, "db.operation.name": name}

    @wraps(method)
    async def traced(*args: P.args, **kwargs: P.kwargs) -> T:
        with _span(tracer, f"nearcache.{name}", SpanKind.CLIENT, operation) as span:
            try:
                return await method(*args, **kwargs)
            except RemoteFailed as failure:
                if span is not None:
                    _failed(span, failure.code or type(failure).__name__)
                raise

    return traced


@contextmanager
def _span(
    tracer: Tracer, name: str, kind: SpanKind, attributes: Mapping[str, str | int]
) -> Iterator[trace.Span | None]:
    if not trace.get_current_span().get_span_context().is_valid:
        yield None
        return
    # An exception's text may quote a key; its class is told by error.type.
    with tracer.start_as_current_span(
        name, kind=kind, attributes=attributes, record_exception=False, set_status_on_exception=False
    ) as span:
        yield span


def _failed(span: trace.Span, kind: str) -> None:
    span.set_attribute("error.type", kind)
    span.set_status(Status(StatusCode.ERROR))
