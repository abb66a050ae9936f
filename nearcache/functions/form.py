"""How keys are written, so that no two calls of any functions have one, whatever their arguments are.

There are three forms, and the first sign that is no letter, digit, ``-`` or ``_``, and whether a brace occurs, tell
them apart:

- ``app.user(id=7)``: of functions without a template.
- ``user:7:en``: of a template that is a word and then fields, each after the same separator. Inside a field the
  separator and braces are escaped as in URLs. One writes such keys by hand.
- ``shop:user:{7}``: of any other template; its braces stay and part what is the template's from what is an argument's.
  ``shop:config{}`` is one without fields.

What is too long for a key, or no UTF-8, ends in a BLAKE2b digest (RFC 7693) of the whole instead.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence

from nearcache.errors import ConfigError

_DIGEST_BYTES = 32
_LEAST_BYTES = 32  # then a digest has 15 bytes, 120 bits
_MARK = "%h"
"""Before a digest. No field holds it: an escape has two hexadecimal digits."""

_WORD = re.compile("([^\x00-,./:-@\\[-^`{-\x7f]*)(.*)", re.DOTALL)
"""A word and the rest; of a word is all but ASCII's other signs, as what is a letter depends on Python's release."""
_SEPARATORS = frozenset(":/|#")
_NAMELIKE = re.compile(r"\A([^(]*\.[^(]*)\(")
"""How keys without a template begin."""
_SURROGATES = re.compile("[\ud800-\udfff]")


def check_room(max_bytes: int) -> None:
    """Raise ConfigError if a key has no room for a digest that nobody can find again for another text."""
    if max_bytes < _LEAST_BYTES:
        raise ConfigError(f"max_key_bytes={max_bytes}: keys of functions need at least {_LEAST_BYTES}")


def writer(literals: Sequence[str], version: str, max_bytes: int) -> Callable[[Sequence[str]], str]:
    """A function from the texts of a template's fields to the key.

    Args:
        literals: the template's own text before, between and after the fields.
        version: stands in front, if it is not empty.
        max_bytes: how long a key may be in UTF-8.
    """
    stamp = f"{version}@" if version else ""
    first, *others = literals
    word, separator = _WORD.fullmatch(first).groups()  # type: ignore[union-attr]  # it takes any text
    if others:
        is_plain = separator in _SEPARATORS and set(others) <= {separator, ""} and not others[-1]
    else:
        is_plain = not separator
    if word and is_plain:
        return _joined([stamp + first, *others], re.compile(f"[%{{}}{separator}]"), max_bytes)
    # In pairs, an @ is no version's; nor does a pair of brackets begin the arguments of a function without template.
    first = _NAMELIKE.sub(r"\1((", first.replace("@", "@@"))
    parts = [literal.replace("{", "{{").replace("}", "}}") for literal in (first, *others)]
    opened = [part + "{" for part in parts[:-1]] + parts[-1:]
    closed = [stamp + opened[0], *("}" + part for part in opened[1:])]
    return _joined(closed if others else [closed[0] + "{}"], re.compile("[%{}]"), max_bytes)


def _joined(parts: Sequence[str], special: re.Pattern[str], max_bytes: int) -> Callable[[Sequence[str]], str]:
    def write(texts: Sequence[str]) -> str:
        pieces = [parts[0]]
        for text, part in zip(texts, parts[1:], strict=True):
            pieces += special.sub(_escape, text) or "%", part
        return fit("".join(pieces), parts[0], max_bytes)

    return write


def _escape(match: re.Match[str]) -> str:
    return f"%{ord(match.group()):02X}"


def fit(whole: str, name: str, max_bytes: int) -> str:
    """The key, or as much of the name as fits, a mark and the digest of all, so that names cut short still differ."""
    if whole.isascii() and 0 < len(whole) <= max_bytes:  # as nearly all are
        return whole
    # A str from a file name may hold surrogates, which are no UTF-8.
    encoded = whole.encode("utf-8", "surrogatepass")
    if 0 < len(encoded) <= max_bytes and not _SURROGATES.search(whole):
        return whole
    size = min(_DIGEST_BYTES, (max_bytes - len(_MARK)) // 2)
    digest = _MARK + hashlib.blake2b(encoded, digest_size=size).hexdigest()
    return name.encode("utf-8", "ignore")[: max_bytes - len(digest)].decode("utf-8", "ignore") + digest


def group_of(name: str, max_bytes: int) -> str:
    """The tag of all values of a function, by its template or its name, in every version."""
    return fit(f"function:{name}", "function:", max_bytes)


def tag_of(literals: Sequence[str], texts: Sequence[str], max_bytes: int) -> str:
    """A tag: the texts between the literals, as they are."""
    whole = "".join(text + literal for text, literal in zip(("", *texts), literals, strict=True))
    return fit(whole, literals[0], max_bytes)
