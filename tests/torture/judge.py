"""What was seen, held against the book: staleness, reads that go back, own writes unseen, values that come alive."""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.torture.book import KEYS, NEVER, NOTHING_LOST, Book, Window, name


class Read(NamedTuple):
    """A read that returned a version; times in ns."""

    key: int
    start: int
    end: int
    version: int


@dataclass
class Verdict:
    """What the reads of one process were."""

    reads: int = 0
    longest: int = 0
    """ns of the longest one."""
    stale: list[int] = field(default_factory=list)
    """Staleness of the reads that were stale at all, in ns."""
    violations: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """By invariant, one line each."""


@dataclass(frozen=True)
class Case:
    """What the reads of a process are judged by."""

    book: Book
    max_staleness: int
    """ns."""
    window: Window = NOTHING_LOST
    writes: range = range(0)
    """The keys that this process writes."""


def judge(reads: Sequence[Read], case: Case) -> Verdict:
    """Judge the reads of one process."""
    verdict = Verdict(len(reads), max((read.end - read.start for read in reads), default=0))
    by_key: dict[int, list[Read]] = defaultdict(list)
    for read in reads:
        by_key[read.key].append(read)
    for key, own in by_key.items():
        own.sort(key=lambda read: read.start)
        _staleness(own, case, verdict)
        _monotonic(own, case, verdict)
        if key in case.writes:
            _own_writes(own, case, verdict)
    return verdict


def _staleness(reads: Iterable[Read], case: Case, verdict: Verdict) -> None:
    """Start of the read minus the earliest acknowledgement of a newer version."""
    outdated: dict[int, int] = {}
    for read in reads:
        if read.version not in outdated:
            outdated[read.version] = case.book.outdated(read.key, read.version, case.window)
        age = read.start - outdated[read.version]
        if age > 0:
            verdict.stale.append(age)
        if age > case.max_staleness:
            verdict.violations["stale"].append(f"{_says(read, case)}, outdated {age / 1e6:.0f} ms before")


def _monotonic(reads: Sequence[Read], case: Case, verdict: Verdict) -> None:
    """A read that starts after another has ended returns no older version, unless a failover lies between the two."""
    for begin, end in case.window.histories():
        _goes_back([read for read in reads if begin + case.max_staleness < read.start < end], case, verdict)


def _goes_back(reads: Sequence[Read], case: Case, verdict: Verdict) -> None:
    """The same within one history of the server, however each value was found.

    Not counted: a step back to a set of unknown outcome before its deadline, which ``Book.orders`` takes for
    concurrent with what was written meanwhile: Redis executes it whenever it arrives until then.
    """
    ended = sorted(reads, key=lambda read: read.end)
    seen: list[int] = []
    at = 0
    for read in reads:
        while at < len(ended) and ended[at].end < read.start:
            version = ended[at].version
            here = bisect_left(seen, version)
            if here == len(seen) or seen[here] != version:
                insort(seen, version)
            at += 1
        for newer in seen[bisect_left(seen, read.version + 1) :]:
            if case.book.orders(read.key, read.version, newer):
                verdict.violations["monotonic"].append(
                    f"{_says(read, case)} after a read of {newer}{_told(read.key, newer, case.book)}"
                )
                break


def _own_writes(reads: Iterable[Read], case: Case, verdict: Verdict) -> None:
    """The writer's own instance gives its own version, a newer one or a miss, acknowledged or not."""
    book = case.book
    for read in reads:
        for newer in range(read.version + 1, book.row(read.key) + 1):
            over = book.ended(read.key, newer) < read.start
            if over and book.orders(read.key, read.version, newer) and not book.lost(read.key, newer, case.window):
                verdict.violations["own-write"].append(
                    f"{_says(read, case)} after the own write of {newer}{_told(read.key, newer, book)}"
                )
                break


def resurrected(looks: Iterable[Read], case: Case) -> list[str]:
    """What lay alive in Redis though a newer write had been acknowledged before the look; once per key and version."""
    found: dict[tuple[int, int], str] = {}
    for look in looks:
        age = look.start - case.book.outdated(look.key, look.version, case.window)
        if age > 0 and (look.key, look.version) not in found:
            found[look.key, look.version] = f"{_says(look, case)} in Redis, outdated {age / 1e6:.1f} ms before"
    return list(found.values())


@dataclass(frozen=True)
class Kept:
    """What an instance has of each key at the quiet end, None for nothing."""

    who: str
    local: Sequence[int | None]
    """By peek, in L1."""
    shared: Sequence[int | None]
    """By get, in either tier."""


def at_the_end(kept: Sequence[Kept], living: Mapping[int, int], case: Case) -> tuple[list[str], dict[int, str]]:
    """Lost invalidations, that is, old values in some L1; and by key how instances, Redis and database differ."""
    book, window = case.book, case.window
    lost: list[str] = []
    diverged: dict[int, str] = {}
    for key in range(KEYS):
        row = book.row(key)
        gone = row > 0 and book.lost(key, row, window)
        allowed = {None, row} if not gone else {None, living.get(key, row)}
        told = _told(key, row, book)
        if living.get(key) not in allowed:
            diverged[key] = f"{name(key)}: Redis has {living[key]}, the database {row}{told}"
        for one in kept:
            if one.local[key] not in allowed:
                lost.append(f"{name(key)}: L1 of {one.who} has {one.local[key]}, the database {row}{told}")
            if one.shared[key] not in allowed:
                diverged[key] = f"{name(key)}: {one.who} reads {one.shared[key]}, the database has {row}{told}"
    return lost, diverged


def delays(heard: Sequence[tuple[int, str]], book: Book) -> list[int]:
    """Per acknowledged write, ns from its beginning until its key was heard of; what was not heard is left out."""
    times: dict[str, list[int]] = defaultdict(list)
    for when, heard_of in heard:
        times[heard_of].append(when)
    found = []
    for key, version in book.writes():
        own = times.get(name(key), [])
        began = book.began(key, version)
        until = book.began(key, version + 1) if version < book.row(key) else NEVER
        at = bisect_left(own, began)
        if not book.unanswered(key, version) and at < len(own) and own[at] < until:
            found.append(own[at] - began)
    return found


def unheard(heard: Sequence[tuple[int, str]], book: Book) -> int:
    """How many acknowledged writes of a key more there were than messages of it."""
    messages = Counter(key for _, key in heard)
    return sum(max(0, book.named(key) - messages[name(key)]) for key in range(KEYS))


def percentile(values: Sequence[int], part: float, count: int | None = None) -> float:
    """In ms; ``count``: how many there are, when those that are missing are zeros."""
    zeros = (len(values) if count is None else count) - len(values)
    at = math.ceil(part * (len(values) + zeros)) - 1 - zeros
    return sorted(values)[at] / 1e6 if values and at >= 0 else 0.0


def _says(read: Read, case: Case) -> str:
    return f"{name(read.key)} is {read.version}{_told(read.key, read.version, case.book)}"


def _told(key: int, version: int, book: Book) -> str:
    return " (not acknowledged)" if book.unanswered(key, version) else ""
