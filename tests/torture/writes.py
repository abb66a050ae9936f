"""How a process of a run writes: everything that changes what others may read, each noted with how it ended."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from nearcache import RemoteUnavailable
from tests.support.processes import done
from tests.torture.atomic import Clear, Operation
from tests.torture.book import BRIEF, DROP, FLOOR, KEYS, LATE, NEVER, SET, WRITERS, Book, name, now, owned, tags, ttl
from tests.torture.reads import Reads

WRITE_PAUSE = 0.03
"""Seconds; writes of other keys are twice as far apart at most."""
HOLD = 0.1
"""Seconds for which a delete refuses fills."""
BUSY_KEYS = KEYS // 2
"""Most writes go to these; the others stay in L1 for seconds."""
MOST_AT_ONCE = 3

Rows: TypeAlias = Mapping[int, int]
"""The new version of each key that is written."""
Call: TypeAlias = "Callable[[Any, Rows], Awaitable[bool] | bool]"


def _names(rows: Rows) -> list[str]:
    return [name(key) for key in rows]


def _set(cache: Any, rows: Rows) -> Any:
    ((key, row),) = rows.items()
    return cache.set(name(key), row, tags=tags(key), ttl=ttl(key))


def _set_many(cache: Any, rows: Rows) -> Any:
    return cache.set_many({name(key): row for key, row in rows.items()}, tags=tags(next(iter(rows))))


def _invalidate_tags(cache: Any, rows: Rows, *, stale: bool = False) -> Any:
    return cache.invalidate_tags(*{tag for key in rows for tag in tags(key)}, stale=stale)


def _shared(what: str, key: int) -> str:
    return f"{what}:{key // WRITERS % SHARED}"


Act: TypeAlias = "tuple[float, str, str, int, Call]"
ONE, SEVERAL, TAGGED, ALL = "one", "several", "tagged", "all"
ACTS: Sequence[Act] = (
    (0.38, "set", ONE, SET, _set),
    (0.08, "set_many", SEVERAL, SET, _set_many),
    (0.34, "delete", ONE, DROP, lambda cache, rows: cache.delete(*_names(rows))),
    (0.08, "delete of several", SEVERAL, DROP, lambda cache, rows: cache.delete(*_names(rows))),
    (0.04, "delete with hold", ONE, DROP, lambda cache, rows: cache.delete(*_names(rows), hold=HOLD)),
    (0.04, "mark_stale", ONE, DROP, lambda cache, rows: cache.mark_stale(*_names(rows))),
    (0.02, "invalidate_tags", TAGGED, FLOOR, _invalidate_tags),
    (0.01, "stale tags", TAGGED, FLOOR, partial(_invalidate_tags, stale=True)),
    (0.01, "clear", ALL, FLOOR, lambda cache, _: cache.clear()),
)
"""How often, what it is called, which keys, how their old values go, and the call."""
OTHERS: Mapping[str, Callable[[Any, int], Any]] = {
    "touch": lambda cache, key: cache.touch(name(key), ttl=ttl(key)),
    "delete_existing": lambda cache, key: cache.delete_existing(name(key)),
    "add": lambda cache, key: cache.add(_shared("add", key), key, ttl=BRIEF),
    "incr": lambda cache, key: cache.incr(_shared("incr", key), ttl=3600),
}
"""What writes no row. A touch or a delete must revive nothing, by the judgement of all reads; what add and incr have
answered is judged by ``atomic``."""
SHARED = 4
"""Locks and counters, which all writers share."""
WEIGHTS = [weight for weight, *_ in ACTS]


class Writes:
    """The writes of one process: it alone writes its keys.

    Args:
        cache: of either class.
        book: the database, and the log.
        writer: the number of this process.
        raised: where exceptions are told.
        reads: for reads behind the own writes.
        clears: whether it clears the namespace now and then.
    """

    def __init__(self, cache: Any, book: Book, writer: int, raised: list[str], reads: Reads, *, clears: bool) -> None:
        self._cache, self._book, self._raised, self._reads = cache, book, raised, reads
        self.going = True
        self.counted: Counter[str] = Counter()
        self.operations: list[Operation] = []
        self.clears: list[Clear] = []
        self._late = [key for key in owned(writer) if key in LATE]
        self._own = [key for key in owned(writer) if key not in LATE]
        self._busy = [key for key in self._own if key < BUSY_KEYS]
        self._acts = [act for act in ACTS if clears or act[1] != "clear"]

    async def run(self, rng: random.Random) -> None:
        """Write again and again."""
        while self.going:
            key = rng.choice(self._busy if rng.random() < 0.8 else self._own)
            # One write comes under the reads that another has caused.
            for more in reversed(range(rng.choice((1, 1, 2, 3)))):
                await self._write(key, rng)
                if rng.random() < 0.5:
                    await self._operate(key, rng)
                if rng.random() < 0.5:
                    await self._reads.one(key, rng)
                await asyncio.sleep(rng.uniform(0, 4 * WRITE_PAUSE if more else WRITE_PAUSE))
            await asyncio.sleep(rng.uniform(0, 2 * WRITE_PAUSE))

    async def each_word(self, rng: random.Random) -> None:
        """Do everything once."""
        for act in self._acts:
            await self._act(act, self._own[0], rng)
        for what in OTHERS:
            await self._operate(self._own[0], rng, what)

    async def late(self) -> bool | None:
        """Set the late keys, and delete them; whether the set was acknowledged, None: none of them is written here.

        From now on nothing is cleared: that would hide what becomes of the set.
        """
        self._acts = [act for act in ACTS if act[1] != "clear"]
        if not self._late:
            return None
        calls = {what: call for _, what, _, _, call in ACTS}
        stored = await self._note("set_many", self._late, SET, calls["set_many"])
        await self._note("delete of several", self._late, DROP, calls["delete of several"])
        return stored

    async def _write(self, key: int, rng: random.Random) -> None:
        await self._act(rng.choices(self._acts, WEIGHTS[: len(self._acts)])[0], key, rng)

    async def _act(self, act: Act, key: int, rng: random.Random) -> None:
        _, what, which, how, call = act
        alike = [one for one in self._busy if tags(one) == tags(key)]
        keys = {
            ONE: [key],
            SEVERAL: list({key, *rng.sample(alike, MOST_AT_ONCE - 1)}),
            TAGGED: [one for one in self._own if tags(one)],
            ALL: self._own,
        }
        await self._note(what, keys[which], how, call)

    async def _operate(self, key: int, rng: random.Random, what: str | None = None) -> None:
        what, start = rng.choice(list(OTHERS)) if what is None else what, now()
        try:
            answer = await done(OTHERS[what](self._cache, key))
            changed = bool(answer)
            if changed and what in ("add", "incr"):
                count = answer if what == "incr" else None
                self.operations.append(Operation(_shared(what, key), start, now(), count))
        except RemoteUnavailable:  # of an incr
            changed = False
        except Exception as error:  # whatever else it is, it is a violation
            self._raised.append(f"{what} raised {error!r}")
            return
        self.counted[f"{what}{'' if changed else ', nothing changed'}"] += 1

    async def _note(self, what: str, keys: Sequence[int], how: int, call: Call) -> bool:
        """Raise the rows, write, and note how it ended."""
        if any(map(self._book.full, keys)):
            self._raised.append("the book is full")
            self.going = False
            return False
        rows = {key: self._book.begin(key, how) for key in keys}
        acknowledged, start = False, now()
        try:
            acknowledged = await done(call(self._cache, rows))
        except Exception as error:  # whatever it is, it is a violation
            self._raised.append(f"{what} raised {error!r}")
        finally:
            if what == "clear":
                self.clears.append(Clear(start, now() if acknowledged else NEVER))
            for key, version in rows.items():
                self._book.end(key, version, acknowledged=acknowledged)
            self.counted[f"{what}{'' if acknowledged else ', not acknowledged'}"] += 1
        return acknowledged
