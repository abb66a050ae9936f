"""How a process of a run reads: every kind of read, of one key and of several, each noted with its times."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from nearcache import current_load
from tests.support.processes import done, loader_of
from tests.torture.book import KEYS, Book, name, now, options, tags
from tests.torture.judge import Read

READ_PAUSE = 0.004
"""Seconds; two reads of a thread or task are twice as far apart at most."""
LOAD_TIMES = (*[0.004] * 7, 0.06)
"""Seconds that the database needs at most: some loads take so long that writes come under them."""
LEASE = 2.0
"""Seconds of a lease whose holder was killed, for which others wait."""
ADDING = 0.6
"""Below it a read that loads leaves the tags to its loader, which adds them; reads that load draw 0.4 to 1."""
MANY = 4
"""Keys that are read at once, at most."""
PLAIN = [key for key in range(KEYS) if not tags(key) and not options(key)]
"""Keys that one call may load."""
BEHIND = "loaded behind a value"
"""What a refresh before the end is, and a load after it while the stale value serves."""
TAGGED, EARLY, REVALIDATED = 0, 2, 3
"""A key with tags, one that is refreshed early, and one whose stale values serve while it is loaded."""
EACH_WAY = (
    *((PLAIN[0], draw) for draw in (0.03, 0.07, 0.3, 0.9)),
    *((TAGGED, draw) for draw in (0.5, 0.9)),
    (EARLY, 0.9),
    (REVALIDATED, 0.9),
)
"""A key, and what is drawn for it, for each way to read."""


def in_background() -> bool:
    """Whether a loader runs while its caller has a value already."""
    name = threading.current_thread().name
    with suppress(RuntimeError):
        task = asyncio.current_task()
        name = name if task is None else task.get_name()
    return name == "nearcache-load"


class Reads:
    """The reads of one process.

    Args:
        cache: of either class.
        book: the database.
        raised: where exceptions are told.
        loads: whether reads load what they do not find.
    """

    def __init__(self, cache: Any, book: Book, raised: list[str], *, loads: bool) -> None:
        self._cache, self._book, self._raised, self._loads = cache, book, raised, loads
        self.going = True
        self.seen: list[Read] = []
        self.counted: Counter[str] = Counter()
        self._load, self._load_many = loader_of(cache, self._row), loader_of(cache, self._rows)
        self._decorated = cache.cached("item:{key}", lease=LEASE)(self._load)

    async def run(self, rng: random.Random) -> None:
        """Read again and again."""
        while self.going:
            await self.one(rng.randrange(KEYS), rng)
            await asyncio.sleep(rng.uniform(0, 2 * READ_PAUSE))

    async def each_way(self, rng: random.Random) -> None:
        """Read once in each way."""
        for key, draw in EACH_WAY:
            await self.one(key, rng, draw)

    async def one(self, key: int, rng: random.Random, draw: float | None = None) -> None:
        """Read a key, or it and some others; ``draw`` says how."""
        draw = rng.random() if draw is None else draw
        keys = [key] if draw > 0.1 else rng.sample(range(KEYS) if draw > 0.05 else PLAIN, rng.randint(2, MANY))
        start = now()
        try:
            versions = await self._versions(keys, draw)
        except Exception as error:  # whatever it is, it is a violation
            self._raised.append(f"a read of {', '.join(map(name, keys))} raised {error!r}")
            return
        end = now()
        for one, version in zip(keys, versions, strict=True):
            if version is not None and version < 0:
                self._raised.append(f"a read of {name(one)} gave somebody else's {version}")
            elif version is not None:
                self.seen.append(Read(one, start, end, version))

    async def _versions(self, keys: Sequence[int], draw: float) -> list[int | None]:
        if len(keys) > 1:
            names = [name(key) for key in keys]
            if self._loads and not any(tags(key) or options(key) for key in keys):
                self.counted["get_or_set_many"] += 1
                found = await done(self._cache.get_or_set_many(names, self._load_many, lease=LEASE))
            else:
                self.counted["get_many"] += 1
                found = await done(self._cache.get_many(names))
            return [found.get(one) for one in names]
        (key,) = keys
        if draw < 0.4 or not self._loads:
            self.counted["get"] += 1
            return [await done(self._cache.get(name(key)))]
        if tags(key) or options(key):
            adds = draw < ADDING

            def load() -> Any:
                if "early_refresh" in told or "stale_while_revalidate" in told:
                    self.counted[f"{kind}: {BEHIND if in_background() else 'loaded'}"] += 1
                if adds:
                    current_load().tags |= set(tags(key))
                return self._load(key)

            told: dict[str, Any] = {"tags": () if adds else tags(key), "lease": LEASE, **options(key)}
            kind = "get_or_set" + "".join(
                f", {one}" for one in ("early_refresh", "stale_while_revalidate") if one in told
            )
            self.counted[kind + ", tags of the loader" * bool(adds and tags(key))] += 1
            return [await done(self._cache.get_or_set(name(key), load, **told))]
        self.counted["a decorated function"] += 1
        return [await done(self._decorated(key))]

    def _row(self, key: int) -> tuple[int, float]:
        return self._book.row(key), random.uniform(0, random.choice(LOAD_TIMES))

    def _rows(self, names: list[str]) -> tuple[dict[str, int], float]:
        versions = {one: self._book.row(int(one.removeprefix("item:"))) for one in names}
        return versions, random.uniform(0, random.choice(LOAD_TIMES))
