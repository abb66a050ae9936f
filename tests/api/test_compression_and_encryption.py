"""Compression and encryption on a real server: who reads what, and that a record is bound to its key and namespace."""

from __future__ import annotations

import asyncio
import os
import sys
from itertools import pairwise
from typing import Any

import pytest

from nearcache import CorruptValue, ValueTooLarge
from nearcache.protocol import filters
from nearcache.protocol.records import HEAD_BYTES
from tests.support.cases import each
from tests.support.twins import MakeCache, Twin
from tests.support.waiting import Heard, redis_of, value_name

pytestmark = pytest.mark.one_server
"""To a server, values are bytes."""

OLD, NEW = ("old", os.urandom(16)), ("new", os.urandom(32))
ROWS = [{"id": number, "name": f"user {number}"} for number in range(200)]


def stored(cache: Twin, key: str) -> bytes:
    """What Redis has."""
    with redis_of(cache.url) as client:
        return bytes(client.get(value_name(cache.settings.namespace, key)))


async def test_compress_makes_values_smaller_where_that_pays(make_cache: MakeCache) -> None:
    """What Redis holds; L1 keeps the opened value, and counts its size."""
    async with make_cache(compress="zstd") as one, make_cache() as other:
        noise = os.urandom(5000)
        await one.set_many({"rows": ROWS, "noise": noise})
        assert len(stored(one, "rows")) < 1000
        assert noise in stored(one, "noise")
        assert await one.get("rows") == await other.get("rows") == ROWS
        assert await other.get("noise") == noise
        sizes = one.stats().l1_bytes, other.stats().l1_bytes
        assert sizes[0] == sizes[1] > 8_000
        assert other.stats().l2_hits == 2


async def test_compress_min_bytes_is_the_smallest_value_that_is_compressed(make_cache: MakeCache) -> None:
    """A smaller one stands as it is."""
    async with make_cache(compress="zstd", compress_min_bytes=103) as cache:
        await cache.set_many({"small": b"x" * 99, "large": b"x" * 100})
        assert b"x" * 99 in stored(cache, "small")
        assert b"x" * 99 not in stored(cache, "large")
        cache.clear_local()
        assert await cache.get_many(["small", "large"]) == {"small": b"x" * 99, "large": b"x" * 100}


@each("compress", [None, "zstd"])
async def test_encryption_keys_hide_values(make_cache: MakeCache, compress: str | None) -> None:
    """Not the key and the tags, which the page says; an instance with the same ring reads it."""
    keys = [NEW, OLD]
    async with (
        make_cache(encryption_keys=keys, compress=compress) as one,
        make_cache(encryption_keys=keys) as other,
    ):
        await one.set("a", ["s3cret" * 1000], tags=["seen"])
        assert b"s3cret" not in stored(one, "a")
        assert b"seen" in stored(one, "a")
        assert (len(stored(one, "a")) < 200) is (compress is not None)
        assert await other.get("a") == ["s3cret" * 1000]
        assert await other.get_or_set("b", other.loader(lambda: ROWS)) == ROWS
        one.clear_local()
        assert await one.get("b") == ROWS
        assert other.stats().corrupt_values == 0


async def test_records_are_not_swapped_between_keys(make_cache: MakeCache) -> None:
    """By somebody who may write to Redis and has no key: both are misses, told once, and overwritten by a load."""
    async with make_cache(encryption_keys=[NEW]) as one, make_cache(encryption_keys=[NEW]) as other:
        heard = Heard(other)
        await one.set_many({"a": "of a", "b": "of b"})
        names = [value_name(one.settings.namespace, key) for key in "ab"]
        with redis_of(one.url) as client:
            first, second = client.mget(names)
            client.mset(dict(zip(names, (second, first), strict=True)))
        for _ in range(2):
            assert await other.get_many(["a", "b"]) == {}
        assert other.stats().corrupt_values == 4
        assert [(event.key, "changed, of another key" in event.reason) for event in heard.of(CorruptValue)] == [
            ("a", True),
            ("b", True),
        ]
        assert await other.get_or_set("a", other.loader(lambda: "anew")) == "anew"
        one.clear_local()
        assert await one.get("a") == "anew"


async def test_records_are_not_moved_between_namespaces(make_cache: MakeCache) -> None:
    """With the same ring, and with the head of a living record of the other namespace before it."""
    async with (
        make_cache(encryption_keys=[NEW]) as one,
        make_cache(encryption_keys=[NEW], namespace="another") as other,
    ):
        await one.set("a", 1)
        await other.set("a", 2)
        with redis_of(one.url) as client:
            client.set(value_name("another", "a"), stored(other, "a")[:HEAD_BYTES] + stored(one, "a")[HEAD_BYTES:])
        other.clear_local()
        assert await other.get("a") is None
        assert other.stats().corrupt_values == 1


async def test_keys_are_rotated_in_three_steps(make_cache: MakeCache) -> None:
    """Instances of two neighbouring steps read each other all the time."""
    steps: list[list[tuple[str, bytes]]] = [[OLD], [OLD, NEW], [NEW, OLD], [NEW]]
    for before, after in pairwise(steps):
        async with make_cache(encryption_keys=before) as one, make_cache(encryption_keys=after) as other:
            await one.set("a", "one")
            await other.set("b", "other")
            readable = before[0] in after
            assert await other.get("a") == ("one" if readable else None)
            assert await one.get("b") == "other"
            assert other.stats().corrupt_values == (not readable)
            await one.clear()


@each(
    "writes, reads, reason",
    [
        ({}, {"encryption_keys": [NEW]}, "not encrypted, though encryption_keys is set"),
        ({"compress": "zstd"}, {"encryption_keys": [NEW]}, "not encrypted, though"),
        ({"encryption_keys": [NEW]}, {}, "encrypted, and encryption_keys is not set"),
        ({"encryption_keys": [OLD]}, {"encryption_keys": [NEW]}, "by the key 'old', which is not in encryption_keys"),
        ({"encryption_keys": [("new", OLD[1])]}, {"encryption_keys": [NEW]}, "another key called 'new'"),
        ({"compress": "zstd"}, {"compress": "zstd", "max_value_bytes": 2000}, "over max_value_bytes=2000"),
    ],
)
async def test_what_cannot_be_opened_is_a_miss(make_cache: MakeCache, writes: Any, reads: Any, reason: str) -> None:
    """Counted, told once, and overwritten by the next load."""
    async with make_cache(**writes) as one, make_cache(**reads) as other:
        heard = Heard(other)
        await one.set("a", ROWS)
        assert await other.get("a") is None
        assert await other.get("a") is None
        assert other.stats().corrupt_values == 2
        (event,) = heard.of(CorruptValue)
        assert reason in event.reason
        assert await other.get_or_set("a", other.loader(lambda: "new")) == "new"
        other.clear_local()
        assert await other.get("a") == "new"
        assert other.stats().loads == 1


async def test_changed_and_cut_records_are_misses(make_cache: MakeCache) -> None:
    """As damaged ones are without encryption."""
    async with make_cache(encryption_keys=[NEW], compress="zstd") as cache:
        await cache.set("a", ROWS)
        record = stored(cache, "a")
        for damaged in (record[:-1], record[:40], record[:-1] + bytes([record[-1] ^ 1]), record + b"\0"):
            with redis_of(cache.url) as client:
                client.set(value_name(cache.settings.namespace, "a"), damaged)
            cache.clear_local()
            assert await cache.get("a") is None
        assert cache.stats().corrupt_values == 4


async def test_without_the_library_compressed_values_are_misses(
    make_cache: MakeCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event says what to install."""
    async with make_cache(compress="zstd") as one, make_cache() as other:
        heard = Heard(other)
        await one.set("a", ROWS)
        for name in ("compression.zstd", "zstandard"):
            monkeypatch.setitem(sys.modules, name, None)
        filters.zstd.cache_clear()
        try:
            assert await other.get("a") is None
        finally:
            filters.zstd.cache_clear()
        assert "pip install 'nearcache[zstd]'" in heard.of(CorruptValue)[0].reason


async def test_the_opened_value_is_bounded(make_cache: MakeCache) -> None:
    """However small it is in Redis."""
    async with make_cache(compress="zstd", max_value_bytes=1000, encryption_keys=[NEW]) as cache:
        await cache.set("a", b"x" * 996)
        assert await cache.get("a") == b"x" * 996
        with pytest.raises(ValueTooLarge, match="max_value_bytes=1000"):
            await cache.set("a", b"x" * 997)


class Odd:
    """A codec whose bytes begin like those of the filters."""

    def encode(self, value: object) -> bytes:
        """The bytes that a text names."""
        return bytes.fromhex(str(value))

    def decode(self, data: bytes) -> str:
        """Their text."""
        return data.hex()


async def test_a_codec_of_a_user_may_begin_its_bytes_as_it_likes(make_cache: MakeCache) -> None:
    """They are never taken for compressed or encrypted ones."""
    values = {f"key:{first:02x}": f"{first:02x}28b52ffd00" for first in range(256)} | {"empty": ""}
    async with make_cache(codec=Odd()) as one, make_cache(codec=Odd()) as other:
        await one.set_many(values)
        assert await other.get_many(values) == values
        assert await one.get_many(values) == values


WRITER = """
import sys
from nearcache import NearCache
with NearCache.from_url(sys.argv[1], namespace=sys.argv[2], compress=sys.argv[3] or None) as cache:
    assert cache.get("rows") == [{"id": n, "name": f"user {n}"} for n in range(200)]
    assert cache.set("back", ["of the other process"] * 200)
"""


@each("mine, others", [(None, "zstd"), ("zstd", None), ("zstd", "zstd")])
async def test_processes_with_other_settings_read_each_other(
    make_cache: MakeCache, mine: str | None, others: str | None
) -> None:
    """Whether a value is compressed is seen in it."""
    async with make_cache(compress=mine) as cache:
        await cache.set("rows", ROWS)
        arguments = [cache.url, cache.settings.namespace, others or ""]
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", WRITER, *arguments)
        assert await process.wait() == 0
        assert await cache.get("back") == ["of the other process"] * 200
