"""Bytes that are made to cost far more time or memory than their size says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgpack  # type: ignore[import-untyped]

from tests.support.values import CODEC

P = 2**61 - 1
"""Numbers that differ by a multiple of it have one hash."""
MARK = b"\xc7\x00"
LIST, TUPLE, SET, FROZENSET = 0, 1, 2, 3


def marked(code: int, *fields: object) -> bytes:
    """The bytes of a marked array with any fields."""
    packed = b"".join(map(_plain, fields))
    return b"\xc1" + bytes([0x90 + len(fields) + 1]) + packed + MARK + bytes([code])


def _plain(value: object) -> bytes:
    return CODEC.encode(value)[1:]


def _array(items: Iterable[bytes], code: int = LIST) -> bytes:
    """An array of packed items, with a mark at its end unless it is a list."""
    parts = [*items, *([MARK + bytes([code])] if code else [])]
    head = bytes([0x90 + len(parts)]) if len(parts) < 16 else b"\xdd" + len(parts).to_bytes(4, "big")
    return head + b"".join(parts)


def _int(number: int) -> bytes:
    """An int as its mark has it, without the bound of encode."""
    return _array([msgpack.packb(number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))], 4)


def _ints_of_one_hash(count: int, start: int = 2**20) -> list[bytes]:
    return [_int(P * (start + number)) for number in range(count)]


def _dict(keys: list[bytes]) -> bytes:
    return b"\xdf" + len(keys).to_bytes(4, "big") + b"\xc0".join(keys) + b"\xc0"


def _nested(depth: int) -> tuple[bytes, bytes]:
    """Two frozensets that differ and have one hash, in which nothing but comparing all parts finds the difference."""
    one, other = _array([b"\xff"], FROZENSET), _array([b"\xfe"], FROZENSET)  # of -1 and of -2
    for _ in range(depth):
        one, other = (
            _array([one, other, _array([one], TUPLE)], FROZENSET),
            _array([one, other, _array([other], TUPLE)], FROZENSET),
        )
    return one, other


def _passing(count: int, bits: int) -> list[int]:
    """Keys of a dict of 2**bits places, of which half fill a run of places that the other half has to pass."""
    run, at = [], 1
    for _ in range(count // 2):
        run.append(at)
        at = (5 * at + 1) % (1 << bits)
    start = run[: max(1, count // 40)]
    return run + [start[number % len(start)] + (1 + number // len(start) << bits) for number in range(count // 2)]


def _minus(bits: int) -> Any:
    return {tuple(-1 - (number >> bit & 1) for bit in range(bits)) for number in range(2**bits)}


MANY = 1024 * 1024
HOSTILE: Mapping[str, Callable[[], bytes]] = {
    "a fraction of a text": lambda: marked(8, "1e1000000000", None),
    "a decimal of an int": lambda: b"\xc1" + _array([_int(2**2_000_000)], 7),
    "a fraction of long ints": lambda: b"\xc1" + _array([_int(6**400_000), _int(10**400_000)], 8),
    "a range of long ints": lambda: b"\xc1" + _array([b"\x00", _int(2**2_000_000), _int(3**400_000)], 9),
    "a long decimal": lambda: marked(7, "9" * MANY),
    "a long name of a zone": lambda: marked(15, "a/" * (MANY // 2)),
    "a long address": lambda: marked(20, ":" * MANY),
    "a set of one hash": lambda: b"\xc1" + _array(_ints_of_one_hash(25_000), SET),
    "a frozenset of one hash": lambda: b"\xc1" + _array(_ints_of_one_hash(10_000), FROZENSET),
    "a dict of one hash": lambda: b"\xc1" + _dict(_ints_of_one_hash(10_000)),
    "plain keys that pass each other": lambda: b"\x91" + msgpack.packb(dict.fromkeys(_passing(160_000, 18))),
    "tuples of one hash": lambda: CODEC.encode(_minus(11)),
    "a dict of tuples of one hash": lambda: b"\xc1" + _dict([_plain(key) for key in _minus(11)]),
    "uuids of one hash": lambda: (
        b"\xc1" + _array((_array([b"\xc4\x10" + (P * n).to_bytes(16, "big")], 16) for n in range(9000)), SET)
    ),
    "ints and decimals of one hash": lambda: (
        b"\xc1" + _array([*_ints_of_one_hash(300, 2**60_000), *(_plain(Decimal(P * n)) for n in range(1, 300))], SET)
    ),
    "frozensets of frozensets": lambda: b"\xc1" + _array(_nested(8), SET),
    "the same key again and again": lambda: b"\xc1" + _array([_plain((1, 2, 3))] * 10_000, SET),
    "empty lists": lambda: b"\x91" + _array([b"\x90"] * MANY),
    "empty dicts": lambda: b"\x91" + _array([b"\x80"] * MANY),
    "empty sets": lambda: b"\xc1" + _array([_array([], SET)] * (MANY // 4)),
    "dicts of one item": lambda: b"\x91" + _array([b"\x81\xa0\xc0"] * (MANY // 3)),
    "headers without items": lambda: b"\x91" + b"\xdd\x00\x7f\x00\x00" * 500 + bytes(2 * MANY),
    "short headers without items": lambda: b"\x91" + b"\xdc\xff\xff" * 500 + bytes(66_000),
    "texts of no end": lambda: b"\x91" + b"\xdb\xff\xff\xff\xff" * 100,
}
"""By name; each has to be refused."""
