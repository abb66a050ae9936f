"""Somebody who shares the server with a healthy fleet and is no part of it: what it does must not be noticed there."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from nearcache import NearCache
from tests.support.ablations import guards
from tests.support.processes import serve
from tests.torture.worker import MAX_STALENESS, NAMESPACE, REDIS_TIMEOUT

VALUE = -1
"""No version: who sees it in another database has got somebody else's value."""
KEYS = 48
PAUSE = 0.03
"""Seconds between two calls."""


async def roam(url: str, prefix: str, without: str | None, pipe: Connection) -> None:
    """A process from beginning to end."""
    if without is not None:
        guards.GUARDS[without].take_away()
    await serve(pipe, Stranger(url, prefix))


class Stranger:
    """Its cache is made at the first order, and need not become healthy.

    Args:
        url: of the server, with the database and the user.
        prefix: of the keys.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self._url, self._prefix = url, prefix
        self._roaming = True
        self._task: asyncio.Task[None] | None = None
        self._raised: list[str] = []
        self._done: Counter[str] = Counter()

    async def start(self) -> None:
        """Begin to call."""
        self._task = asyncio.create_task(asyncio.to_thread(self._roam))

    async def stop(self) -> tuple[list[str], Counter[str]]:
        """What calls raised, and how often each was made."""
        self._roaming = False
        if self._task is not None:
            await self._task
        return self._raised, self._done

    def _roam(self) -> None:
        cache = NearCache.from_url(
            self._url, namespace=NAMESPACE, ttl=60, max_staleness=MAX_STALENESS, redis_timeout=REDIS_TIMEOUT
        )
        calls: dict[str, Callable[[str], Any]] = {
            "set": lambda key: cache.set(key, VALUE, tags=["strange"]),
            "set_many": lambda key: cache.set_many({key: VALUE, f"{self._prefix}:0": VALUE}),
            "delete": cache.delete,
            "mark_stale": cache.mark_stale,
            "invalidate_tags": lambda _: cache.invalidate_tags("strange"),
            "get": cache.get,
            "get_or_set": lambda key: cache.get_or_set(key, lambda: VALUE),
        }
        while self._roaming:
            what = random.choice(list(calls))
            try:
                answer = calls[what](f"{self._prefix}:{random.randrange(KEYS)}")
                self._done[f"{what}{', not acknowledged' if answer is False else ''}"] += 1
            except Exception as error:  # whatever it is, it is a violation
                self._raised.append(f"a stranger's {what} raised {error!r}")
            time.sleep(PAUSE)
        cache.close()
