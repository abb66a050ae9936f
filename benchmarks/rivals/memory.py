"""Peers that keep values in the process alone, as they come, with a ttl where they have one.

functools.lru_cache is the floor of what a hit can cost. cachetools has no lock; its users have to take one. cachebox's
decorator copies what it returns unless it is told not to; no other peer does. The memory backends of dogpile.cache and
aiocache have no bound.
"""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, TypeAlias

from benchmarks.harness.timing import Case
from benchmarks.rivals.base import (
    COPIES,
    COPIES_LRU,
    DECORATED,
    DECORATED_INT,
    HIT,
    HIT_LRU,
    LOAD,
    ROOM,
    SET,
    TTL,
    VALUE,
    Cases,
    Fill,
    Rival,
    Stage,
    case,
    load,
    load_async,
    new_keys,
    number_of,
)
from tests.support.processes import done

Made: TypeAlias = tuple[Any, Callable[[str, Any], Any]]
"""A cache, and what puts a value into it, plainly or awaited."""
Offer: TypeAlias = tuple[Sequence[Callable[[str], Any]], Cases]
"""Decorated functions, each of which has to be called with every key, and the statements."""

LRU_HIT, LRU_HIT_INT = "functools.lru_cache hit", "functools.lru_cache hit, int"
COPYING, COPYING_LRU = "@cachebox.cached(TTLCache)", "@cachebox.cached(LRUCache)"
NO_COPY = f"{COPYING}, no copy"
TTL_CACHE = "cachetools.TTLCache"
LIFETIME = timedelta(seconds=TTL)


def _rival(
    package: str,
    make: Callable[[int], Made],
    offer: Callable[[Any, Stage], Offer],
    *names: str,
    fills: Mapping[str, Callable[[int], Made]] | None = None,
) -> Rival:
    """A peer by its name, which is also that of its cache in the section memory unless ``fills`` has other caches."""
    (name,) = names or (package,)

    @asynccontextmanager
    async def cases(stage: Stage) -> AsyncIterator[Cases]:
        cache, put = make(ROOM)
        decorated, offered = offer(cache, stage)
        for key, value in stage.values.items():
            await done(put(key, value))
            for function in decorated:
                await done(function(key))
        yield offered
        if hasattr(cache, "close"):
            await done(cache.close())

    return Rival(name, package, cases, {kind: _filling(one) for kind, one in (fills or {name: make}).items()})


def _filling(make: Callable[[int], Made]) -> Fill:
    async def fill(keys: Sequence[str], values: Sequence[Any]) -> object:
        cache, put = make(len(keys))
        for key, value in zip(keys, values, strict=True):
            await done(put(key, value))
        return cache

    return fill


def _mapping(cache: Any) -> Made:
    return cache, cache.__setitem__


def _lru_cache(room: int) -> Made:
    """It has no set: it is filled by calls."""
    given: list[Any] = []
    cached = functools.lru_cache(room)(lambda _key: given.pop())

    def put(key: str, value: Any) -> None:
        given.append(value)
        cached(key)

    return cached, put


def _offer_lru_cache(_: Any, stage: Stage) -> Offer:
    user, numbered = functools.lru_cache(ROOM)(stage.once()), functools.lru_cache(ROOM)(str)
    loading = functools.lru_cache(ROOM)(load)
    return [user, lambda key: numbered(number_of(key))], {
        DECORATED: case(LRU_HIT, "user(key)", user=user),
        DECORATED_INT: Case(LRU_HIT_INT, "numbered(key)", {"numbered": numbered}, number_of),
        LOAD: case("@functools.lru_cache", "loading(fresh())", loading=loading, fresh=new_keys()),
    }


def _cachetools(room: int) -> Made:
    import cachetools

    return _mapping(cachetools.TTLCache(room, TTL))


def _cachetools_lru(room: int) -> Made:
    import cachetools

    return _mapping(cachetools.LRUCache(room))


def _offer_cachetools(cache: Any, stage: Stage) -> Offer:
    import cachetools

    def decorate(function: Callable[[str], Any]) -> Callable[[str], Any]:
        return cachetools.cached(cachetools.TTLCache[Any, Any](ROOM, TTL))(function)

    user, loading = decorate(stage.once()), decorate(load)
    lru: cachetools.LRUCache[Any, Any] = cachetools.LRUCache(ROOM)
    lru.update(stage.values)
    return [user], {
        HIT: case("cachetools.TTLCache.get", "get(key)", get=cache.get),
        HIT_LRU: case("cachetools.LRUCache.get", "get(key)", get=lru.get),
        DECORATED: case("@cachetools.cached(TTLCache)", "user(key)", user=user),
        LOAD: case("@cachetools.cached(TTLCache)", "loading(fresh())", loading=loading, fresh=new_keys()),
        SET: case("cachetools.TTLCache[key] =", "cache[key] = VALUE", cache=cache, VALUE=VALUE),
    }


def _cachebox(room: int) -> Made:
    import cachebox

    return _mapping(cachebox.TTLCache(room, TTL))


def _offer_cachebox(cache: Any, stage: Stage) -> Offer:
    from cachebox import LRUCache, TTLCache, cached

    def sharing(function: Callable[[str], Any]) -> Any:
        return cached(TTLCache(ROOM, TTL), postprocess=None)(function)

    user, loading = sharing(stage.once()), sharing(load)
    copying, copying_lru = cached(TTLCache(ROOM, TTL))(stage.once()), cached(LRUCache(ROOM))(stage.once())
    return [user, copying, copying_lru], {
        HIT: case("cachebox.TTLCache.get", "get(key)", get=cache.get),
        DECORATED: case(NO_COPY, "user(key)", user=user),
        COPIES: case(COPYING, "copying(key)", copying=copying),
        COPIES_LRU: case(COPYING_LRU, "copying(key)", copying=copying_lru),
        LOAD: case(NO_COPY, "loading(fresh())", loading=loading, fresh=new_keys()),
        SET: case("cachebox.TTLCache[key] =", "cache[key] = VALUE", cache=cache, VALUE=VALUE),
    }


def _moka(room: int) -> Made:
    import moka_py

    cache: Any = moka_py.Moka(room, ttl=TTL)
    return cache, cache.set


def _offer_moka(cache: Any, stage: Stage) -> Offer:
    import moka_py

    user = moka_py.cached(ROOM, ttl=TTL)(stage.once())
    filled, _ = _moka(ROOM)
    return [user], {
        HIT: case("moka_py.Moka.get", "get(key)", get=cache.get),
        DECORATED: case("@moka_py.cached", "user(key)", user=user),
        LOAD: case("moka_py.Moka.get_with", "do(fresh(), load)", do=filled.get_with, fresh=new_keys(), load=load),
        SET: case("moka_py.Moka.set", "do(key, VALUE)", do=cache.set, VALUE=VALUE),
    }


def _theine(room: int) -> Made:
    import theine

    cache: Any = theine.Cache(room)
    return cache, lambda key, value: cache.set(key, value, LIFETIME)


def _offer_theine(cache: Any, stage: Stage) -> Offer:
    """Its decorator is in the form that makes keys by itself."""
    from theine import Memoize

    user, loading = Memoize(ROOM, LIFETIME)(stage.once()), Memoize(ROOM, LIFETIME)(load)
    return [user], {
        HIT: case("theine.Cache.get", "get(key)", get=cache.get),
        DECORATED: case("@theine.Memoize", "user(key)", user=user),
        LOAD: case("@theine.Memoize", "loading(fresh())", loading=loading, fresh=new_keys()),
        SET: case("theine.Cache.set", "do(key, VALUE, ttl)", do=cache.set, VALUE=VALUE, ttl=LIFETIME),
    }


def _dogpile(_: int) -> Made:
    from dogpile.cache import make_region

    region: Any = make_region().configure("dogpile.cache.memory", expiration_time=TTL)
    return region, region.set


def _offer_dogpile(region: Any, stage: Stage) -> Offer:
    user = region.cache_on_arguments()(stage.once())
    fresh, do = new_keys(), _dogpile(ROOM)[0].get_or_create
    return [user], {
        HIT: case("dogpile.cache memory, get", "get(key)", get=region.get),
        DECORATED: case("@dogpile.cache memory", "user(key)", user=user),
        LOAD: case("dogpile.cache memory, get_or_create", "do(fresh(), load)", do=do, fresh=fresh, load=load),
        SET: case("dogpile.cache memory, set", "do(key, VALUE)", do=region.set, VALUE=VALUE),
    }


def _aiocache(_: int) -> Made:
    from aiocache import SimpleMemoryCache

    cache: Any = SimpleMemoryCache()
    return cache, lambda key, value: cache.set(key, value, ttl=TTL)


def _offer_aiocache(cache: Any, stage: Stage) -> Offer:
    """Each entry with a ttl has a timer of the loop."""
    from aiocache import cached

    user, loading = cached(ttl=TTL)(_awaited(stage)), cached(ttl=TTL)(load_async)
    return [user], {
        HIT: case("aiocache memory, get", "await get(key)", get=cache.get),
        DECORATED: case("@aiocache.cached memory", "await user(key)", user=user),
        LOAD: case("@aiocache.cached memory", "await loading(fresh())", loading=loading, fresh=new_keys()),
        SET: case("aiocache memory, set", "await do(key, VALUE, ttl=TTL)", do=cache.set, VALUE=VALUE, TTL=TTL),
    }


def _cashews(room: int) -> Made:
    from cashews import Cache

    cache: Any = Cache()
    cache.setup(f"mem://?size={room}")
    return cache, lambda key, value: cache.set(key, value, expire=TTL)


def offer_cashews(name: str, cache: Any, stage: Stage, *, loads: str = LOAD, sets: str = SET) -> Offer:
    """Its decorator and its set, of whichever backend; ``loads`` and ``sets`` are the kinds of work."""
    user = cache(ttl=TTL, key="user:{key}")(_awaited(stage))
    loading, fresh = cache(ttl=TTL, key="load:{_key}")(load_async), new_keys()
    return [user], {
        HIT: case(f"{name}, get", "await get(key)", get=cache.get),
        DECORATED: case(f"@{name}", "await user(key)", user=user),
        loads: case(f"@{name}", "await loading(fresh())", loading=loading, fresh=fresh),
        sets: case(f"{name}, set", "await do(key, VALUE, expire=TTL)", do=cache.set, VALUE=VALUE, TTL=TTL),
    }


def _awaited(stage: Stage) -> Callable[[str], Any]:
    once = stage.once()

    async def user(key: str) -> Any:
        return once(key)

    return user


LRU_CACHE = _rival(
    "",
    _lru_cache,
    _offer_lru_cache,
    "functools.lru_cache",
    fills={"dict": lambda _: _mapping({}), "functools.lru_cache": _lru_cache},
)
CACHETOOLS = _rival(
    "cachetools",
    _cachetools,
    _offer_cachetools,
    fills={"cachetools.LRUCache": _cachetools_lru, TTL_CACHE: _cachetools},
)
CACHEBOX = _rival("cachebox", _cachebox, _offer_cachebox, fills={"cachebox.TTLCache": _cachebox})
PEERS = (
    LRU_CACHE,
    CACHETOOLS,
    CACHEBOX,
    _rival("moka-py", _moka, _offer_moka),
    _rival("theine", _theine, _offer_theine),
    _rival("dogpile.cache", _dogpile, _offer_dogpile, "dogpile.cache memory"),
    _rival("aiocache", _aiocache, _offer_aiocache, "aiocache memory"),
    _rival("cashews", _cashews, lambda cache, stage: offer_cashews("cashews mem", cache, stage), "cashews mem"),
)
