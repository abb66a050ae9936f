"""Four instances that work on a cluster, as `nearcache top` shows them; their host names are made up."""

from __future__ import annotations

import asyncio
import io
import random
import re
import socket
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection

from rich.console import Console

from nearcache import NearCache
from nearcache.cli.top import look, table_of
from tests.support.clusters import LocalCluster
from tests.support.processes import Crew, serve

NAMESPACE = "shop"
KEYS = 4000
INSTANCES: Mapping[str, dict[str, object]] = {
    "web-1": {},
    "web-2": {},
    "worker": {"l1_max_entries": 500},
    "batch": {"l1_share": 0.25},
}


class Shop:
    """An instance that reads and writes."""

    def __init__(self, cache: NearCache, name: str) -> None:
        self._cache, self._random = cache, random.Random(name)

    async def work(self, seconds: float) -> None:
        """For so many seconds."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            for _ in range(200):
                key = f"product:{int(KEYS * self._random.random() ** 3)}"
                self._cache.get_or_set(key, lambda key=key: {"name": key, "price": len(key)})  # type: ignore[misc]
            self._cache.set(f"product:{self._random.randrange(KEYS)}", {"name": "new", "price": 1})
            await asyncio.sleep(0.01)


async def attend(url: str, name: str, settings: dict[str, object], pipe: Connection) -> None:
    """Run one instance."""
    socket.gethostname = lambda: name
    with NearCache.from_url(url, namespace=NAMESPACE, announce=True, **settings) as cache:  # type: ignore[arg-type]
        await serve(pipe, Shop(cache, name))


def picture(seconds: float = 6.0, width: int = 170) -> str:
    """The SVG; its fonts are those of the reader."""
    console = Console(record=True, width=width, file=io.StringIO())
    with LocalCluster("valkey") as cluster:
        arguments = {name: (cluster.url, name, settings) for name, settings in INSTANCES.items()}
        with Crew(attend, arguments) as crew, NearCache.from_url(cluster.url, namespace=NAMESPACE) as cache:
            crew.ask("work", seconds)
            console.print(table_of(NAMESPACE, look(cache), console))
    return re.sub(r"@font-face \{.*?\}", "", console.export_svg(title="nearcache top"), flags=re.DOTALL)
