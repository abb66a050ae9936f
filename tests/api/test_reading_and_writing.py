"""get, set, delete, their many-forms, peek, clear and tags: what is promised on one cache, with Redis and without."""

from __future__ import annotations

import pytest

from nearcache.protocol.answers import BATCH
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import until

MANY = 2 * BATCH + 7
"""More keys than one call to Redis takes."""


@pytest.fixture(params=["server", "memory"])
def cache(request: pytest.FixtureRequest, make_cache: MakeCache) -> Twin:
    """A cache on a server, and one without."""
    return make_cache("memory://" if request.param == "memory" else None)


async def test_what_was_set_is_got(cache: Twin) -> None:
    """`set` is acknowledged with True, and `get` returns the value."""
    assert await cache.set("user:7", {"name": "Ada"}) is True
    assert await cache.get("user:7") == {"name": "Ada"}


async def test_a_missing_key_gives_none_or_the_default(cache: Twin) -> None:
    """`get` of an absent key is None, or the default, by position and by name."""
    guest = object()
    assert await cache.get("absent") is None
    assert await cache.get("absent", guest) is guest
    assert await cache.get("absent", default=guest) is guest


async def test_a_cached_none_is_a_value(cache: Twin) -> None:
    """None comes back as None and not as the default, from `get`, `peek`, `get_many` and `get_or_set`."""
    await cache.set("nothing", None)
    assert await cache.get("nothing", "default") is None
    assert cache.peek("nothing", "default") is None
    assert await cache.get_many(["nothing"]) == {"nothing": None}
    assert await cache.get_or_set("nothing", cache.loader("loaded")) is None


async def test_peek_gives_the_value_or_the_default(cache: Twin) -> None:
    """`peek` is a plain function: the value of L1, None, or the default."""
    await cache.set("a", 1)
    assert cache.peek("a") == 1
    assert cache.peek("b") is None
    assert cache.peek("b", "default") == "default"
    assert cache.peek("b", default="default") == "default"


async def test_a_set_replaces(cache: Twin) -> None:
    """The last `set` wins."""
    await cache.set("a", 1)
    await cache.set("a", 2)
    assert await cache.get("a") == 2


async def test_a_deleted_key_is_missing(cache: Twin) -> None:
    """`delete` takes several keys, and nothing is left of them; other keys stay."""
    await cache.set_many({"a": 1, "b": 2, "c": 3})
    assert await cache.delete("a", "b") is True
    assert await cache.get_many(["a", "b", "c"]) == {"c": 3}


async def test_deleting_nothing_is_acknowledged(cache: Twin) -> None:
    """`delete` of an absent key, or of no key at all, is True."""
    assert await cache.delete("absent") is True
    assert await cache.delete() is True


async def test_many_keys_are_got_and_set_at_once(cache: Twin) -> None:
    """`set_many` and `get_many` take more keys than one call to Redis does; what is missing is absent."""
    values = {f"key:{number}": number for number in range(MANY)}
    assert await cache.set_many(values) is True
    assert await cache.get_many([*values, "absent"]) == values
    cache.clear_local()
    assert await cache.get_many([]) == {}


async def test_a_key_asked_for_twice_is_one_key(cache: Twin) -> None:
    """`get_many` takes any iterable, with repetitions."""
    await cache.set("a", 1)
    assert await cache.get_many(key for key in ["a", "a", "b", "b"]) == {"a": 1}


async def test_many_keys_are_deleted_at_once(cache: Twin) -> None:
    """`delete` takes more keys than one call to Redis does."""
    values = {f"key:{number}": number for number in range(MANY)}
    await cache.set_many(values)
    assert await cache.delete(*values) is True
    assert await cache.get_many(values) == {}


async def test_nothing_is_stored_when_one_of_many_is_bad(cache: Twin) -> None:
    """`set_many` with a value that can't be encoded, or a bad key, raises and stores none of the others."""
    with pytest.raises(TypeError, match="object"):
        await cache.set_many({"a": 1, "b": object(), "c": 3})
    with pytest.raises(ValueError, match="empty"):
        await cache.set_many({"a": 1, "": 2})
    assert await cache.get_many(["a", "b", "c"]) == {}


async def test_clear_drops_everything(cache: Twin) -> None:
    """After `clear` every key is missing, and new values are kept as ever."""
    await cache.set_many({"a": 1, "b": 2})
    assert await cache.clear() is True
    assert await cache.get_many(["a", "b"]) == {}
    await cache.set("a", 3)
    assert await cache.get("a") == 3


async def test_a_tag_takes_its_values_with_it(cache: Twin) -> None:
    """`invalidate_tags` drops what carries one of the tags and nothing else; new values are kept as ever."""
    await cache.set("ada", 1, tags=["users", "admins"])
    await cache.set("bob", 2, tags=["users"])
    await cache.set("eve", 3, tags=["guests"])
    await cache.set("x", 4)
    assert await cache.invalidate_tags("admins") is True
    assert await cache.get_many(["ada", "bob", "eve", "x"]) == {"bob": 2, "eve": 3, "x": 4}
    assert await cache.invalidate_tags("users", "guests") is True
    assert await cache.get_many(["ada", "bob", "eve", "x"]) == {"x": 4}
    await cache.set("ada", 5, tags=["users", "admins"])
    assert await cache.get("ada") == 5


async def test_a_loaded_value_carries_its_tags(cache: Twin) -> None:
    """What `get_or_set` stored under a tag goes with the tag, also when the tag is new."""
    assert await cache.get_or_set("ada", cache.loader(1), tags=["users"]) == 1
    assert await cache.get("ada") == 1
    await cache.invalidate_tags("users")
    assert await cache.get("ada") is None


async def test_no_tags_at_all_are_invalidated_at_once(cache: Twin) -> None:
    """`invalidate_tags` without a tag, or with an unknown one, is True."""
    assert await cache.invalidate_tags() is True
    assert await cache.invalidate_tags("unknown") is True


async def test_clear_local_keeps_redis(make_cache: MakeCache) -> None:
    """`clear_local` empties this L1 alone: Redis still has the value, and other instances their L1."""
    async with make_cache() as one, make_cache() as other:
        await one.set("a", 1)
        assert await other.get("a") == 1
        one.clear_local()
        assert one.stats().l1_entries == 0
        assert one.peek("a") is None
        assert other.peek("a") == 1
        assert await one.get("a") == 1


async def test_peek_never_asks_redis(make_cache: MakeCache) -> None:
    """`peek` knows what this L1 holds, and does not look further."""
    async with make_cache() as one, make_cache() as other:
        await one.set("a", 1)
        assert other.peek("a") is None
        assert other.stats().l2_hits == 0
        assert await other.get("a") == 1
        assert other.peek("a") == 1


async def test_another_instance_reads_many(make_cache: MakeCache) -> None:
    """`get_many` takes from L1 what is there and from Redis the rest, in one dict, however many."""
    async with make_cache() as one, make_cache() as other:
        values = {f"key:{number}": number for number in range(MANY)}
        await one.set_many(values)
        await until(lambda: other.stats().invalidations_received == 3)  # else a fill may be refused, which is right
        assert await other.get("key:3") == 3
        assert await other.get_many([*values, "absent"]) == values
        stats = other.stats()
        assert (stats.l1_hits, stats.l2_hits, stats.misses) == (1, MANY, 1)


async def test_the_same_object_comes_back_each_time(cache: Twin) -> None:
    """A hit gives the very object where nobody can change it, or with copy="none"."""
    value: object = ("list", 1, 2)
    await cache.set("a", value)
    assert await cache.get("a") is value
    value = {"list": [1, 2]}
    await cache.set("a", value, copy="none")
    assert await cache.get("a") is value
    assert cache.peek("a") is value
