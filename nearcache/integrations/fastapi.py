"""FastAPI and Starlette: a lifespan that opens the cache, a dependency that finds it, a router that shows its health.

A cache belongs around a service, a function that an endpoint calls, and not around the endpoint: docs/fastapi.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from typing import Any, TypeAlias

from fastapi import APIRouter
from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse

from nearcache.aio import AsyncNearCache
from nearcache.sync import NearCache

Cache: TypeAlias = AsyncNearCache | NearCache
Lifespan: TypeAlias = Callable[[Any], AbstractAsyncContextManager[Mapping[str, Any] | None]]
Entered: TypeAlias = Callable[[Any], AbstractAsyncContextManager[dict[str, Any]]]

STATE = "nearcache"
"""The name of the cache in the state of the application and of each request."""


def lifespan(cache: Cache | Callable[[], Cache], *others: Lifespan) -> Entered:
    """A lifespan that opens a cache at start-up, and closes it at the end.

    Args:
        cache: the cache, or a function that makes it when the application starts.
        *others: lifespans to enter after it and to leave before it, such as your own; the states of all are joined.

    Returns:
        What FastAPI and Starlette take as ``lifespan=``. Entering it raises ConfigError if the cache can never work; a
        Redis that is away is no error.
    """

    @asynccontextmanager
    async def entered(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        own = cache if isinstance(cache, AsyncNearCache | NearCache) else cache()
        state: dict[str, Any] = {STATE: own}
        async with AsyncExitStack() as stack:
            if isinstance(own, AsyncNearCache):
                await stack.enter_async_context(own)
            else:
                await asyncio.to_thread(own.__enter__)
                stack.push_async_callback(asyncio.to_thread, own.__exit__, None, None, None)
            for other in others:
                joined = await stack.enter_async_context(other(app))
                state.update(joined or {})
            yield state

    return entered


def dependency(connection: HTTPConnection) -> Any:
    """The cache that ``lifespan`` has opened, as in ``Annotated[AsyncNearCache, Depends(dependency)]``.

    Args:
        connection: the request or the web socket; FastAPI gives it.

    Returns:
        The cache.

    Raises:
        RuntimeError: the application was made without it.
    """
    cache = getattr(connection.state, STATE, None)
    if cache is None:
        raise RuntimeError("no cache in the state of the application: give it lifespan=lifespan(cache)")
    return cache


async def health(request: Request) -> JSONResponse:
    """The health of the cache as JSON, for a dashboard or a probe: an endpoint of Starlette, and of ``router``.

    It answers 200 as long as the cache may be used, which it may be while Redis is away, and 503 when it is closed: a
    probe that stops an application because Redis is away would turn a slow time into an outage. The body says more.
    """
    found = dependency(request).health()
    return JSONResponse(asdict(found), 503 if found.bus == "closed" else 200)


def router(path: str = "/health/cache") -> APIRouter:
    """A router of FastAPI that has ``health`` at a path, for ``app.include_router(router())``.

    Args:
        path: where ``cache.health()`` is shown as JSON.

    Returns:
        The router.
    """
    own = APIRouter(tags=["health"])
    own.add_api_route(path, health, methods=["GET"])
    return own
