"""The adapters of this library and its peers, one each, shared by all sections."""

from __future__ import annotations

from benchmarks.rivals import memory, near, redis_py, tracking
from benchmarks.rivals.base import Rival

OURS: tuple[Rival, ...] = (near.SYNC, near.ASYNC)
PEERS: tuple[Rival, ...] = (*memory.PEERS, redis_py.RIVAL, *tracking.PEERS)
