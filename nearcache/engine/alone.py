"""add, touch, incr, delete_existing without a server (``memory://``, ``null://``): L1 alone knows what is there.

Each number is taken before the lock, under which it is decided; the put rule refuses what a later write has overtaken.
"""

from __future__ import annotations

from nearcache.engine.core import Core
from nearcache.engine.entries import Encoded
from nearcache.engine.stale import fresh_entry
from nearcache.errors import CodecError, ValueTooLarge
from nearcache.local.store import Entry
from nearcache.policy import Policy
from nearcache.protocol.answers import Written
from nearcache.protocol.records import NUMBER_MAX, count_of, pack_count


async def add(core: Core, encoded: Encoded, policy: Policy) -> bool:
    """Put a value unless a fresh one is there; whether it was put."""
    key, snapshot = encoded.key, core.tier.snapshot(encoded.key)
    written = await core.remote.set([encoded], policy.tags, 0)
    with core.tier.lock:
        if fresh_entry(core, key) is not None:
            return False
        core.tier.put(key, core.entries.of_write(encoded, written, policy), snapshot, own=True)
    return True


def touch(core: Core, key: str, policy: Policy) -> bool:
    """Give a fresh value a new ttl; whether there was one."""
    with core.tier.lock:
        entry = fresh_entry(core, key)
        if entry is None:
            return False
        ttl_ms = core.entries.ttl_ms(key, core.entries.value_of(entry), policy)
        if ttl_ms is None:
            return False
        life = ttl_ms / 1000 if policy.l1_ttl is None else min(ttl_ms / 1000, policy.l1_ttl)
        entry.expires = entry.deadline = core.runtime.monotonic() + life
    return True


async def incr(core: Core, key: str, delta: int, initial: int | None, ttl_ms: int) -> int:
    """Add to a counter, or to a number that was set, which L1 has to keep here."""
    written = await core.remote.set([], (), 0)
    with core.tier.lock:
        snapshot, entry = core.tier.snapshot(key), fresh_entry(core, key)
        was = initial if entry is None else core.entries.value_of(entry)
        if entry is not None and (type(was) is not int or entry.tags):
            raise CodecError(not_a_counter(key))
        if was is None:
            raise KeyError(key)
        count = was + delta
        if max(abs(was), abs(count)) >= NUMBER_MAX:
            raise ValueTooLarge(out_of_range(key, delta))
        expires = core.runtime.monotonic() + ttl_ms / 1000 if entry is None else entry.expires
        core.tier.put(key, _counter(core, key, count, expires, written), snapshot, own=True)
    return count


def _counter(core: Core, key: str, count: int, expires: float, written: Written) -> Entry:
    payload = pack_count(count)
    size = len(key) + len(payload)
    return core.tier.make_entry(payload, expires, written.version, (), size, expires, count_of)


async def delete_existing(core: Core, key: str) -> bool:
    """Drop a value; whether a fresh one was there."""
    written = await core.remote.delete([key])
    assert written is not None  # noqa: S101  # only a replay can be too early
    with core.tier.lock:
        there = fresh_entry(core, key) is not None
        core.tier.wrote(key, written.version, core.tier.epoch)
    core.requests.wrote(written)
    return there


def not_a_counter(key: str) -> str:
    """What is wrong with an incr of a value."""
    return (
        f"the value of {key!r} is no counter, and no int that was set without tags: delete it first, or count under "
        "another key"
    )


def out_of_range(key: str, delta: int) -> str:
    """What is wrong with an incr beyond the range."""
    return f"incr({key!r}, {delta}) would leave the range of a counter, which is less than 2**53 from zero"
