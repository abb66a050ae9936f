"""Each script on a server whose memory is full, with the counter there or lost: nothing is stored, removals pass."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing, suppress
from typing import Any, TypeAlias

import pytest

from nearcache import NearCache
from nearcache.protocol import records
from nearcache.protocol.answers import Fill, Granted, Item
from nearcache.protocol.names import Names
from nearcache.transport.embedded import EmbeddedServer
from nearcache.transport.resp import ServerError
from tests.support.rig import FOREVER, TTL, Rig, greet
from tests.support.waiting import redis_of, until

COUNT = 64
VALUE = records.pack_tail(b"v" * 16_384)
SLACK = 256 * 1024
"""Bytes by which used memory may rise: buffers of connections, and names. What is tried to be stored is four times as
much."""
OLD = [f"old:{number}" for number in range(COUNT)]
LEASED = [f"leased:{number}" for number in range(COUNT)]
TAGS = ("x",)

Act: TypeAlias = "Callable[[Rig, int], object]"

STORE: dict[str, Act] = {
    "set": lambda rig, number: rig.do(rig.remote.set([Item(f"new:{number}", VALUE, TTL)], (), FOREVER)),
    "set with tags": lambda rig, number: rig.do(rig.remote.set([Item(f"new:{number}", VALUE, TTL)], TAGS, FOREVER)),
    "set of what is there": lambda rig, number: rig.do(rig.remote.set([Item(OLD[number], VALUE, TTL)], (), FOREVER)),
    "add": lambda rig, number: rig.do(rig.remote.add(Item(f"new:{number}", VALUE, TTL), b"", TAGS, FOREVER)),
    "incr": lambda rig, number: rig.do(rig.remote.incr(f"new:{number}", 1, 0, TTL, b"", FOREVER)),
    "lease": lambda rig, number: rig.lease(f"new:{number}"),
}
REMOVE: dict[str, Act] = {
    "delete": lambda rig, number: rig.delete(OLD[number]),
    "delete with hold": lambda rig, number: rig.delete(OLD[number], hold_ms=10_000),
    "delete_existing": lambda rig, number: rig.do(rig.remote.delete_existing(OLD[number])),
    "mark_stale": lambda rig, number: rig.do(rig.remote.mark_stale([OLD[number]])),
    "clear": lambda rig, _: rig.clear(),
    "invalidate_tags": lambda rig, _: rig.tag(*TAGS),
    "greet": lambda rig, _: greet(rig),
    "abort": lambda rig, number: rig.abort(LEASED[number]),
}


@pytest.fixture(params=["counter", "no counter"])
def full(request: pytest.FixtureRequest, fresh_rig: Rig) -> Rig:
    """A server that holds some values and leases, and whose memory is full."""
    rig = fresh_rig
    greet(rig)
    for key in OLD:
        rig.do(rig.remote.set([Item(key, records.pack_tail(b"v", TAGS), TTL)], TAGS, FOREVER))
    for act in (*STORE.values(), *REMOVE.values()):  # the server knows every script, and buffers have their sizes
        act(rig, 0)
    greet(rig)
    rig.messages()
    rig.client.config_set("maxmemory-policy", "noeviction")
    if request.param == "no counter":
        rig.client.delete(rig.names.counters)
    rig.client.config_set("maxmemory", used(rig) - SLACK)
    return rig


def used(rig: Rig) -> int:
    """Bytes of the server's data."""
    return int(rig.client.info("memory")["used_memory"])


def told(rig: Rig) -> set[str]:
    """What was published since the memory was full: no number was taken without a message."""
    heard = [message for message in rig.messages() if message.number]
    numbers = [message.number for message in heard]
    assert numbers == [first + step for first in numbers[:1] for step in range(len(numbers))]
    return {name for message in heard for name in message.names}


@pytest.mark.parametrize("name", STORE)
def test_what_stores_is_refused(full: Rig, name: str) -> None:
    """A set becomes a delete, a lease is refused, and memory does not grow."""
    before = used(full)
    for number in range(COUNT):
        with suppress(ServerError):
            STORE[name](full, number)
    assert used(full) < before + SLACK
    keys = OLD if name == "set of what is there" else [f"new:{number}" for number in range(1, COUNT)]
    assert [full.raw(key) for key in keys] == [None] * len(keys)
    assert [full.holder(f"new:{number}") for number in range(1, COUNT)] == [None] * (COUNT - 1)
    told(full)


def test_a_fill_is_refused(fresh_rig: Rig) -> None:
    """Of leases that were given before the memory was full."""
    rig = fresh_rig
    greet(rig)
    grants: dict[str, Granted] = {key: rig.granted(key) for key in LEASED}
    rig.client.config_set("maxmemory-policy", "noeviction")
    rig.client.config_set("maxmemory", used(rig) - 1)
    before = used(rig)
    for key, grant in grants.items():
        with suppress(ServerError):
            rig.do(rig.remote.fill([Fill(Item(key, VALUE, TTL), b"0123456789abcdef", grant, ())]))
    assert used(rig) < before + SLACK
    assert [rig.raw(key) for key in LEASED] == [None] * COUNT


@pytest.mark.parametrize("name", REMOVE)
def test_what_removes_passes(full: Rig, name: str) -> None:
    """No error, with the counter or without it, and memory does not grow."""
    before = used(full)
    for number in range(COUNT):
        REMOVE[name](full, number)
    assert used(full) < before + SLACK
    names = told(full)
    if name.startswith("delete"):
        assert [full.raw(key) for key in OLD] == [None] * COUNT
        assert names == set(OLD)


@pytest.mark.parametrize("copied", [False, True])
@pytest.mark.parametrize(("refusal", "value"), [("maxmemory", 1), ("min-replicas-to-write", 1)])
async def test_a_bus_connects_where_writes_are_refused(
    fresh_server: EmbeddedServer, namespace: str, refusal: str, value: int, copied: bool
) -> None:
    """A greeting that changes nothing writes nothing. Where it can't adopt a copy, L2 is read until it can."""
    settings: dict[str, Any] = {"namespace": namespace, "max_staleness": 0.4}
    with NearCache.from_url(fresh_server.url, **settings) as cache:
        assert cache.set("k", 1)
    with redis_of(fresh_server.url) as client:
        if copied:
            client.hset(Names(namespace).counters, "i", "another/0")
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set(refusal, value)
        with closing(NearCache.from_url(fresh_server.url, **settings)) as cache:
            assert cache.get("k") == 1
            if copied and refusal != "maxmemory":
                assert not cache.wait_healthy(0.5)
                assert cache.get("k") == 1
                client.config_set(refusal, 0)
            await until(lambda: cache.healthy)
            assert cache.get("k") == 1
