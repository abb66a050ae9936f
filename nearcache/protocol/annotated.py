"""What an annotation promises: the types to register for it, and whether a value of it could be cached at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from enum import EnumMeta
from functools import partial
from inspect import isabstract, isroutine
from types import NoneType, UnionType
from typing import (
    Any,
    ClassVar,
    Final,
    Literal,
    NotRequired,
    Required,
    Union,
    get_args,
    get_origin,
    get_type_hints,
    is_typeddict,
)

from nearcache.protocol.kinds import Kind, Unstorable
from nearcache.protocol.models import model_bases
from nearcache.protocol.refusal import BY_HAND, name_of, way_out
from nearcache.protocol.registry import Types

_QUALIFIERS = frozenset({ClassVar, Final, NotRequired, Required})


def register_annotated(types: Types, annotation: object, names: Mapping[str, Any]) -> str | None:
    """Register the classes that an annotation names, and those of their fields.

    Args:
        types: where.
        annotation: a type; what is unknown in it, such as Any, a TypeVar or a name that is not there yet, is left out.
        names: what its text may name besides what is global where it stands.

    Returns:
        Why no value of this annotation can be cached; None: some can, or it can't be told.

    Raises:
        ConfigError: two classes would have one name.
    """
    return _Walk(types, names).problem(annotation)


def register_types(types: Types, cls: Any, **options: Any) -> None:
    """`Types.add`, and the classes of the fields."""
    _Walk(types, {}).problem_in_fields(types.add(cls, **options))


class _Walk:
    def __init__(self, types: Types, names: Mapping[str, Any]) -> None:
        self._types = types
        self._names = names
        self._fields = 0
        """How deep the walk is inside fields of classes."""

    def problem(self, annotation: Any) -> str | None:
        """Register, and say what is wrong with it."""
        for attribute in ("__supertype__", "__value__"):  # NewType, and the `type` statement
            if hasattr(annotation, attribute) and not isinstance(annotation, type):
                return self.problem(getattr(annotation, attribute))
        if hasattr(annotation, "__metadata__"):  # Annotated
            return self.problem(annotation.__origin__)
        origin, arguments = get_origin(annotation), get_args(annotation)
        if origin is None:
            if isroutine(annotation):  # threading.Lock, up to Python 3.12
                return f"a {annotation.__qualname__}: {BY_HAND}"
            return self._problem_of_class(annotation) if isinstance(annotation, type) else None
        if origin is Literal:
            return self._first(*map(type, arguments))
        if origin is Union or origin is UnionType:
            # A field that may be None often is; of a function that may return None one expects more.
            others = [each for each in arguments if each is not NoneType]
            found = [self.problem(each) for each in (arguments if self._fields else others)]
            return found[0] if None not in found else None
        if origin in _QUALIFIERS:
            return self._first(*arguments)
        return self._problem_of_class(origin) or self._first(*arguments)

    def _first(self, *annotations: Any) -> str | None:
        """The first problem of several, all of which are looked at."""
        return next(filter(None, list(map(self.problem, annotations))), None)

    def _problem_of_class(self, cls: Any) -> str | None:
        if cls is Any or cls in self._types.known or cls in model_bases():
            return None
        if is_typeddict(cls):
            return self._first(*self._hints(cls, cls.__annotations__, partial(self._problem_of_class, cls)).values())
        if isinstance(cls, EnumMeta) and not cls.__members__:
            return None
        try:
            kind = self._types.add(cls, asked=False)
        except Unstorable as error:
            if error.why is None:
                return None if self._has_subclasses(cls) else f"a {name_of(cls)}: {way_out(cls)}"
            return error.why
        return self.problem_in_fields(kind)

    def _has_subclasses(self, cls: type[Any]) -> bool:
        """Whether it is a base or a protocol of what can be cached, or an application's abstract class."""
        try:
            if any(issubclass(known, cls) for known in tuple(self._types.known)):
                return True
        except TypeError:  # a protocol that is not for the run time
            return True
        return isabstract(cls) and cls.__module__.partition(".")[0] not in sys.stdlib_module_names

    def problem_in_fields(self, kind: Kind) -> str | None:
        """The first problem with the types of the fields of a registered class."""
        written = kind.annotations()
        if kind.resolved or not written:
            hints = written
        else:
            hints = self._hints(kind.type, written, partial(self.problem_in_fields, kind))
        self._fields += 1
        problems = [(name, self.problem(annotation)) for name, annotation in hints.items()]
        self._fields -= 1
        return next((f"{kind.type.__qualname__}.{name} is {problem}" for name, problem in problems if problem), None)

    def _hints(self, cls: type[Any], written: Mapping[str, Any], again: Callable[[], object]) -> Mapping[str, Any]:
        """The annotations of fields, evaluated; those in quotes are left for later if a name is not there yet."""
        try:
            hints = get_type_hints(cls, localns={**self._names, cls.__name__: cls}, include_extras=True)
        except Exception:  # noqa: BLE001  # they may be anything
            self._types.waiting.append(lambda: self._resolves(cls, again))
            return {name: each for name, each in written.items() if not isinstance(each, str)}
        return {name: hints[name] for name in written if name in hints}

    def _resolves(self, cls: type[Any], again: Callable[[], object]) -> bool:
        try:
            get_type_hints(cls, localns={**self._names, cls.__name__: cls})
        except Exception:  # noqa: BLE001  # still not
            return False
        again()
        return True
