"""The types that a codec was told of, by class and by name; and the table that a record of such values begins with."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from nearcache.errors import CodecError, ConfigError
from nearcache.protocol.forms import module_of
from nearcache.protocol.kinds import FINGERPRINT, Kind, Unstorable, kind_by
from nearcache.protocol.sorts import kind_of
from nearcache.protocol.types import IMMUTABLE, KNOWN, MARKS, NAME_CHARS, Damaged, Extension

FIRST_MARK = 32
"""The mark of the first type in a record's table; the others follow."""
TYPES_MAX = 96
"""In one value: a mark is at most 127."""
_TABLES_KEPT = 1024
Mark: TypeAlias = Extension | Kind
_NAME = re.compile(r"[\w.<>\[\], |]+", re.ASCII)
_FROZEN = frozenset({tuple, frozenset})
_WITHIN = IMMUTABLE | _FROZEN


class UnknownType(CodecError):
    """A record of a type that is not registered here, or whose fields are others.

    Args:
        name: of the type, or a text without one.
        reason: what is the matter, which may be logged.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name = name


class Types:
    """What `MsgpackCodec.register` has taken. Several threads may register and look up at once."""

    def __init__(self) -> None:
        self.by_type: dict[type[Any], Kind] = {}
        self.known: set[type[Any]] = set(KNOWN)
        """All types that are carried."""
        self.waiting: list[Callable[[], bool]] = []
        """Annotations with names that were not there yet: each is asked again when a type is missing, until True."""
        self._by_name: dict[str, Kind] = {}
        self._tables: dict[bytes, Mapping[int, Mark]] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, ([(kind.type, kind.name, kind.given) for kind in self.by_type.values()],)

    def add(
        self,
        cls: Any,
        name: str | None = None,
        encode: Callable[[Any], object] | None = None,
        decode: Callable[[Any], Any] | None = None,
        *,
        asked: bool = True,
    ) -> Kind:
        """Register a class; ``asked``: by the program itself, and not by an annotation.

        Raises:
            ConfigError: it can't be stored, another class has the name, or it was registered otherwise.
        """
        cls = _class_of(cls)
        _check(cls, name, encode, decode)
        given = (name, encode, decode) if asked else ()
        earlier = self.by_type.get(cls)
        if earlier is not None and (not asked or earlier.given == given):
            return earlier
        if earlier is not None and earlier.given:
            raise ConfigError(
                f"{cls!r} is registered as {earlier.name!r} already, with other arguments: register it once"
            )
        if name is None:
            name = f"{module_of(cls)}.{cls.__qualname__}".encode()[-NAME_CHARS:].decode(errors="ignore")
        if encode is not None and decode is not None:
            kind: Kind | None = kind_by(cls, name, encode, decode)
        else:
            kind = kind_of(cls, name)
        if kind is None:
            raise Unstorable(cls)
        kind.given = given
        self._claim(kind, earlier)
        for one in kind.also:
            if one is not None:
                self.add(one, asked=False)
        return kind

    def _claim(self, kind: Kind, earlier: Kind | None) -> None:
        """Enter a kind, or raise ConfigError if the name is another class's."""
        if earlier is not None:
            self._by_name.pop(earlier.name, None)
        holder = self._by_name.setdefault(kind.name, kind)
        if holder is not kind and holder.type is not kind.type:
            # A module that was reloaded, or a cell of a notebook that was run again, has made the class anew.
            if not _is_new_definition(kind.type, holder.type):
                raise ConfigError(
                    f"{kind.type!r} and {holder.type!r} would both be {kind.name!r} in records, and each be taken for "
                    "the other: give one of them another name, as in register(T, name='shop.T')"
                )
            self.by_type.pop(holder.type, None)
            self.known.discard(holder.type)
        self._by_name[kind.name] = kind
        self.by_type[kind.type] = kind
        self.known.add(kind.type)
        self._tables = {}

    def settle(self) -> bool:
        """Look again at annotations whose names were not there; whether this may have registered a type."""
        if not self.waiting:
            return False
        asked, self.waiting = self.waiting, []
        left = [resolve for resolve in asked if not resolve()]
        self.waiting += left
        return len(left) < len(asked)

    def fields_of(self, kind: Kind, value: object) -> list[Any]:
        """What is stored of a value.

        Raises:
            TypeError: its fields are not all there, or its ``encode`` raises.
        """
        try:
            return kind.pack(value)
        except Exception as error:
            raise TypeError(f"{kind.name} gave no fields: {type(error).__name__}: {error}"[:300]) from error

    def table_of(self, header: bytes) -> Mapping[int, Mark]:
        """What marks mean in a record with this table.

        Raises:
            UnknownType: one is not registered, or has other fields here.
            Damaged, IndexError: it is no table.
        """
        found = self._tables.get(header)
        if found is None:
            found = {**MARKS, **dict(enumerate(map(self._entry, _parted(header)), FIRST_MARK))}
            if len(self._tables) < _TABLES_KEPT:
                self._tables[header] = found
        return found

    def _entry(self, head: bytes) -> Kind:
        name = head[FINGERPRINT + 1 :].decode()
        kind = self._by_name.get(name)
        if kind is None and self.settle():
            kind = self._by_name.get(name)
        if kind is None:
            shown = name if _NAME.fullmatch(name) else "a name that is none"
            raise UnknownType(shown, f"of type {shown}, which is not registered here")
        if kind.head != head:
            raise UnknownType(name, f"of type {name}, which has other fields here")
        return kind

    def is_immutable(self, value: object) -> bool:
        """Whether nothing in a value can be changed.

        It is made of immutable types of the standard library, and of registered ones that are declared frozen.
        """
        if type(value) in IMMUTABLE:
            return True
        level: list[Any] = [value]
        while level:
            types = set(map(type, level))
            fields: list[Any] = []
            for kind in map(self.by_type.get, types - _WITHIN):
                if kind is None or not kind.frozen:
                    return False
                for item in {id(item): item for item in level if type(item) is kind.type}.values():
                    fields += self.fields_of(kind, item)
            inner = {id(item): item for item in level if type(item) in _FROZEN}  # each once, wherever it is shared
            level = fields + (gc.get_referents(*inner.values()) if inner else [])
        return True


def _restored(registered: Sequence[tuple[type[Any], str, tuple[Any, ...]]]) -> Types:
    """Unpickled, as in the child of a spawn."""
    types = Types()
    for cls, _, given in registered:
        types.add(cls, *given, asked=bool(given))
    return types


def _class_of(cls: Any) -> Any:
    """The class whose instances a generic alias makes; pydantic's are classes themselves."""
    origin = getattr(cls, "__origin__", None)
    return origin if not isinstance(cls, type) and isinstance(origin, type) else cls


def _check(cls: Any, name: str | None, encode: object, decode: object) -> None:
    if not isinstance(cls, type):
        raise ConfigError(f"register({cls!r}): must be a class, as in register(User)")
    if cls in KNOWN:
        raise ConfigError(f"register({cls.__name__}): it is carried as it is")
    if name is not None and not (isinstance(name, str) and 0 < len(name.encode()) <= NAME_CHARS):
        raise ConfigError(f"name={name!r}: must be a string of 1 to {NAME_CHARS} bytes, as in name='shop.User'")
    if (encode is None) != (decode is None):
        raise ConfigError(f"register({cls.__name__}): encode= and decode= belong together")
    for option, function in (("encode", encode), ("decode", decode)):
        if function is not None and not callable(function):
            raise ConfigError(f"{option}={function!r}: must be a function of one value")


def _is_new_definition(cls: type[Any], earlier: type[Any]) -> bool:
    """Whether the place where both say that they are has this one now."""
    found: Any = sys.modules.get(cls.__module__)
    for part in cls.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is cls and (earlier.__module__, earlier.__qualname__) == (cls.__module__, cls.__qualname__)


def _parted(header: bytes) -> list[bytes]:
    """The entries of a table."""
    heads: list[bytes] = []
    at = 0
    while at < len(header):
        end = at + FINGERPRINT + 1 + header[at + FINGERPRINT]
        if end > len(header) or len(heads) == TYPES_MAX:
            raise Damaged("no table of types")
        heads.append(header[at:end])
        at = end
    return heads


NO_TYPES = Types()
"""Of a codec of the user's own, which says nothing about its types."""
