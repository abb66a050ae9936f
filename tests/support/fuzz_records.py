"""Records that were changed at random are read: a value or the library's own error, at a bounded cost.

    python -m tests.support.fuzz_records [--count 1000000] [--seed 1] [--control]

One third of the records is plain, one compressed, and one compressed and encrypted; the latter two are changed outside,
or inside, as by somebody who has the key. Prints the worst time and memory of one input. `--control` reads some plain
ones by a decoder without bounds, which has to be caught: by its errors, its time and its memory.
"""

from __future__ import annotations

import argparse
import random
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from time import process_time
from typing import Any

from msgpack import unpackb  # type: ignore[import-untyped]

from nearcache.errors import CodecError
from nearcache.protocol import records
from nearcache.protocol.filters import AES_GCM, RESERVED, Filters, KeyRing
from nearcache.protocol.types import MARKS
from tests.support.hostile import HOSTILE
from tests.support.models import ONE_OF_EACH_KIND, TYPED, Fixed, Key, Tag
from tests.support.values import ONE_OF_EACH

SECONDS, SECONDS_PER_MIB = 0.5, 1.0
"""An input that takes more of the processor is a failure: some ten times what the worst takes on an idle machine."""
MIB, MIB_PER_MIB = 16.0, 36.0
"""An input that takes more memory is a failure: a list of short texts takes 24 times its bytes."""
TRACED = 64
"""One in so many inputs is traced for its memory, which takes long, and each that is large."""
LARGE = 64 * 1024

CONTROLLED = ("a set of one hash", "dicts of one item")
"""What a decoder without bounds comes through, in a few seconds."""

HASHABLE = (*ONE_OF_EACH_KIND[:5], Key(1), Tag(text="a", weight=(1, 2)), Fixed(id=1))
"""Of registered types."""

Read = Callable[[bytes], object]
KEY = "user:7"
COMPRESSING = Filters("fuzz", 8 * 2**20, 1, None)
ENCRYPTING = Filters("fuzz", 8 * 2**20, 1, KeyRing([("1", bytes(32))]))


def opened(record: bytes) -> bytes:
    """The codec's bytes of a record, by the filters that it asks for.

    Raises:
        ValueError: it is no record. CodecError: the filters can't open it.
    """
    payload = records.unpack(record).payload
    if payload[:1] < RESERVED:
        return payload
    return (ENCRYPTING if payload[:1] == AES_GCM else COMPRESSING).open(KEY, payload)


def mib_of(record: bytes) -> float:
    """The size that bounds what a record may cost: opened, as max_value_bytes bounds it too."""
    try:
        return max(len(record), len(opened(record))) / 2**20
    except (ValueError, CodecError):
        return len(record) / 2**20


def read(record: bytes) -> object:
    """A record as a read takes it; None: it is none, or its value is damaged."""
    try:
        return TYPED.decode(opened(record))
    except (ValueError, CodecError):
        return None


def read_without_bounds(record: bytes) -> object:
    """The control: constructors take what they are given."""

    def close(items: list[Any]) -> Any:
        kind = MARKS.get(items[-1]) if items and type(items[-1]) is int else None
        if kind is None:
            return items
        return kind.unpack(items[:-1]) if kind.fields is None else kind.unpack(*items[:-1])

    payload = records.unpack(record).payload
    return unpackb(payload[1:], strict_map_key=False, ext_hook=lambda code, _: code, list_hook=close)


@dataclass(slots=True)
class Worst:
    """The input that took most of something."""

    amount: float = 0.0
    data: bytes = b""

    def take(self, amount: float, data: bytes) -> None:
        """Keep the worse of two."""
        if amount > self.amount:
            self.amount, self.data = amount, data

    def __str__(self) -> str:
        return f"{self.amount:9.4f}  {len(self.data)} bytes, {self.data[:40].hex()}"


@dataclass(slots=True)
class Report:
    """What a run has found."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    seconds: Worst = field(default_factory=Worst)
    mib: Worst = field(default_factory=Worst)
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{count} {kind}" for kind, count in self.outcomes.most_common())
        return (
            f"{self.inputs} inputs: {kinds}\nworst seconds {self.seconds}\nworst MiB     {self.mib}\n"
            f"{len(self.failures)} failures" + "".join(f"\n  {failure}" for failure in self.failures[:10])
        )


def record_of(payload: bytes) -> bytes:
    """A record with this payload."""
    return bytes([records.MAGIC]) + bytes(records.HEAD_BYTES - 1) + records.pack_tail(payload)


def seeds() -> list[bytes]:
    """Records of every type of value, those of registered types too: alone, nested and as keys."""
    values: list[Any] = [value for value, _ in ONE_OF_EACH]
    hashable = [value for value in values if not isinstance(value, list | dict | set | bytearray)]
    values += [values[:], (values[:], "x"), {"rows": [{"id": 1, "at": value} for value in values]}]
    values += [dict.fromkeys(hashable, 1), set(hashable), frozenset(hashable), list(range(2000)), ["ab"] * 3000]
    kinds = ONE_OF_EACH_KIND
    typed = [*kinds, kinds, {"rows": [kinds, kinds]}, [dict.fromkeys(HASHABLE, 1), set(HASHABLE)], [kinds[-1]] * 300]
    return [record_of(TYPED.encode(value)) for value in [*values, *typed]]


def changed(dice: random.Random, whole: Sequence[bytes]) -> bytes:
    """A record with one to eight changes."""
    data = bytearray(dice.choice(whole))
    for _ in range(dice.choice((1, 1, 1, 2, 3, 8))):
        at = dice.randrange(len(data) + 1)
        if dice.random() < 0.8:
            at = max(at, min(len(data), 30))  # mostly in the value
        match dice.randrange(7):
            case 0 if at < len(data):
                data[at] ^= 1 << dice.randrange(8)
            case 1 if at < len(data):
                data[at] = dice.choice((dice.randrange(256), 0xC7, 0xC1, 0x91, 0xDC, 0xDD, 0xDF, 0xC6, 0x00, 0xFF))
            case 2:
                del data[at : at + dice.randrange(1, 9)]
            case 3:
                data[at:at] = dice.randbytes(dice.randrange(1, 9))
            case 4:  # a part again, elsewhere
                start = dice.randrange(len(data) + 1)
                data[at:at] = data[start : start + dice.randrange(1, 40)] * dice.choice((1, 2, 50))
            case 5:  # another mark
                data[at:at] = b"\xc7\x00" + bytes([dice.choice((dice.randrange(30), dice.randrange(32, 60)))])
            case _:  # a part of another record
                other = dice.choice(whole)
                start = dice.randrange(30, len(other))
                data[at:at] = other[start : start + dice.randrange(1, 60)]
    return bytes(data)


def sealed(record: bytes, filters: Filters) -> bytes:
    """The same record with its payload compressed or encrypted; as it is, if there is no payload to be found."""
    try:
        parsed = records.unpack(record)
    except ValueError:
        return record
    return record_of(filters.seal(KEY, parsed.payload))


def inputs(count: int, seed: int, *, control: bool = False) -> Iterator[bytes]:
    """Hostile records as they are, and then changed ones; for the control only what it comes through."""
    hostile = [record_of(HOSTILE[name]()) for name in (CONTROLLED if control else HOSTILE)]
    yield from hostile
    dice, whole = random.Random(seed), seeds()
    if control:
        for _ in range(count):
            yield changed(dice, whole)
        return
    whole += [record for record in hostile if len(record) < LARGE]
    both = (COMPRESSING, ENCRYPTING)
    yield from (sealed(record, filters) for filters in both for record in hostile)
    outside = {filters: [sealed(record, filters) for record in whole] for filters in both}
    for _ in range(count):
        match dice.randrange(3):
            case 0:
                yield changed(dice, whole)
            case kind:
                filters = both[kind - 1]
                inside = dice.random() < 0.5
                yield sealed(changed(dice, whole), filters) if inside else changed(dice, outside[filters])


def fuzz(records_of: Iterator[bytes], reader: Read = read, stop_after: int = 10) -> Report:
    """Read each record, by ``reader``, until ``stop_after`` failures."""
    report = Report()
    for number, record in enumerate(records_of):
        report.inputs += 1
        size = mib_of(record)
        began = process_time()
        try:
            outcome = "refused" if reader(record) is None else "values"
        except BaseException as error:  # that is what is looked for
            outcome = "errors"
            report.failures.append(f"{type(error).__name__} of {record[:60].hex()}")
        report.outcomes[outcome] += 1
        seconds = process_time() - began
        report.seconds.take(seconds, record)
        if seconds > SECONDS + SECONDS_PER_MIB * size:
            report.failures.append(f"{seconds:.2f} s for {len(record)} bytes, {record[:60].hex()}")
        elif number % TRACED == 0 or size > LARGE / 2**20:
            mib = _memory_of(reader, record)
            report.mib.take(mib, record)
            if mib > MIB + MIB_PER_MIB * size:
                report.failures.append(f"{mib:.1f} MiB for {len(record)} bytes, {record[:60].hex()}")
        if len(report.failures) >= stop_after:
            break
    return report


def _memory_of(reader: Read, record: bytes) -> float:
    tracemalloc.start()
    try:
        reader(record)
    except BaseException:  # counted already
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak / 2**20


def main() -> int:
    """Run it; 1 if there was a failure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--control", action="store_true")
    given = parser.parse_args()
    reader = read_without_bounds if given.control else read
    report = fuzz(inputs(given.count, given.seed, control=given.control), reader)
    sys.stdout.write(f"seed {given.seed}{', control' if given.control else ''}\n{report}\n")
    return bool(report.failures)


if __name__ == "__main__":
    sys.exit(main())
