"""Why a value cannot be encoded: the first thing in it that cannot, where it sits, and the way out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import AsyncIterable, Awaitable, Iterator
from datetime import datetime, time, tzinfo
from enum import Enum
from reprlib import Repr
from typing import Any
from zoneinfo import ZoneInfo

from nearcache.protocol.bounds import LEVELS
from nearcache.protocol.registry import Types
from nearcache.protocol.types import CONTAINERS, KNOWN, PACK_ERRORS, PACKS

_PATH_CHARS = 200
_names = Repr()
_names.maxstring = _names.maxother = 60


def problem_in(value: object, types: Types) -> str | None:
    """The first thing in the value that cannot be carried: where it is, why, and the way out."""
    steps: list[str] = []
    within: list[object] = [None]
    branches: list[Iterator[tuple[str, object]]] = [iter((("value", value),))]
    sound: set[int] = set()  # containers, by id: one that is shared is looked into once
    while branches:
        step, item = next(branches[-1], (None, None))
        del steps[len(branches) - 1 :]
        if step is None:
            branches.pop()
            sound.add(id(within.pop()))
            continue
        steps.append(step)
        problem = _problem(item, types)
        if problem:
            return _path(steps) + problem
        if len(branches) > LEVELS:
            return f"{_path(steps)} contains itself, or is nested over {LEVELS} deep: refer to parts by key"
        if id(item) not in sound:
            within.append(item)
            branches.append(_items(item, types))
    return None


def _path(steps: list[str]) -> str:
    """Where the value is, shortened in the middle."""
    path = "".join(steps)
    return path if len(path) <= _PATH_CHARS else f"{path[: _PATH_CHARS // 2]} ... {path[-_PATH_CHARS // 2 :]}"


def _items(value: Any, types: Types) -> Iterator[tuple[str, object]]:
    """What a value consists of, and how one gets there. From copies, as another thread may be changing it."""
    kind = type(value)
    if kind is dict or kind is OrderedDict:
        for key, item in list(value.items()):
            name = _names.repr(key)
            yield f", the key {name},", key
            yield f"[{name}]", item
    elif kind is list or kind is tuple:
        for index, item in enumerate(value):
            yield f"[{index}]", item
    elif kind is set or kind is frozenset:
        for item in list(value):
            yield f", the member {_names.repr(item)},", item
    elif kind is datetime or kind is time:
        yield ".tzinfo", value.tzinfo
    elif kind in types.by_type:
        registered = types.by_type[kind]
        yield from zip(registered.labels, types.fields_of(registered, value), strict=False)


def _problem(item: Any, types: Types) -> str | None:
    """What is wrong with this one thing, and the way out; not with what it contains."""
    kind = type(item)
    if kind in types.by_type:
        try:
            types.fields_of(types.by_type[kind], item)
        except TypeError as error:
            return f" can't be stored: {error}"
    elif kind not in KNOWN:
        return f" is a {name_of(kind)}, which cannot be cached: {way_out(kind)}"
    try:
        if kind is str:
            item.encode()
        elif kind in PACKS and kind not in CONTAINERS:
            PACKS[kind][0](item)
    except UnicodeEncodeError as error:
        return f" has a lone surrogate at {error.start}: cache it as bytes, .encode(errors='surrogatepass')"
    except PACK_ERRORS as error:
        if kind is not ZoneInfo:
            return f" is {error}: cache it in another form"
        return f" is not what ZoneInfo({item.key!r}) returns, but by from_file or no_cache: make it by its key"
    return None


_REGISTER = "register it, as in cache.codec.register({})"
BY_HAND = "cache a dict or tuple of its fields, or register it with encode= and decode=, as in docs/values.md"
_BY_CLASS: tuple[tuple[type, str], ...] = (
    (Enum, _REGISTER),
    (memoryview, "cache bytes(...) of it"),
    (tzinfo, "use zoneinfo.ZoneInfo(...) or a datetime.timezone, or register it with encode= and decode="),
    (BaseException, "cache a str or a dict of what it says"),
    (Iterator, "what it yields can be had once: cache a list of it"),
    (AsyncIterable, "what it yields can be had once: cache a list of it"),
    (Awaitable, "cache what it gives"),
    (OrderedDict, "cache an OrderedDict of the same content"),
)
_BY_ATTRIBUTE = (
    ("__dataclass_fields__", _REGISTER),
    ("_asdict", _REGISTER),
    ("model_dump", _REGISTER),  # pydantic
    ("__attrs_attrs__", _REGISTER),
    ("__struct_fields__", _REGISTER),
    ("dtype", "cache its .item() or .tolist(), or register it with encode= and decode="),  # numpy
    ("tolist", "cache its .tolist()"),  # array.array
)


def name_of(cls: type) -> str:
    """A class, for messages."""
    return cls.__qualname__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__qualname__}"


def way_out(cls: type) -> str:
    """What to do with values of a class that is not carried."""
    ways = [way for one, way in _BY_CLASS if issubclass(cls, one)]
    ways += [way for name, way in _BY_ATTRIBUTE if hasattr(cls, name)]
    ways += [f"cache a plain {base.__name__} of the same content" for base in cls.__mro__ if base in KNOWN]
    return ways[0].format(cls.__qualname__) if ways else BY_HAND
