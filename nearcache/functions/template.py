"""Templates of keys and tags, in the language of ``str.format``: arguments fill the fields."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from numbers import Number
from string import Formatter
from typing import Any, NamedTuple, TypeAlias

from nearcache.errors import UncacheableArgument
from nearcache.functions.text import canonical, explained, plain

_FORMATTER = Formatter()
_DIGITS_MAX = 1000


class Field(NamedTuple):
    """One ``{...}`` of a template."""

    name: str  # of the parameter that it shows
    path: str  # to the part that it shows
    source: str
    spec: str
    conversion: str | None

    def value(self, arguments: Mapping[str, Any]) -> Any:
        """What it shows of a call's arguments."""
        return arguments[self.name] if self.path == self.name else _FORMATTER.get_field(self.path, (), arguments)[0]

    def text(self, value: Any) -> str:
        """The text of a value in a key.

        Two values have one text only if a format specification gives them one, which is then what it is for. It is
        for numbers and times. What it does not take, a str for one, is written in full, so that it fails for no input
        and pads no two strings to the same. ``!r`` writes as :func:`canonical`, ``!s`` as without it: str() and repr()
        of types that have no text here may be the same for different values.
        """
        if self.spec:
            if type(value) is not bool and isinstance(value, Number | date | time) and not _is_long(value):
                try:
                    return format(value, self.spec) or "%"  # a lone one: it is no escape
                except (TypeError, ValueError, OverflowError):
                    pass
            return canonical(value)
        return canonical(value) if self.conversion in {"r", "a"} else plain(value)

    def by_hand(self, value: Any) -> str:
        """The text of a value in a tag: an f-string's, but for types without a text of their own."""
        return value if type(value) is str and self.conversion not in {"r", "a"} else self.text(value)


def _is_long(value: object) -> bool:
    """Whether a format may write it with so many digits that they fill the memory: a user may send 1e999999999."""
    return isinstance(value, Decimal) and value.is_finite() and abs(value.adjusted()) > _DIGITS_MAX


class Template(NamedTuple):
    """A key or a tag with places for arguments; see :func:`parse_template`."""

    text: str
    label: str
    literals: Sequence[str]  # before, between and after the fields
    fields: Sequence[Field]

    @property
    def names(self) -> frozenset[str]:
        """The parameters that it shows."""
        return frozenset(field.name for field in self.fields)

    def texts(self, arguments: Mapping[str, Any], *, by_hand: bool = False) -> list[str]:
        """What the fields show.

        Raises:
            UncacheableArgument: an argument has no text, or not the attribute or item that is asked for.
        """
        try:
            return [(field.by_hand if by_hand else field.text)(field.value(arguments)) for field in self.fields]
        except Exception:  # noqa: BLE001, S110  # an argument may raise anything; it is told below, by the field's name
            pass
        return [self.show(field, arguments, by_hand=by_hand) for field in self.fields]

    def show(self, field: Field, arguments: Mapping[str, Any], *, by_hand: bool = False) -> str:
        """What one field shows."""
        what = f"{field.source} of the template {self.text!r}"
        try:
            value = field.value(arguments)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise UncacheableArgument(f"{self.label}: {what} cannot be filled: {error}") from error
        way_out = f"show what tells two of them apart, as in {{{field.path}.id}}"
        return explained(self.label, what, way_out, lambda: (field.by_hand if by_hand else field.text)(value))


def parse_template(text: str, label: str, parameters: Iterable[str]) -> Template:
    """Read a template, and check it against the parameters of the function that ``label`` names.

    Args:
        text: as for ``str.format``, with named fields: ``"user:{id}"``, ``"of:{order.id}"``, ``"report:{day:%Y-%m}"``.
        label: the function's name, for messages.
        parameters: the names that may be used.

    Raises:
        TypeError: it is malformed, or uses something else.
    """
    known = list(parameters)
    literals, parts = _split(text, label)
    fields = [_field(text, label, each) for each in parts]
    for field in fields:
        if field.name not in known:
            shown = f"{{{field.name}}}"
            what = "positional" if not field.name or field.name.isdigit() else "not a parameter"
            raise TypeError(f"{label}: {shown} in the template {text!r} is {what}; parameters are: {', '.join(known)}")
    for field, literal in zip(fields, literals[1:-1], strict=False):
        if not literal:
            raise TypeError(
                f"{label}: in the template {text!r} the text of {field.source} would run into the next field's; "
                f"put punctuation between them, as in {field.source}:"
            )
    return Template(text, label, literals, fields)


_Parts: TypeAlias = tuple[str, str, str | None]  # path, format specification, conversion


def _split(text: str, label: str) -> tuple[list[str], list[_Parts]]:
    """The literal texts and, between them, the fields."""
    literals, fields = [""], list[_Parts]()
    try:
        for literal, path, spec, conversion in _FORMATTER.parse(text):
            literals[-1] += literal
            if path is not None:
                _FORMATTER.convert_field("", conversion)  # refuses one that does not exist
                fields.append((path, spec or "", conversion))
                literals.append("")
    except (TypeError, ValueError) as error:
        raise TypeError(f"{label}: the template {text!r} cannot be read: {error} (a brace itself is doubled)") from None
    return literals, fields


def _field(text: str, label: str, parts: _Parts) -> Field:
    path, spec, conversion = parts
    source = "{" + path + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
    if "{" in spec:
        raise TypeError(f"{label}: {source} in the template {text!r}: a format specification may hold no other field")
    return Field(re.split(r"[.\[]", path, maxsplit=1)[0], path, source, spec, conversion)
