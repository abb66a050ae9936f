"""dogpile.cache's memory backend: a dict, without a bound."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.rivals.base import DECORATED, HIT, LOAD, SET, TTL, VALUE, Cases, Rival, Stage, case, load, new_keys


def _region() -> Any:
    from dogpile.cache import make_region

    return make_region().configure("dogpile.cache.memory", expiration_time=TTL)


@asynccontextmanager
async def cases(stage: Stage) -> AsyncIterator[Cases]:
    """A region and its decorator."""
    region = _region()
    user = region.cache_on_arguments()(stage.once())
    for key, value in stage.values.items():
        region.set(key, value)
        user(key)
    fresh, do = new_keys(), _region().get_or_create
    yield {
        HIT: case("dogpile.cache memory, get", "get(key)", get=region.get),
        DECORATED: case("@dogpile.cache memory", "user(key)", user=user),
        LOAD: case("dogpile.cache memory, get_or_create", "do(fresh(), load)", do=do, fresh=fresh, load=load),
        SET: case("dogpile.cache memory, set", "do(key, VALUE)", do=region.set, VALUE=VALUE),
    }


async def fill(keys: Sequence[str], values: Sequence[Any]) -> object:
    """Fill a region."""
    region = _region()
    for key, value in zip(keys, values, strict=True):
        region.set(key, value)
    return region


RIVAL = Rival("dogpile.cache memory", "dogpile.cache", cases, {"dogpile.cache memory": fill})
