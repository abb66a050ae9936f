"""Redis is away, 20 callers read one key, and a hot key is read beside it: loads per second against the ideal.

A loaded value serves for outage_ttl from the beginning of its load, so the ideal is one load in that time, however many
read it. The hot key is in the stripe of the first one, where it could harm it most. The control is the same without
the hot key.
"""

from __future__ import annotations

import asyncio
import itertools
import time

from nearcache import AsyncNearCache, NearCache
from nearcache.local.snapshot import stripe_of
from nearcache.testing import FaultProxy
from nearcache.transport.embedded import EmbeddedServer
from tests.support.processes import Cache, connected, done, pause, side_by_side
from tests.support.report import Report
from tests.support.tables import Table
from tests.torture.scenarios.outages import Loader

CALLERS = 20
OUTAGE_TTL = 0.25
LOADER = 0.02
"""Seconds."""
PAUSE = 0.001
"""Seconds between two reads of a caller."""
LIMIT = 1.2
"""How many times the ideal the loads may be."""
KEY = "key"
HOT = next(name for name in map("hot:{}".format, itertools.count()) if stripe_of(name) == stripe_of(KEY))


class Trial:
    """A cache whose Redis is away."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self.loaders = {key: Loader(cache, LOADER) for key in (KEY, HOT)}
        self.reads = 0

    async def play(self, keys: list[str], seconds: float) -> None:
        """Everybody reads for so long."""
        end = time.monotonic() + seconds
        await side_by_side(self._cache, [self._read(key, end) for key in keys])

    async def _read(self, key: str, end: float) -> None:
        load = self.loaders[key].call
        while time.monotonic() < end:
            await done(self._cache.get_or_set(key, load))
            self.reads += 1
            await pause(self._cache, PAUSE)


async def play(server: EmbeddedServer, make: type[Cache], keys: list[str], seconds: float) -> Trial:
    """An outage during which these keys are read, one caller each."""
    with FaultProxy(server.port) as proxy:
        async with connected(make, proxy.url, namespace="away", ttl=60, outage_ttl=OUTAGE_TTL) as cache:
            proxy.cut()
            while cache.healthy:  # noqa: ASYNC110  # its proof runs out
                await asyncio.sleep(0.05)
            trial = Trial(cache)
            await trial.play(keys, seconds)
            return trial


def show(report: Report) -> bool:
    """Run, print and keep; the budget judges."""
    seconds = 2.0 if report.quick else 6.0
    rows, kept = [], {}
    kinds: tuple[type[Cache], ...] = (NearCache, AsyncNearCache)
    with EmbeddedServer() as server:
        for make in kinds:
            for name, beside in (("alone", []), ("a hot key beside it", [HOT] * 5)):
                trial = asyncio.run(play(server, make, [KEY] * CALLERS + beside, seconds))
                loader, ideal = trial.loaders[KEY], 1 / OUTAGE_TTL
                rate = loader.calls / seconds
                who = f"{make.__name__}, {name}"
                rows.append([who, f"{trial.reads / seconds:,.0f}", f"{rate:.1f}", f"{ideal:.1f}", str(loader.most)])
                kept[who] = {"loads/s": rate, "ideal": ideal, "at once": loader.most, "reads": trial.reads}
                if beside:
                    report.budget(f"{who}: loads", rate / ideal, LIMIT, control=f"the ideal, {ideal:.0f} a second")
                    report.budget(f"{who}: loads at once", loader.most, 1, "loads", f"{CALLERS} callers")
    head = ["", "reads/s", "loads/s", "ideal", "at once"]
    notes = [f"outage_ttl {OUTAGE_TTL} s, loader {LOADER * 1e3:.0f} ms, {CALLERS} callers of one key"]
    report.show(Table("Redis is away: loads of one key", head, rows, notes))
    report.keep("away", kept)
    return True
