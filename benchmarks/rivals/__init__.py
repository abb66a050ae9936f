"""The adapters of this library and its peers, one module each, shared by all sections."""

from __future__ import annotations

from benchmarks.rivals import (
    aiocache,
    cachebox,
    cachekit,
    cachetools,
    cashews,
    coredis,
    dogpile,
    glide,
    lru_cache,
    moka,
    near,
    redis_py,
    theine,
)
from benchmarks.rivals.base import Rival

OURS: tuple[Rival, ...] = (near.SYNC, near.ASYNC)
PEERS: tuple[Rival, ...] = (
    lru_cache.RIVAL,
    cachetools.RIVAL,
    cachebox.RIVAL,
    moka.RIVAL,
    theine.RIVAL,
    dogpile.RIVAL,
    aiocache.RIVAL,
    cashews.MEMORY,
    cashews.CLIENT_SIDE,
    redis_py.RIVAL,
    redis_py.TRACKING,
    coredis.RIVAL,
    glide.RIVAL,
    cachekit.RIVAL,
)
