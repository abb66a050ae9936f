"""functools.lru_cache: no ttl, no set, nothing shared. It is the floor of what a hit can cost."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from benchmarks.harness.timing import Case
from benchmarks.rivals.base import (
    DECORATED,
    DECORATED_INT,
    LOAD,
    ROOM,
    Cases,
    Rival,
    Stage,
    case,
    fill_mapping,
    load,
    new_keys,
    number_of,
)

HIT, HIT_INT = "functools.lru_cache hit", "functools.lru_cache hit, int"


@asynccontextmanager
async def cases(stage: Stage) -> AsyncIterator[Cases]:
    """A decorated function of a str, one of an int, and one whose every call loads."""
    user, numbered = functools.lru_cache(ROOM)(stage.once()), functools.lru_cache(ROOM)(str)
    for key in stage.values:
        user(key)
        numbered(number_of(key))
    loading = functools.lru_cache(ROOM)(load)
    yield {
        DECORATED: case(HIT, "user(key)", user=user),
        DECORATED_INT: Case(HIT_INT, "numbered(key)", {"numbered": numbered}, number_of),
        LOAD: case("@functools.lru_cache", "loading(fresh())", loading=loading, fresh=new_keys()),
    }


async def fill(keys: Sequence[str], values: Sequence[Any]) -> object:
    """Fill it by calls."""
    given = iter(values)
    cached = functools.lru_cache(len(keys))(lambda _key: next(given))
    for key in keys:
        cached(key)
    return cached


async def fill_dict(keys: Sequence[str], values: Sequence[Any]) -> object:
    """The least that anything can cost."""
    return await fill_mapping({}, keys, values)


RIVAL = Rival("functools.lru_cache", "", cases, {"dict": fill_dict, "functools.lru_cache": fill})
