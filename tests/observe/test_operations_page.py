"""What docs/operations.md says of events and connections is true."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

from nearcache import events
from tests.support.twins import MakeCache
from tests.support.waiting import redis_of, until

PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()


def test_every_event_is_explained() -> None:
    """A row of each."""
    rows = set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
    assert {kind.__name__ for kind in events.Event.__subclasses__()} <= rows


def test_every_link_inside_the_page_leads_somewhere() -> None:
    """Headings have the anchors that GitHub gives them."""
    headings = re.findall(r"^#+ (.*)$", PAGE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\(#([\w-]+)\)", PAGE)) <= anchors


async def test_the_sum_of_connections(make_cache: MakeCache) -> None:
    """The bus, and one for each thread that asks at the same time, up to max_connections; two for asyncio."""
    cache = make_cache(max_connections=3)
    with redis_of(cache.url) as client:

        def connections() -> int:
            return len(client.client_list())

        before = connections()
        async with cache:
            await asyncio.gather(*(cache.get(f"k{number}") for number in range(64)))
            own = connections() - before
            assert own == 2 if cache.mode == "aio" else 2 <= own <= 1 + 3
        await until(lambda: connections() == before)
