"""Explain a key: what both tiers have of it, and what a read would do now. Nothing is changed or counted."""

from __future__ import annotations

from typing import Any

from nearcache.engine.core import Core
from nearcache.engine.ports import RemoteFailed
from nearcache.engine.read import opened
from nearcache.errors import CodecError
from nearcache.explanation import Explanation
from nearcache.local.marks import NO_MARK
from nearcache.local.singleflight import Purpose
from nearcache.local.store import Entry
from nearcache.protocol import records
from nearcache.protocol.answers import Bounds, Claim
from nearcache.protocol.records import Record
from nearcache.protocol.versions import created_of, number_of


async def explain(core: Core, key: str) -> Explanation:
    """What a read of the key would do now, and why. A failure of Redis is part of the answer."""
    if core.parts:
        core = core.of(key)
    found: dict[str, Any] = {"left_l1": _left(core, key)}
    entry, l1 = _l1(core, key)
    if entry is not None:
        found |= _of_entry(core, key, entry)
    record, claim = None, None
    try:
        l2, record, claim = await _l2(core, key)
    except RemoteFailed as failure:
        l2 = f"Redis did not answer: {failure}"
    if record is not None and (entry is None or record.version >= entry.version):
        found |= _of_record(core, key, record)
    found["in_flight"] = _in_flight(core, key, claim)
    if l1 is None:
        return Explanation(key=key, would="serve from L1", tier="l1", why="the entry is fresh and proven", **found)
    if l2 is None:
        return Explanation(key=key, would="serve from L2", tier="l2", why=f"L1: {l1}", **found)
    return Explanation(key=key, would="load", tier=None, why=f"L1: {l1}; L2: {l2}", **found)


def _l1(core: Core, key: str) -> tuple[Entry | None, str | None]:
    """The entry of L1, if there is one, and why it does not serve."""
    now = core.runtime.monotonic()
    loaded = core.tier.serve_loaded(key, now)
    if loaded is not None:
        return loaded, None
    entry = core.tier.entry(key)
    if entry is None:
        return None, "it does not have the key"
    if now >= entry.expires:
        return entry, f"the value ended {now - entry.expires:.3f} s ago"
    if now >= entry.proof.until:
        return entry, "nothing proves that no message was missed"
    return entry, None


async def _l2(core: Core, key: str) -> tuple[str | None, Record | None, Claim | None]:
    """Why L2 does not serve (None: it does), its record, and what stands at the lease."""
    core.requests.permit()
    reading = await core.remote.read([key], with_bounds=True)
    claim = await core.remote.claim(key)
    (raw,) = reading.records
    if raw is None:
        return "it has nothing", None, claim
    try:
        record = records.unpack(raw)
    except ValueError as error:
        return f"what it has is no record: {error}", None, claim
    dead = await _dead(core, key, record, reading.bounds)
    if dead is None:
        try:
            opened(core, key, record)
        except CodecError as error:
            dead = f"the value can't be read: {error}"
    if dead is None and not core.tier.snapshot(key).trusted:
        dead = "the last write of the key here is not acknowledged, so that the value may be older"
    return dead, record, claim


async def _dead(core: Core, key: str, record: Record, bounds: Bounds | None) -> str | None:
    """Why the value of a record does not count, in the order in which a read judges."""
    number, floor = number_of(record.version), core.tier.floors.namespace
    if bounds is not None:
        floor = max(floor, bounds.floor)
        if number > bounds.number:
            return "its number was never given out: the counter was lost or set back"
    if number < floor:
        return "the namespace was cleared after it was written"
    dead = await _dead_by_tag(core, record)
    if dead is not None:
        return dead
    now, mark = core.requests.server_now(), core.tier.marks.of(key)
    if mark is not NO_MARK and mark.refuses(record.began, now / 1e6 - core.runtime.monotonic()):
        return "it may be older than a value that this process has returned, which could not be stored"
    if not record.fresh_until:
        return "it was marked stale"
    if now >= record.fresh_until:
        return f"the value ended {(now - record.fresh_until) / 1e6:.3f} s ago"
    return None


async def _dead_by_tag(core: Core, record: Record) -> str | None:
    floors = await core.remote.tag_floors(record.tags) if record.tags else ()
    for tag, told in zip(record.tags, floors, strict=True):
        if told is None:
            return f"the floor of the tag {tag!r} is not there, which counts as invalidated"
        floor, number = told.raised(core.tier.floors.tags.get(tag, told)), number_of(record.version)
        if number < floor.dead:
            return f"the tag {tag!r} was invalidated after it was written"
        if number < floor.number:
            return f"the values of the tag {tag!r} were made stale after it was written"
    return None


def _of_entry(core: Core, key: str, entry: Entry) -> dict[str, Any]:
    now, server_now = core.runtime.monotonic(), core.requests.server_now()
    found: dict[str, Any] = {"l1_remaining": min(entry.expires, entry.proof.until) - now, "tags": entry.tags}
    if entry.version:
        found |= {"version": number_of(entry.version), "age": (server_now - created_of(entry.version)) / 1e6}
    try:
        found["type"] = type(core.entries.value_of(entry)).__name__
    except CodecError:
        found["type"] = None
    return found | {"size": entry.size - len(key)}


def _of_record(core: Core, key: str, record: Record) -> dict[str, Any]:
    now = core.requests.server_now()
    found: dict[str, Any] = {
        "version": number_of(record.version),
        "age": (now - created_of(record.version)) / 1e6,
        "remaining": (record.fresh_until - now) / 1e6 if record.fresh_until else 0.0,
        "tags": record.tags,
        "size": len(record.payload),
    }
    try:
        found["type"] = type(opened(core, key, record)[1]).__name__
    except CodecError:
        found["type"] = None
    return found


def _in_flight(core: Core, key: str, claim: Claim | None) -> tuple[str, ...]:
    under_way = [
        f"a load in this process, for {purpose.value}" for purpose in Purpose if core.flights.has(key, purpose)
    ]
    if claim is not None:
        what = "a hold refuses fills" if claim.hold else "an instance has the lease"
        under_way.append(f"{what} for {claim.remaining:.3f} s more")
    if core.tier.journal.covers(key):
        under_way.append("a write waits in the journal for Redis")
    return tuple(under_way)


def _left(core: Core, key: str) -> str | None:
    with core.tier.lock:
        return core.tier.drops.of(key)
