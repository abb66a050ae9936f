"""Bounds on what a value may cost, checked before it is packed, and before it is made of bytes of unknown origin."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from operator import length_hint
from typing import Any

from msgpack import Unpacker, unpackb  # type: ignore[import-untyped]

from nearcache.errors import ValueTooLarge
from nearcache.protocol.kinds import Kind
from nearcache.protocol.registry import Mark, Types
from nearcache.protocol.types import CONTAINERS, IMMUTABLE, MARKS, SCALARS, Damaged

LEVELS = 1024
"""Of nesting; msgpack's own limit, or above it."""

# ------------------------------------------------------------------------------------------------ a value to be packed

_MANY = 4096
"""Containers of one level among which shared ones are looked for."""


class Fields:
    """The fields of registered values that were looked at before they are packed: each value's once."""

    __slots__ = ("_held", "_types")

    def __init__(self, types: Types) -> None:
        self._types = types
        self._held: dict[int, tuple[object, list[Any]]] = {}

    def of(self, kind: Kind, value: object) -> list[Any]:
        """Those of one value; kept with it, so that no other one gets its id."""
        held = self._held.get(id(value))
        if held is None or held[0] is not value:
            held = self._held[id(value)] = (value, self._types.fields_of(kind, value))
        return held[1]

    def kind_and_fields(self, value: object) -> tuple[Kind, list[Any]]:
        """The kind of a value, and its fields."""
        kind = self._types.by_type[type(value)]
        return kind, self.of(kind, value)

    def change(self, change: Callable[[list[Any]], list[Any]]) -> None:
        """Put others in place of all of them."""
        self._held = {key: (value, change(fields)) for key, (value, fields) in self._held.items()}

    def within(self, items: Iterable[object]) -> list[Any]:
        """The containers among some items, and the fields of those that are of registered types."""
        by_type = self._types.by_type
        if not by_type:
            return [item for item in items if type(item) in CONTAINERS]
        return [
            item if kind is None else self.of(kind, item)
            for item in items
            if (kind := by_type.get(type(item))) is not None or type(item) in CONTAINERS
        ]


def survey(value: object, most: int, types: Types, fields: Fields) -> set[type]:
    """The types of all that a value consists of, found level by level.

    Some 40 ns an item and nearly all in C: `gc.get_referents` gives the items of lists, tuples and sets, the values of
    dicts, and their keys unless all are str. It stops at a type that is not carried, and at a value that contains
    itself, which packing will find.

    Raises:
        ValueTooLarge: it would have over ``most`` bytes. Lists that are shared double with each level, so that a small
            value may fill the memory when it is packed.
    """
    found: set[type] = set()
    level: list[Any] = [[value]]
    size = 0
    for _ in range(LEVELS + 1):
        below = gc.get_referents(*level)
        here = set(map(type, below))
        found |= here
        if not here <= types.known:
            break
        size += _key_lengths(level, most) + _lengths(below)
        if size > most:
            raise ValueTooLarge(f"a value of over {most} bytes")
        if here <= IMMUTABLE:
            break
        level = fields.within(below)
        if len(level) > _MANY and len(set(map(id, level))) < len(level):
            return found | _survey_shared(level, most - size, types, fields)
    return found


def quick_size(value: Any) -> int:
    """The least size of a value that is small, or a flat list or dict by str; -1 for anything else.

    Small is a list, tuple, set or dict by str that has few of them inside, and no others. Most values are such; this
    takes a fraction of the time of a survey.
    """
    size, parts = 0, [value]
    for part in parts:
        kind = type(part)
        if kind is dict:
            if len(part) > _FEW_ITEMS or not _STR.issuperset(map(type, part)):
                return _flat_size(value)
            size += sum(map(len, part))
            items: Iterable[Any] = part.values()
        elif kind in _ITERATED and len(part) <= _FEW_ITEMS:
            items = part
        else:
            return _flat_size(value)
        size += len(part)
        for item in items:
            inner = type(item)
            if inner is str or inner is bytes:
                size += len(item)
            elif inner not in IMMUTABLE:
                parts.append(item)
                if len(parts) > _FEW_PARTS:
                    return -1
    return size


_FEW_ITEMS, _FEW_PARTS = 256, 32
_ITERATED = frozenset({list, tuple, set, frozenset})


def _flat_size(value: object) -> int:
    """The least size of a list, or dict by str, that holds nothing but scalars; -1 for anything else."""
    if type(value) is list:
        return sum(map(length_hint, value)) if SCALARS.issuperset(map(type, value)) else -1
    if type(value) is dict and _STR.issuperset(map(type, value)) and SCALARS.issuperset(map(type, value.values())):
        return sum(map(len, value)) + sum(map(length_hint, value.values()))
    return -1


_STR = frozenset({str})
_TEXTS = frozenset({str, bytes, bytearray})


def _lengths(items: list[Any]) -> int:
    """The number of items and the lengths of texts: the least that they take."""
    return len(items) + sum([len(item) for item in items if type(item) in _TEXTS])


def _key_lengths(level: Iterable[Any], most: int) -> int:
    """The least that those keys take which `gc.get_referents` leaves out, or a little less where that is quicker."""
    dicts = [item for item in level if type(item) is dict]
    count = sum(map(len, dicts))
    try:
        longest = max(map(len, set().union(*dicts)), default=0)
    except (TypeError, OverflowError):  # some have other keys too, such as a long range
        longest = most
    if count * longest <= most // 4:
        return 0
    return sum(sum(map(len, one)) for one in dicts if _STR.issuperset(map(type, one)))


def _survey_shared(level: Iterable[Any], most: int, types: Types, fields: Fields) -> set[type]:
    """As `survey`, for containers of which some are shared, each of which is packed at every place where it occurs.

    Linear in the number of different containers, while the size may double with each level.
    """
    found: set[type] = set()
    sizes: dict[int, int | None] = {}
    waiting = list(level)
    while waiting:
        item = waiting[-1]
        if sizes.get(id(item)) is not None:
            waiting.pop()
            continue
        below = gc.get_referents(item)
        here = set(map(type, below))
        found |= here
        if not here <= types.known:
            return found
        sizes[id(item)] = None  # under way: a container inside itself counts nothing, and packing will find it
        inner = fields.within(below)
        new = {id(part): part for part in inner if id(part) not in sizes}
        if new:
            waiting.extend(new.values())
            continue
        waiting.pop()
        own = _key_lengths([item], most) + _lengths(below)
        sizes[id(item)] = min(most + 1, own + sum(sizes[id(part)] or 0 for part in inner))
    if sum(sizes[id(item)] or 0 for item in level) > most:
        raise ValueTooLarge(f"a value of over {most} bytes")
    return found


# ------------------------------------------------------------------------------------------- bytes to be made a value

_PROMISED_FREE = 64 * 1024


def check_promises(data: bytes) -> None:
    """Refuse arrays that say they have more items than there are.

    msgpack takes the memory for all items of an array when it meets its header, at each of a thousand levels.

    Raises:
        Exception: the bytes are damaged.
    """
    size = len(data)
    promised = data.count(b"\xdd") * size + data.count(b"\xdc") * min(size, 0xFFFF)
    if promised > _PROMISED_FREE + 16 * size:
        unpacker = Unpacker(max_buffer_size=size)
        unpacker.feed(data)
        unpacker.skip()  # makes nothing, and goes through only if all items are there


CONTAINERS_FREE = 128 * 1024
_BYTES_PER_CONTAINER = 16
_HEADS = bytes([*range(0x80, 0xA0), 0xDC, 0xDD, 0xDE, 0xDF])
"""The bytes that begin arrays and maps; in a text they may mean something else."""
_WEIGHTS = {code: 3 for code, kind in MARKS.items() if kind.type in {set, frozenset, OrderedDict}}
"""These take as much memory as so many lists."""


def check_memory(data: bytes, known: Mapping[int, Mark]) -> None:
    """Refuse msgpack whose containers take far more memory than it has bytes: an empty one has one byte, and takes 56.

    ``known``: what its marks mean.

    Raises:
        Exception: over 131,072 containers and one for each 16 bytes, or the bytes are damaged.
    """
    size = len(data)
    most = CONTAINERS_FREE + size // _BYTES_PER_CONTAINER
    if size <= CONTAINERS_FREE or size - len(data.translate(None, _HEADS)) <= most:
        return
    left = most

    def count(weight: int) -> None:
        nonlocal left
        left -= weight
        if left < 0:
            raise Damaged(f"over {most} lists, dicts and sets")

    weights = _WEIGHTS | {code: kind.weight for code, kind in known.items() if type(kind) is Kind}
    unpackb(  # what it makes is dropped at once
        data,
        strict_map_key=False,
        max_ext_len=0,
        ext_hook=lambda code, _: count(weights.get(code, 1) - 1),
        list_hook=lambda _: count(1),
        object_pairs_hook=lambda _: count(1),
    )
