"""Which functions a cache has decorated: two that would share keys are refused, but for a new definition of one."""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable
from types import CodeType
from typing import Any, NamedTuple

from nearcache.errors import ConfigError, warn
from nearcache.functions.naming import Function, captured_by, label_of
from nearcache.functions.text import NoText, canonical


class _Known(NamedTuple):
    """What is kept of a decorated function; not the function itself, which may be forgotten."""

    function: Callable[[], Function | None]
    label: str
    template: str | None
    codes: tuple[Any, ...] | None
    """Of itself and the functions that it wraps; None if one was not made by def."""
    captured: str | None
    """The text of the variables that it has from around it; None if they have none."""

    @property
    def is_local(self) -> bool:
        """Whether it was made inside a function, which may make more of its kind."""
        return "<locals>" in self.label


_known: weakref.WeakKeyDictionary[Any, dict[tuple[str, ...], _Known]] = weakref.WeakKeyDictionary()
"""By cache and shape of the keys."""
_NOTHING = canonical(())


def register(cache: object, fn: Function, template: str | None, shape: tuple[str, ...]) -> None:
    """Remember that ``cache`` has decorated ``fn``.

    Its keys have a shape: the template's own text, or without one the label. Another function with keys of that shape
    would be given its values. Allowed is the same code again, as from a factory whose functions capture nothing, and,
    with a warning, other code under the same name in a module: a reload, or a notebook's cell that was changed.

    Raises:
        ConfigError: another function has keys of this shape.
    """
    mine = _Known(_reference(fn), label_of(fn), template, _codes(fn), _captured(fn))
    known = _known.setdefault(cache, {})
    earlier = known.setdefault(shape, mine)
    before = earlier.function()
    if earlier is mine or (before is fn and earlier.template == template):
        return
    if before is fn or not _may_follow(earlier, mine, alive=before is not None):
        raise ConfigError(
            f"{mine.label}: its keys, {_described(mine)}, are those of {earlier.label}, {_described(earlier)}, and "
            "each would return the other's values; give it a template of its own that shows what makes the "
            "difference. A method that calls super() needs one too"
        )
    known[shape] = mine
    if not _is_same(earlier, mine):
        warn(
            f"{mine.label} is defined anew, and what the earlier definition cached is still served: clear it, or give "
            "the new one keys of its own, as by cached(..., version='2')"
        )


def _may_follow(earlier: _Known, mine: _Known, *, alive: bool) -> bool:
    """Whether a function takes the place of one with its keys; ``alive``: that one can still be called."""
    if mine.label != earlier.label:
        return False
    if _is_same(earlier, mine) and (not mine.is_local or not alive or mine.captured == _NOTHING):
        return True
    if mine.codes is None or earlier.codes is None or "<lambda>" in mine.label:
        return False
    # mk(2) and mk(3) of one factory: even when the first is gone, its values are not the second's.
    differ = None not in {mine.captured, earlier.captured} and mine.captured != earlier.captured
    return not (mine.is_local and (alive or differ))


def _is_same(earlier: _Known, mine: _Known) -> bool:
    """Whether both compute the same, as far as can be seen."""
    return mine[2:] == earlier[2:] and mine.codes is not None and mine.captured is not None


def _described(known: _Known) -> str:
    return "made without a template" if known.template is None else f"made from {known.template!r}"


def _reference(fn: Function) -> Callable[[], Function | None]:
    try:
        return weakref.ref(fn)
    except TypeError:
        return lambda: fn


def _codes(fn: Function) -> tuple[Any, ...] | None:
    codes = []
    inner: Any = fn
    while inner is not None:
        if inspect.isfunction(inner):
            codes.append(_content(inner.__code__))
        elif not hasattr(inner, "__wrapped__") or getattr(inner, "args", None) or getattr(inner, "keywords", None):
            return None  # such as a partial, which binds what no name shows
        inner = getattr(inner, "__wrapped__", None)
    return tuple(codes)


def _content(code: CodeType) -> tuple[Any, ...]:
    """What a code does, without its place: a function that has moved in its file is the same."""
    constants = [_content(each) if isinstance(each, CodeType) else repr(each) for each in code.co_consts]
    return code.co_code, code.co_names, code.co_varnames, *constants


def _captured(fn: Function) -> str | None:
    try:
        return canonical(tuple(value for _, value in captured_by(fn)))
    except (NoText, RecursionError):
        return None
