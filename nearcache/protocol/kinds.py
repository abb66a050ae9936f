"""How the values of a registered type become a list of other values, and are made of one again."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from operator import attrgetter
from typing import Any

from nearcache.errors import CodecError, ConfigError
from nearcache.protocol.types import Damaged

Pack = Callable[[Any], list[Any]]
Make = Callable[[list[Any]], Any]

FINGERPRINT = 8
"""Bytes of a fingerprint."""

LIGHT, HEAVY = 2, 6
"""An instance with a dict takes as much memory as so many lists, and a pydantic model as so many."""


class Unstorable(ConfigError):
    """A class whose values can't be stored; ``why``: None if it is of no sort that is known."""

    def __init__(self, cls: type[Any], why: str | None = None) -> None:
        super().__init__(
            f"{cls!r} is no dataclass, Enum, named tuple, or model of pydantic, attrs or msgspec: say how it becomes a "
            "value that is carried, as in register(T, encode=lambda value: value.text, decode=T)"
            if why is None
            else f"{cls!r}: {why}"
        )
        self.why = why


class Unfit(CodecError):
    """A registered class does not take what a record says: it raised, or gave something else. Quotes nothing of it."""


@dataclass(eq=False)
class Kind:
    """How one registered type becomes a list of values, and is made of one again."""

    type: type[Any]
    name: str
    pack: Pack
    """What is stored of a value: a new list."""
    make: Make
    """A value of such a list; whatever it raises for another one."""
    labels: tuple[str, ...] = ()
    """How one gets from a value to each item of the list, for messages."""
    form: Callable[[], str] = str
    """What has to be alike where it is written and where it is read."""
    frozen: bool = False
    """Whether a value of immutable fields is immutable."""
    weight: int = LIGHT
    annotations: Callable[[], Mapping[str, Any]] = dict
    """Of the fields."""
    resolved: bool = False
    """Whether names in quotes are resolved in them as far as they can be."""
    also: tuple[Any, ...] = ()
    """Classes that its values may have in them without an annotation saying so."""
    given: tuple[Any, ...] = ()
    """The arguments of an explicit registration; empty: an annotation registered it."""

    @cached_property
    def head(self) -> bytes:
        """The type in the table of a record: a fingerprint and the name."""
        name = self.name.encode()
        return hashlib.blake2b(self.form().encode(), digest_size=FINGERPRINT).digest() + bytes([len(name)]) + name

    def unpack(self, fields: list[Any]) -> Any:
        """A value of the fields that a record has."""
        try:
            made = self.make(fields)
        except Exception as error:
            raise Unfit(f"{self.name} raised {type(error).__name__} for what is stored of it") from error
        if type(made) is not self.type:
            raise Unfit(f"{self.name} was decoded to a {type(made).__name__}")
        return made


def kind_by(cls: type[Any], name: str, encode: Callable[[Any], object], decode: Callable[[Any], Any]) -> Kind:
    """A type whose values these two functions turn into values of other types, and back."""

    def make(fields: list[Any]) -> Any:
        (stored,) = fields
        return decode(stored)

    return Kind(cls, name, lambda value: [encode(value)], make, (" as encoded",))


def getter(names: Sequence[str]) -> Pack:
    """Reads these attributes."""
    if not names:
        return lambda _: []
    get = attrgetter(*names)
    return (lambda value: [*get(value)]) if len(names) > 1 else (lambda value: [get(value)])


def dotted(names: Iterable[str]) -> tuple[str, ...]:
    """The labels of attributes."""
    return tuple(f".{name}" for name in names)


def check_count(fields: Sequence[Any], count: int) -> None:
    """Refuse another number of fields, which a default may hide."""
    if len(fields) != count:
        raise Damaged(f"{len(fields)} fields in place of {count}")


def called(cls: type[Any], count: int) -> Make:
    """Make a value by a call with all fields in their order."""

    def make(fields: list[Any]) -> Any:
        check_count(fields, count)
        return cls(*fields)

    return make


def assigned(cls: type[Any], names: Sequence[str], *, hashes: bool, finish: Callable[[Any], object] | None) -> Make:
    """Make a value without its __init__, which may change or refuse what it once made; ``finish`` makes the rest."""
    count, assign = len(names), object.__setattr__
    new: Callable[..., Any] = cls.__new__

    def make(fields: list[Any]) -> Any:
        check_count(fields, count)
        made = new(cls)
        for name, value in zip(names, fields, strict=True):
            assign(made, name, value)
        if hashes:
            with suppress(AttributeError):  # slots without it
                assign(made, "_attrs_cached_hash", None)
        if finish is not None:
            finish(made)
            for name, value in zip(names, fields, strict=True):
                assign(made, name, value)
        return made

    return make


def is_generated(cls: type[Any], file: str) -> bool:
    """Whether __init__ is the one that is made of the fields; if in doubt it is not called."""
    code = getattr(cls.__init__, "__code__", None)
    return code is not None and code.co_filename.startswith(file)
