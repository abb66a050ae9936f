"""200,000 keys whose values are never kept: what the cache remembers of them must not cost other keys their L2.

Each value that is returned and not kept leaves a mark, and the table of marks is bounded. Now and then some other keys,
which L1 is too small for, are read: each should be found in Redis. The control is the same with values that are kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nearcache import AsyncNearCache
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import connected
from tests.support.report import Report
from tests.support.tables import Table

KEYS, QUICK = 200_000, 20_000
OTHERS = [f"other:{number}" for number in range(100)]
EVERY = 500
"""Keys between two looks at the others."""
TOGETHER = 50
"""Tasks."""
PATIENT: Mapping[str, Any] = {"redis_timeout": 5, "max_staleness": 20}
"""Other work of the machine makes no read time out, which would be a miss of all the others at once."""
LIMIT = 0.99
"""The part of the control's hit rate that must be left."""


@dataclass
class Outcome:
    """What the reads of the others found."""

    reads: int = 0
    found: int = 0
    loads: int = 0
    errors: int = 0
    """Operations that Redis did not answer as it should."""
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """The part that Redis answered."""
        return self.found / self.reads


async def _seven() -> int:
    return 7


async def play(url: str, namespace: str, count: int, *, kept: bool) -> Outcome:
    """Load so many keys, and read the others meanwhile."""
    outcome, began = Outcome(), time.monotonic()
    async with connected(AsyncNearCache, url, namespace=namespace, ttl=600, l1_max_entries=10, **PATIENT) as cache:

        async def load(keys: Sequence[int]) -> None:
            for key in keys:
                await cache.get_or_set(f"key:{key}", _seven, condition=lambda _: kept)

        await cache.set_many(dict.fromkeys(OTHERS, 7))
        for first in range(0, count, EVERY):
            await asyncio.gather(*(load(range(first + one, first + EVERY, TOGETHER)) for one in range(TOGETHER)))
            found = await cache.get_many(OTHERS)
            outcome.reads += len(OTHERS)
            outcome.found += len(found)
            for other in OTHERS:
                if other not in found:
                    await cache.get_or_set(other, _seven)
        outcome.loads, outcome.errors = cache.stats().loads, cache.stats().l2_errors
    outcome.seconds = time.monotonic() - began
    return outcome


def show(report: Report) -> bool:
    """Run, print and keep; the budget judges."""
    count = QUICK if report.quick else KEYS
    with EmbeddedServer() as server:
        kept, never = (asyncio.run(play(server.url, f"kept-{kept}", count, kept=kept)) for kept in (True, False))
    rows = [
        [what, f"{one.loads:,}", f"{one.reads:,}", f"{one.rate:.2%}", str(one.errors), f"{one.seconds:.0f}"]
        for what, one in (("values that are kept", kept), ("never kept", never))
    ]
    head = ["", "loads", "reads of others", "found in Redis", "errors", "s"]
    report.show(Table(f"{count:,} keys, and {len(OTHERS)} others", head, rows))
    report.keep("uncacheable", {"kept": vars(kept), "never kept": vars(never)})
    report.budget("reads of others that Redis answers", never.rate / kept.rate, LIMIT, "×", "kept", at_least=True)
    return True
