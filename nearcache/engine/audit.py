"""The audit: a part of L1's hits is compared with what Redis has, in the background (the setting audit_fraction).

The way of a hit is not touched: a chore looks at the entries that were used lately, as many as the hits since the last
time call for. What differs is compared again after ``max_staleness``: until then a hit may miss a write (G1). If the
same entry would still serve, it is stale: a lost message went unnoticed, or somebody writes without the library.

Redis without a value says nothing, since it may have evicted it. Nor does a newer value that a load has filled: a fill
sends no message, and other instances keep what they have until it expires.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from nearcache.engine.core import Core
from nearcache.engine.explain import explain
from nearcache.errors import CodecError
from nearcache.events import StaleFound
from nearcache.local import drops
from nearcache.local.store import Entry
from nearcache.protocol import records
from nearcache.protocol.answers import BATCH, TagFloor
from nearcache.protocol.records import Record
from nearcache.protocol.versions import created_of, number_of

RATE_MAX = 100.0
"""Entries a second that are compared at most."""
SUSPECTS_MAX = 1000


@dataclass(slots=True, eq=False)
class Suspect:
    """An entry that differed from what Redis had."""

    entry: Entry
    since: float
    """When that was seen first (monotonic)."""


@dataclass(slots=True, eq=False)
class Audit:
    """The audit of one cache."""

    core: Core
    hits: int = 0
    """Hits of L1 when it was called last."""
    at: float = field(init=False)
    """When that was (monotonic)."""
    suspects: dict[str, Suspect] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.at = self.core.runtime.monotonic()

    async def run(self) -> None:
        """Compare some entries, and those again that differed ``max_staleness`` ago."""
        core, now = self.core, self.core.runtime.monotonic()
        tier, limit = core.tier, RATE_MAX * (now - self.at)
        wanted = min((tier.hits - self.hits) * core.settings.audit_fraction, limit) + random.random()
        self.hits, self.at = tier.hits, now
        keys = [key for key, suspect in self.suspects.items() if now - suspect.since >= core.settings.max_staleness]
        keys += [key for key in tier.used_lately(int(wanted)) if key not in self.suspects]
        compared = {key: entry for key in keys[:BATCH] if (entry := self._serving(key)) is not None}
        for key in keys:
            if key not in compared:
                self.suspects.pop(key, None)
        for part, some in core.split(compared):
            await self._compare(part, {key: compared[key] for key in some})

    def _serving(self, key: str) -> Entry | None:
        """The entry that a hit would serve now, if its version is known."""
        now, entry = self.core.runtime.monotonic(), self.core.tier.entry(key)
        if entry is None or not entry.version or now >= entry.deadline or now >= entry.proof.until:
            return None
        return entry

    async def _compare(self, core: Core, compared: Mapping[str, Entry]) -> None:
        if not compared:
            return
        keys = list(compared)
        core.requests.permit()
        reading = await core.remote.read(keys, with_bounds=True)
        found = {key: raw for key, raw in zip(keys, reading.records, strict=True) if raw is not None}
        tags = sorted({tag for key in found for tag in compared[key].tags})
        told = await core.remote.tag_floors(tags[:BATCH]) if tags else ()
        floors = {tag: floor for tag, floor in zip(tags, told, strict=False) if floor is not None}
        floor = 0 if reading.bounds is None else reading.bounds.floor
        for key in keys:
            entry, raw = compared[key], found.get(key)
            core.counters.audited += raw is not None
            why = None if raw is None else self._differs(key, entry, raw, floor, floors)
            if why is None:
                self.suspects.pop(key, None)
            else:
                await self._suspect(key, entry, why, raw)

    def _differs(self, key: str, entry: Entry, raw: bytes, floor: int, floors: Mapping[str, TagFloor]) -> str | None:
        """Why an entry is not what a read of L2 would give; None: it is, or nothing is known against it."""
        try:
            record = records.unpack(raw)
        except ValueError:
            return "what Redis has is no record of this library"
        if record.version != entry.version:
            filled = record.load_ms and record.version > entry.version
            return None if filled else "Redis has another version"
        number = number_of(entry.version)
        if number < floor:
            return "the namespace was cleared"
        for tag in entry.tags:
            raised = floors.get(tag)
            if raised is not None and number < raised.number:
                return f"the tag {tag!r} was {'invalidated' if number < raised.dead else 'made stale'}"
        if not record.fresh_until:
            return "it was marked stale"
        return None if self._same_value(key, entry, record) else "Redis has another value under the same version"

    def _same_value(self, key: str, entry: Entry, record: Record) -> bool:
        entries = self.core.entries
        try:
            payload = entries.open(key, record).payload
            if entry.decode is not None and type(entry.value) is bytes:
                return payload == entry.value
            there, here = entries.decode(payload), entries.value_of(entry)
        except CodecError:
            return False
        with suppress(Exception):  # comparing and encoding may be the user's
            return bool(there == here) or entries.codec.encode(here) == payload  # NaN differs from itself
        return True

    async def _suspect(self, key: str, entry: Entry, why: str, raw: bytes | None) -> None:
        """Note an entry that differs; if it did so ``max_staleness`` ago and would still serve, it is stale."""
        core, now = self.core.of(key), self.core.runtime.monotonic()
        suspect = self.suspects.get(key)
        if suspect is None or suspect.entry is not entry:
            if suspect is not None or len(self.suspects) < SUSPECTS_MAX:
                self.suspects[key] = Suspect(entry, now)
            return
        del self.suspects[key]
        if self._serving(key) is not entry:
            return
        age = max(now - suspect.since, _age(core, entry, raw))
        core.counters.audit_stale += 1
        core.counters.audit_stale_age += age
        told = await explain(core, key)
        core.emit_once(StaleFound(key, why, age, told))
        with core.tier.lock:
            if core.tier.entries.get(key) is entry:
                core.tier.drop(key)
                core.tier.drops.note((key, drops.AUDITED))


def _age(core: Core, entry: Entry, raw: bytes | None) -> float:
    """Seconds since the newer value was written; 0: it is none, or that is not known."""
    with suppress(ValueError):
        created = created_of(records.unpack(raw or b"").version)
        if created > created_of(entry.version):
            return max(0.0, (core.requests.server_now() - created) / 1e6)
    return 0.0
