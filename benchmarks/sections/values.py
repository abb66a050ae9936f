"""What values cost: a hit under each ``copy``, and encoding and decoding beside pickle, orjson and msgspec.

Hits are of NearCache on ``memory://``, since the look into L1 is the same, beside functools.lru_cache, which always
shares. A codec's options (FILTERS: what stands between it and Redis) have a row each. pickle runs what bytes
say, orjson has no types of Python's own, and msgspec is told the type that it is to make: they do less.
"""

from __future__ import annotations

import asyncio
import functools
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from benchmarks.harness.timing import Case, Times, compare
from nearcache import MsgpackCodec, NearCache
from nearcache.protocol.filters import Filters, KeyRing
from tests.support.report import Report
from tests.support.tables import Table

KEYS = 200
COPY: tuple[Literal["auto", "none", "serialized"], ...] = ("auto", "none", "serialized")
LRU = "functools.lru_cache"


@dataclass(frozen=True, slots=True)
class User:
    """A frozen model."""

    id: int
    name: str
    email: str
    active: bool
    joined: datetime


ROW = {"id": 7, "name": "Ada Lovelace", "email": "ada@example.org", "active": True, "score": 1.5}
ROWS = [{**ROW, "id": number} for number in range(200)]
MODEL = User(7, "Ada Lovelace", "ada@example.org", active=True, joined=datetime(2024, 1, 1, tzinfo=UTC))
ENCODED: Mapping[str, object] = {"a dict of 5": ROW, "200 rows": ROWS, "a frozen model": MODEL}
HITS: Mapping[str, object] = {"a str": "Ada Lovelace" * 4, **ENCODED}

Ways = Mapping[str, tuple[Callable[[Any], bytes], Callable[[bytes], Any]]]
MOST = 8 * 2**20
KEY = "user:7"
FILTERS: Mapping[str, tuple[int | None, bool]] = {
    "nearcache, zstd": (1024, False),
    "nearcache, encrypted": (None, True),
    "nearcache, both": (1024, True),
}
"""The options between the codec and Redis: from how many bytes a value is compressed, and whether it is encrypted."""


def show(report: Report) -> bool:
    """Measure, print and keep; whether every loop was all hits, and every codec brought the value back."""
    rounds = 3 if report.quick else 11
    hits, held = asyncio.run(_hits(rounds))
    report.show(_hit_table(hits, rounds))
    figures = {"hits": {name: _spreads(times) for name, times in hits.items()}}
    for name, value in ENCODED.items():
        ways = _ways(value)
        held &= all(read(write(value)) == value for write, read in ways.values())
        for what, at in (("encode", 0), ("decode", 1)):
            cases = [
                Case(way, "use(given)", {"use": both[at], "given": both[0](value) if at else value})
                for way, both in ways.items()
            ]
            times = asyncio.run(compare(cases, [str(number) for number in range(KEYS)], rounds, seconds=0.02))
            sizes = {way: len(both[0](value)) for way, both in ways.items()}
            report.show(_codec_table(f"{what} {name}, {rounds} rounds", times, sizes))
            figures[f"{what} {name}"] = _spreads(times)
    report.keep("values", figures)
    return held


async def _hits(rounds: int) -> tuple[dict[str, Times], bool]:
    """Hits of each value under each ``copy``, and whether they were hits."""
    keys = [f"user:{number}" for number in range(KEYS)]
    found, held = {}, True
    with NearCache.from_url("memory://", ttl=3600) as cache:
        cache.codec.register(User)
        for name, value in HITS.items():
            cases = [Case(LRU, "get(key)", {"get": functools.lru_cache(lambda _, value=value: value)})]
            for copy in COPY:
                cache.set_many({f"{copy}:{key}": value for key in keys}, copy=copy)
                cases.append(Case(copy, "get(key)", {"get": cache.get}, f"{copy}:{{}}".format))
            before = cache.stats().misses
            found[name] = await compare(cases, keys, rounds, seconds=0.02)
            held &= cache.stats().misses == before
    return found, held


def _filtered(codec: MsgpackCodec, compress_from: int | None, keys: KeyRing | None) -> Any:
    """A codec with what stands between it and Redis."""
    filters = Filters("values", MOST, compress_from, keys)
    return (lambda value: filters.seal(KEY, codec.encode(value)), lambda data: codec.decode(filters.open(KEY, data)))


def _ways(value: object) -> Ways:
    codec = MsgpackCodec()
    codec.register(User)
    ways: dict[str, Any] = {"nearcache": (codec.encode, codec.decode)}
    for name, (compress_from, encrypts) in FILTERS.items():
        ways[name] = _filtered(codec, compress_from, KeyRing([("1", bytes(32))]) if encrypts else None)
    ways["pickle"] = (pickle.dumps, pickle.loads)
    try:
        import msgspec
    except ImportError:
        print("NOT RUN: msgspec is not installed")
    else:
        ways["msgspec"] = (msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(type(value)).decode)
    try:
        import orjson
    except ImportError:
        print("NOT RUN: orjson is not installed")
    else:
        read = _user_of(orjson.loads) if isinstance(value, User) else orjson.loads
        ways["orjson"] = (orjson.dumps, read)
    return ways


def _user_of(loads: Callable[[bytes], Any]) -> Callable[[bytes], User]:
    def read(data: bytes) -> User:
        fields = loads(data)
        fields["joined"] = datetime.fromisoformat(fields["joined"])
        return User(**fields)

    return read


def _hit_table(hits: Mapping[str, Times], rounds: int) -> Table:
    rows = []
    for name, times in hits.items():
        for label in (LRU, *COPY):
            ns, ratio = times.ns(label), times.ratio(label, to=LRU)
            way = label if label == LRU else f"copy={label!r}"
            rows.append([f"{name}, {way}", f"{ns.median:.0f}", ns.range(".0f"), f"{ratio.median:.1f}"])
    notes = ["cache.get of NearCache with lru; processor time, net of the empty loop"]
    return Table(
        f"L1 hits by value and copy, {rounds} rounds", ["", "ns", "least–greatest", "× lru_cache"], rows, notes
    )


def _codec_table(title: str, times: Times, sizes: Mapping[str, int]) -> Table:
    rows = []
    for way, size in sizes.items():
        ns, ratio = times.ns(way), times.ratio(way, to="pickle")
        rows.append([way, f"{ns.median:.0f}", ns.range(".0f"), f"{ratio.median:.2f}", f"{size:,}"])
    return Table(title, ["", "ns", "least–greatest", "× pickle", "bytes"], rows)


def _spreads(times: Times) -> dict[str, Any]:
    return {label: vars(times.ns(label)) for label in times.rounds[0]}
