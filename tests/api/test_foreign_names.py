"""A name of ours in Redis that somebody else has put a list at, and a key that Redis refuses, harm that key alone."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache import Drained
from nearcache.engine import replay
from nearcache.transport.embedded import EmbeddedServer
from nearcache.transport.resp import ServerError
from tests.support.twins import MakeCache
from tests.support.waiting import Heard, redis_of, until


@pytest.mark.parametrize("letter", ["v", "l", "t"])
async def test_a_list_at_a_name_harms_its_key_alone(
    make_cache: MakeCache, server: EmbeddedServer, namespace: str, letter: str
) -> None:
    """Of a value, a lease or a tag: the key is written, heard of elsewhere, loaded and deleted as any other."""
    async with make_cache() as one, make_cache() as other:
        heard = Heard(one)

        def spoil() -> None:
            with redis_of(server.url) as client:
                foreign = f"{{{namespace}:0}}:{letter}:bad"
                client.delete(foreign)
                client.rpush(foreign, "none of ours")

        assert await one.set("good", 1, tags=["bad"])
        spoil()
        assert await other.get("bad") is None
        assert await one.set("bad", 1, tags=["bad"]) is True
        await until(lambda: other._core.invalidation.last >= one._core.invalidation.last)
        assert await other.get("bad") == 1
        spoil()
        assert await one.set("bad", 2) is True
        await until(lambda: other.peek("bad") is None)
        spoil()
        assert await one.mark_stale("bad") is True
        spoil()
        assert await one.get_or_set("bad", one.loader(3)) == 3
        assert await one.get_or_set("bad", one.loader(4)) == 3
        spoil()
        one._core.tier.journal_keys(["a", "bad", "good"])
        await until(lambda: heard.of(Drained))
        assert heard.of(Drained) == [Drained(replayed=3, left=0)]
        assert await other.get("bad") is None
        assert await one.delete("bad", hold=0.1) is True
        assert one.stats().l2_errors == other.stats().l2_errors == 0
        assert one.health().status == "ok"


async def test_a_replay_with_one_refused_key_does_not_hold_up_the_others(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the refusal of all at once they go one by one, and the refused one waits at the end."""
    monkeypatch.setattr(replay, "FIRST_PAUSE", 0.01)
    async with make_cache(max_staleness=0.4) as cache:
        heard = Heard(cache)
        remote, asked = cache._core.remote, []
        delete = remote.delete

        async def refusing(keys: Any, **options: Any) -> Any:
            asked.append(tuple(keys))
            if "bad" in keys:
                raise ServerError("ERR none of this")
            return await delete(keys, **options)

        remote.delete = refusing
        cache._core.tier.journal_keys(["bad", "a", "b", "c"])
        await until(lambda: len(cache._core.tier.journal) == 1)
        assert sum(event.replayed for event in heard.of(Drained)) == 3
        assert asked[0] == ("bad", "a", "b", "c")
        assert {keys for keys in asked[1:] if "bad" not in keys} == {("a",), ("b",), ("c",)}
        assert await cache.set("a", 1) is True
        assert await cache.get("a") == 1
        remote.delete = delete
        await until(lambda: not len(cache._core.tier.journal))
