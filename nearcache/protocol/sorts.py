"""The sorts of classes that can be stored by what they say of themselves, and those of the standard library."""

from __future__ import annotations

import dataclasses
from enum import EnumMeta, Flag
from typing import Any

from nearcache.protocol import models
from nearcache.protocol.forms import annotations_of, form_of
from nearcache.protocol.kinds import Kind, Unstorable, assigned, called, check_count, dotted, getter, is_generated
from nearcache.protocol.types import Damaged

_FLAG_BITS = 1024
_FLAGS_MADE = 16_384
"""Combinations of one Flag class that decoding may make: Python keeps each for good."""
_HEAP_TYPE = 1 << 9


def kind_of(cls: type[Any], name: str) -> Kind | None:
    """How values of a class are stored; None if it is not of the sorts that are known.

    Raises:
        Unstorable: it is, but its fields are not all that its values have.
    """
    if isinstance(cls, EnumMeta):
        return _flag(cls, name) if issubclass(cls, Flag) else _enum(cls, name)
    if hasattr(cls, "__mapper__"):
        raise Unstorable(
            cls, f"{cls.__qualname__}'s objects belong to a session of SQLAlchemy: cache a dict of their fields"
        )
    for module, base_name, sort in (
        ("pydantic", "BaseModel", models.model),
        ("msgspec", "Struct", models.struct),
        ("pydantic.networks", "_BaseUrl", models.url),
        ("pydantic.networks", "_BaseMultiHostUrl", models.url),
        ("pydantic_core", "TzInfo", models.zone),
    ):
        base = models.class_in(module, base_name)
        if base is not None and issubclass(cls, base):
            return sort(cls, name)
    if issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple):
        return _named_tuple(cls, name)
    for make_kind, attribute in ((models.attrs, "__attrs_attrs__"), (_dataclass, "__dataclass_fields__")):
        if hasattr(cls, attribute):
            _check_layout(cls)
            return make_kind(cls, name)
    return None


def _check_layout(cls: type[Any]) -> None:
    """Refuse a class with content besides its attributes, such as the items of a dict or the args of an exception."""
    for base in cls.__mro__:
        if not base.__flags__ & _HEAP_TYPE:
            if base is not object:
                raise Unstorable(
                    cls, f"{cls.__qualname__} has a {base.__name__}'s content besides fields: give encode= and decode="
                )
            return


def _enum(cls: Any, name: str) -> Kind:
    """A member by its name: more members, or another value for one, change nothing for the others."""
    members = cls._member_map_

    def pack(value: Any) -> list[Any]:
        if members.get(value._name_) is not value:
            raise ValueError("a member without a name")
        return [value._name_]

    def make(fields: list[Any]) -> Any:
        (member,) = fields
        return members[member]

    return Kind(cls, name, pack, make, (" by name",), lambda: "enum", frozen=True)


def _flag(cls: Any, name: str) -> Kind:
    """Bits by their value: so every bit has to mean the same."""
    room = [_FLAGS_MADE]

    def pack(value: Any) -> list[Any]:
        if value._value_.bit_length() > _FLAG_BITS:
            raise ValueError(f"over {_FLAG_BITS} bits")
        return [value._value_]

    def make(fields: list[Any]) -> Any:
        (bits,) = fields
        if type(bits) is not int or bits.bit_length() > _FLAG_BITS:
            raise Damaged("no flags")
        if bits not in cls._value2member_map_:
            room[0] -= 1
            if room[0] < 0:
                raise Damaged(f"over {_FLAGS_MADE} combinations")
        return cls(bits)

    def form() -> str:
        return "flag" + "".join(f"\n{key}:{member._value_}" for key, member in cls._member_map_.items())

    return Kind(cls, name, pack, make, (" by value",), form, frozen=True)


def _named_tuple(cls: Any, name: str) -> Kind:
    names: tuple[str, ...] = cls._fields
    annotated = annotations_of(cls)

    def make(fields: list[Any]) -> Any:
        check_count(fields, len(names))
        return tuple.__new__(cls, fields)

    form = form_of("namedtuple", [(each, annotated.get(each, "")) for each in names])
    return Kind(cls, name, list, make, dotted(names), form, frozen=True, annotations=lambda: annotated)


def _dataclass(cls: Any, name: str) -> Kind:
    every = cls.__dataclass_fields__.values()
    fields = dataclasses.fields(cls)
    names = [each.name for each in fields]
    finish = getattr(cls, "__post_init__", None)
    init_vars = [each for each in every if each._field_type is dataclasses._FIELD_INITVAR]  # type: ignore[attr-defined]  # noqa: SLF001  # it has no other name
    if finish is not None:
        missing = [each.name for each in init_vars if each.default is dataclasses.MISSING]
        if missing:
            shown = ", ".join(missing)
            raise Unstorable(
                cls,
                f"{cls.__qualname__}.__post_init__ needs {shown} (InitVar), which no value keeps: give it a default, "
                "or register the class with encode= and decode=",
            )
        defaults = [each.default for each in init_vars]

        def finished(made: Any) -> None:
            made.__post_init__(*defaults)

        make = assigned(cls, names, hashes=False, finish=finished)
    elif is_generated(cls, "<string>") and not init_vars and all(each.init and not each.kw_only for each in fields):
        make = called(cls, len(names))
    else:
        make = assigned(cls, names, hashes=False, finish=None)
    types = [(each.name, each.type) for each in fields]
    frozen = cls.__dataclass_params__.frozen
    annotations = annotations_of(cls, only=names)
    return Kind(
        cls,
        name,
        getter(names),
        make,
        dotted(names),
        form_of("dataclass", types),
        frozen=frozen,
        annotations=lambda: annotations,
    )
