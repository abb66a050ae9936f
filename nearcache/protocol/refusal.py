"""Why a value cannot be encoded: the first thing in it that cannot, where it sits, and the way out."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, time, tzinfo
from enum import Enum
from os import PathLike
from reprlib import Repr
from typing import Any
from zoneinfo import ZoneInfo

from nearcache.protocol.bounds import LEVELS
from nearcache.protocol.types import CONTAINERS, KNOWN, PACK_ERRORS, PACKS

_PATH_CHARS = 200
_CODEC = "Settings(codec=...) a codec that knows it, as in docs/values.md"
_names = Repr()
_names.maxstring = _names.maxother = 60


def problem_in(value: object) -> str | None:
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
        problem = _problem(item)
        if problem:
            return _path(steps) + problem
        if len(branches) > LEVELS:
            return f"{_path(steps)} contains itself, or is nested over {LEVELS} deep: refer to parts by key"
        if id(item) not in sound:
            within.append(item)
            branches.append(_items(item))
    return None


def _path(steps: list[str]) -> str:
    """Where the value is, shortened in the middle."""
    path = "".join(steps)
    return path if len(path) <= _PATH_CHARS else f"{path[: _PATH_CHARS // 2]} ... {path[-_PATH_CHARS // 2 :]}"


def _items(value: Any) -> Iterator[tuple[str, object]]:
    """What a value consists of, and how one gets there. From copies, as another thread may be changing it."""
    kind = type(value)
    if kind is dict:
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


def _problem(item: Any) -> str | None:
    """What is wrong with this one thing, and the way out; not with what it contains."""
    kind = type(item)
    if kind not in KNOWN:
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        return f" is a {name}, which cannot be cached: {_way_out(item)}"
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


_BY_CLASS: tuple[tuple[type, str], ...] = (
    (Enum, "cache its .value"),
    (memoryview, "cache bytes(...) of it"),
    (tzinfo, "use zoneinfo.ZoneInfo(...) or a datetime.timezone"),  # pytz's, dateutil's
    (PathLike, "cache str(...) of it"),
)
_BY_ATTRIBUTE = (
    ("__dataclass_fields__", "cache dataclasses.asdict(...) of it"),
    ("_asdict", "cache its ._asdict(), or tuple(...) of it"),
    ("model_dump", f"cache its .model_dump(), or give {_CODEC}"),  # pydantic
    ("__attrs_attrs__", f"cache attrs.asdict(...) of it, or give {_CODEC}"),
    ("__struct_fields__", f"cache msgspec.to_builtins(...) of it, or give {_CODEC}"),
    ("tolist", "cache its .tolist()"),  # numpy's scalars and arrays, array.array
)


def _way_out(item: object) -> str:
    kind = type(item)
    ways = [way for one, way in _BY_CLASS if isinstance(item, one)]
    ways += [way for name, way in _BY_ATTRIBUTE if hasattr(kind, name)]
    ways += [f"cache a plain {base.__name__} of the same content" for base in kind.__mro__ if base in KNOWN]
    return ways[0] if ways else f"cache a dict or tuple of its fields, or give {_CODEC}"
