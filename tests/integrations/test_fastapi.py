"""A FastAPI or Starlette application with a cache: its life, its dependency, its health."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from nearcache import AsyncNearCache, ConfigError, NearCache
from nearcache.integrations.fastapi import dependency, health, lifespan, router
from nearcache.testing import FakeServer
from nearcache.transport.embedded import EmbeddedServer

Async = Annotated[AsyncNearCache, Depends(dependency)]
Sync = Annotated[NearCache, Depends(dependency)]


@asynccontextmanager
async def with_database(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    """A lifespan of the application's own, which may use the cache."""
    yield {"database": "db"}


def application(cache: Any) -> FastAPI:
    """Endpoints for either class of cache."""
    app = FastAPI(lifespan=lifespan(cache, with_database))
    app.include_router(router())

    @app.get("/async/{key}")
    async def read(key: str, cache: Async, request: Request) -> Any:
        return [await cache.get_or_set(key, _load), request.state.database]

    @app.get("/sync/{key}")
    def read_in_a_thread(key: str, cache: Sync, request: Request) -> Any:
        return [cache.get_or_set(key, lambda: "loaded"), request.state.database]

    return app


async def _load() -> str:
    return "loaded"


@pytest.mark.parametrize("made_late", [False, True])
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_the_cache_lives_as_long_as_the_application(
    kind: str, made_late: bool, valkey: EmbeddedServer, namespace: str
) -> None:
    """With states joined; and again at the next start."""
    make = AsyncNearCache if kind == "async" else NearCache
    cache = make.from_url(valkey.url, namespace=namespace)
    app = application((lambda: cache) if made_late else cache)
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get(f"/{kind}/a").json() == ["loaded", "db"]
            assert cache.peek("a") == "loaded"
            answer = client.get("/health/cache")
            assert (answer.status_code, answer.json()["status"]) == (200, "ok")
        assert cache.health().bus == "closed"


def test_health_is_no_reason_to_stop_the_application_while_redis_is_away() -> None:
    """It answers 200, and says what is wrong; a closed cache is 503."""
    cache = AsyncNearCache.from_url("redis://cache.example", namespace="n")
    with (server := FakeServer()).behind(cache), TestClient(application(cache)) as client, server.away():
        assert client.get("/async/a").json() == ["loaded", "db"]
        answer = client.get("/health/cache")
        assert answer.status_code == 200
        assert answer.json()["status"] != "ok"
        assert answer.json()["reason"]


def test_a_closed_cache_is_not_well() -> None:
    """Somebody has closed it while the application runs."""
    cache = NearCache.from_url("memory://")
    with TestClient(application(cache)) as client:
        cache.close()
        assert client.get("/health/cache").status_code == 503


def test_an_application_that_can_never_work_does_not_start(valkey: EmbeddedServer) -> None:
    """And an endpoint without the lifespan says what is missing."""
    url = f"redis://127.0.0.1:{valkey.port}/99"  # it has 16 databases
    with pytest.raises(ConfigError), TestClient(application(NearCache.from_url(url, namespace="n"))):
        pass
    app = FastAPI()
    app.include_router(router())
    with TestClient(app) as client, pytest.raises(RuntimeError, match="lifespan"):
        client.get("/health/cache")


def test_starlette_takes_the_same(valkey: EmbeddedServer, namespace: str) -> None:
    """Without FastAPI's dependencies, from the state of the request."""

    async def read(request: Request) -> JSONResponse:
        return JSONResponse(await dependency(request).get_or_set("a", _load))

    cache = AsyncNearCache.from_url(valkey.url, namespace=namespace)
    app = Starlette(routes=[Route("/", read), Route("/health", health)], lifespan=lifespan(cache))
    with TestClient(app) as client:
        assert client.get("/").json() == "loaded"
        assert client.get("/health").json()["status"] == "ok"


def test_a_test_may_put_another_cache_in_its_place() -> None:
    """By FastAPI's own way."""
    app = application(NearCache.from_url("memory://"))
    other = NearCache.from_url("memory://")
    app.dependency_overrides[dependency] = lambda: other
    with TestClient(app) as client:
        client.get("/sync/a")
    assert other.peek("a") == "loaded"
