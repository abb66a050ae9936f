"""Models of pydantic, attrs and msgspec. None is imported here: where there are such classes, the user did."""

from __future__ import annotations

import dataclasses
import sys
from functools import cache
from typing import Any

from nearcache.protocol.forms import annotations_of, form_of
from nearcache.protocol.kinds import HEAVY, Kind, assigned, called, check_count, dotted, getter, is_generated, kind_by
from nearcache.protocol.types import Damaged


def class_in(module: str, name: str) -> type[Any] | None:
    """A class, if its module was imported by anybody."""
    found = getattr(sys.modules.get(module), name, None)
    return found if isinstance(found, type) else None


def model_bases() -> tuple[type[Any] | None, ...]:
    """The classes that all models derive from, which are none themselves."""
    return class_in("pydantic", "BaseModel"), class_in("msgspec", "Struct")


def attrs(cls: Any, name: str) -> Kind:
    """A class of attrs; neither converters nor validators are called for what they have given."""
    fields = cls.__attrs_attrs__
    names = [each.name for each in fields]
    finish = getattr(cls, "__attrs_post_init__", None)
    plain = all(each.init and not each.kw_only and not each.converter and not each.validator for each in fields)
    if plain and finish is None and is_generated(cls, "<attrs generated"):
        make = called(cls, len(names))
    else:
        make = assigned(cls, names, hashes=True, finish=finish)
    return Kind(
        cls,
        name,
        getter(names),
        make,
        dotted(names),
        form_of("attrs", [(each.name, each.type) for each in fields]),
        frozen=getattr(cls.__setattr__, "__name__", "") == "_frozen_setattrs",
        annotations=lambda: {each.name: each.type for each in fields},
    )


def struct(cls: Any, name: str) -> Kind:
    """A Struct of msgspec."""
    names: tuple[str, ...] = cls.__struct_fields__
    finishes = hasattr(cls, "__post_init__")
    assign = sys.modules["msgspec"].structs.force_setattr

    def make(fields: list[Any]) -> Any:
        check_count(fields, len(names))
        made = cls(**dict(zip(names, fields, strict=True)))
        if finishes:
            for each, value in zip(names, fields, strict=True):
                assign(made, each, value)
        return made

    annotated = annotations_of(cls, only=names)
    form = form_of("msgspec", [(each, annotated.get(each, "")) for each in names])
    frozen = cls.__struct_config__.frozen
    return Kind(cls, name, getter(names), make, dotted(names), form, frozen=frozen, annotations=lambda: annotated)


def model(cls: Any, name: str) -> Kind:
    """A model as its fields are: it was validated when it was made, and validators may refuse their own results."""
    assign, new = object.__setattr__, cls.__new__

    def complete() -> dict[str, Any]:
        if not cls.__pydantic_complete__:
            cls.model_rebuild(raise_errors=False)
        fields: dict[str, Any] = cls.__pydantic_fields__
        return fields

    @cache
    def names() -> tuple[str, ...]:
        return tuple(complete())

    def pack(value: Any) -> list[Any]:
        fields, given = value.__dict__, value.__pydantic_fields_set__
        which = None if len(given) == len(names()) and given.issuperset(names()) else (*sorted(given),)
        return [*[fields[each] for each in names()], which, value.__pydantic_extra__, value.__pydantic_private__]

    def form() -> str:
        return form_of("pydantic", [(each, field.annotation) for each, field in complete().items()])()

    def make(fields: list[Any]) -> Any:
        *stored, which, extra, private = fields
        check_count(stored, len(names()))
        if type(which) not in {type(None), tuple} or not {type(extra), type(private)} <= {type(None), dict}:
            raise Damaged("no model")
        made = new(cls)
        assign(made, "__dict__", dict(zip(names(), stored, strict=True)))
        assign(made, "__pydantic_fields_set__", set(names() if which is None else which))
        if not cls.__pydantic_root_model__:  # which has neither
            assign(made, "__pydantic_extra__", extra)
            assign(made, "__pydantic_private__", private)
        return made

    return Kind(
        cls,
        name,
        pack,
        make,
        (*dotted(cls.__pydantic_fields__), ".model_fields_set", ".model_extra", ".__pydantic_private__"),
        form,
        frozen=bool(cls.model_config.get("frozen")),
        weight=HEAVY,
        annotations=lambda: {each: field.annotation for each, field in complete().items()},
        resolved=True,
        also=(class_in("pydantic_core", "TzInfo"),),
    )


def url(cls: Any, name: str) -> Kind:
    """A URL of pydantic."""
    return dataclasses.replace(kind_by(cls, name, str, cls), frozen=True)


def zone(cls: Any, name: str) -> Kind:
    """The time zone of datetimes that pydantic has read from text."""
    return kind_by(cls, name, lambda zone: zone.utcoffset(None), lambda offset: cls(offset.total_seconds()))
