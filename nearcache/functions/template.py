"""Templates of keys and tags: arguments fill the places."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from string import Formatter
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from nearcache.errors import UncacheableArgument
from nearcache.functions.text import canonical, explained, quoted

_FORMATTER = Formatter()

_READS_AS_ANOTHER = re.compile(r"None|True|False|[\w.<>-]*(\(.*\)|\[.*\]|\{.*\}|'.*'|\".*\")", re.DOTALL)
"""What the canonical texts look like that are not numbers."""

_ADDRESS = re.compile(r" at 0x[0-9A-Fa-f]+>")


def _plain_text(value: object) -> str:
    """A value as a template shows it: as one would write it in a key by hand.

    A str, a number, a date and a UUID show as they are: ``7`` and ``"7"`` are one key, as whoever writes
    ``delete("user:7")`` expects. Any other type shows its canonical text, and a str that reads like one is quoted:
    somebody who is called "None" must not meet what is cached for None.
    """
    kind = type(value)
    if kind is str:
        text = str(value)
        return quoted(text) if _READS_AS_ANOTHER.fullmatch(text) else text
    return str(value) if kind is UUID or kind is date else canonical(value)


def _has_set(value: object) -> bool:
    if isinstance(value, dict):
        return any(map(_has_set, (*value.keys(), *value.values())))
    return isinstance(value, set | frozenset) or (isinstance(value, list | tuple) and any(map(_has_set, value)))


class _Field(NamedTuple):
    """One ``{...}`` of a template."""

    path: str
    source: str
    plain: bool  # without conversion and format specification; with one str.format makes the text
    end: str  # the character that ends it

    def show(self, arguments: Mapping[str, Any]) -> str:
        """Its text. Where another field follows, what would end it too early is escaped as in a URL.

        Else ``"{a}:{b}"`` would give ("x:y", "z") and ("x", "y:z") one key. Without that character a field ends where
        its separator begins; the last one needs no end.
        """
        if self.plain:
            text = _plain_text(_FORMATTER.get_field(self.path, (), arguments)[0])
        else:
            text = self.source.format_map(arguments)
            if _has_set(_FORMATTER.get_field(self.path, (), arguments)[0]):
                raise TypeError("the order of a set's members differs from process to process")
            if _ADDRESS.search(text):  # the next object at this address would get this one's value
                raise TypeError(f"{text} shows where the object lies in memory, not what it is")
        if not self.end:
            return text
        escaped = "".join(f"%{byte:02X}" for byte in self.end.encode())
        return text.replace("%", "%25").replace(self.end, escaped)


class Template(NamedTuple):
    """A key or a tag with places for arguments, in the language of ``str.format``; see :func:`parse_template`."""

    text: str
    label: str
    literals: Sequence[str]  # before, between and after the fields
    fields: Sequence[_Field]
    names: frozenset[str]  # of the parameters it shows

    def render(self, arguments: Mapping[str, Any]) -> str:
        """Fill it.

        Raises:
            UncacheableArgument: an argument has no text, or not the attribute, item or format that is asked for.
        """
        parts = [self.literals[0]]
        for field, literal in zip(self.fields, self.literals[1:], strict=True):
            parts += self._show(field, arguments), literal
        return "".join(parts)

    def _show(self, field: _Field, arguments: Mapping[str, Any]) -> str:
        what = f"{field.source} of the template {self.text!r}"
        way_out = f"show a part of it, as in {{{field.path}.id}}, or its str() by {{{field.path}!s}}"
        try:
            return explained(self.label, what, way_out, lambda: field.show(arguments))
        except UncacheableArgument:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise UncacheableArgument(f"{self.label}: {what} cannot be filled: {error}") from error


def parse_template(text: str, label: str, parameters: Iterable[str]) -> Template:
    """Read a template, and check it against the parameters of the function that ``label`` names.

    Args:
        text: as for ``str.format``, with named fields: ``"user:{id}"``, ``"of:{order.id}"``, ``"report:{day:%Y-%m}"``.
        label: the function's name, for messages.
        parameters: the names that may be used.

    Raises:
        TypeError: it is malformed, uses something else, or two fields stand so that their texts run together.

    >>> parse_template("{tenant}:{page}", "app.render", ["tenant", "page"]).render({"tenant": "a:b", "page": 7})
    'a%3Ab:7'
    """
    known = list(parameters)
    literals, fields = _split(text, label)
    names = {name for path, spec, _ in fields for name in _names_in(path, spec)}
    for name in sorted(names - set(known)):
        shown = f"{{{name}}}"
        what = "positional" if not name or name.isdigit() else "not a parameter"
        raise TypeError(f"{label}: {shown} in the template {text!r} is {what}; parameters are: {', '.join(known)}")
    made = [
        _field(text, label, field, separator=literals[i + 1] if i + 1 < len(fields) else None)
        for i, field in enumerate(fields)
    ]
    return Template(text, label, literals, made, frozenset(names))


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


def _names_in(path: str, spec: str) -> list[str]:
    """The parameters of a field, those of a nested format specification included."""
    inner = [nested for _, nested, _, _ in _FORMATTER.parse(spec) if nested is not None]
    return [re.split(r"[.\[]", each, maxsplit=1)[0] for each in (path, *inner)]


def _field(text: str, label: str, parts: _Parts, separator: str | None) -> _Field:
    path, spec, conversion = parts
    source = "{" + path + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
    plain = not spec and not conversion
    if separator is None:
        return _Field(path, source, plain, "")
    # Letters, digits and % occur in the escape itself.
    end = re.search(r"[^0-9A-Za-z%]", separator)
    if end is None and not plain:  # a format of a fixed width, perhaps
        return _Field(path, source, plain, "")
    if end is None:
        raise TypeError(
            f"{label}: in the template {text!r} the text of {source} would run into the next field's; "
            f"put punctuation between them, as in {source}:"
        )
    return _Field(path, source, plain, end.group())
