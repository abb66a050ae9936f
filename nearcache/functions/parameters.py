"""The arguments that a call gives to a function's parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from nearcache.checks import shown
from nearcache.errors import ConfigError


def names_of(option: str, given: Sequence[str]) -> tuple[str, ...]:
    """A sequence of strings; a lone string, which is one too, is taken for the mistake it is."""
    fits = isinstance(given, Sequence | set | frozenset) and not isinstance(given, str)
    if not fits or not all(isinstance(name, str) for name in given):
        raise ConfigError(f"{option}={shown(given)}: must be a sequence of strings, as in {option}=['name']")
    return tuple(given)


BY_POSITION = frozenset({inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD})


def binder(label: str, signature: inspect.Signature) -> Callable[..., dict[str, Any]]:
    """A function from a call to its arguments by parameter, defaults included."""
    parameters = list(signature.parameters.values())
    names = [each.name for each in parameters]
    defaults = {each.name: each.default for each in parameters if each.default is not each.empty}
    nameable = _nameable(parameters)

    def bind(*args: object, **kwargs: object) -> dict[str, Any]:
        # Signature.bind takes most of a key's time. It judges what is not plainly in order.
        if len(args) < len(nameable) and kwargs.keys() <= nameable[len(args)]:
            arguments = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
            if len(arguments) == len(names):
                return arguments
        try:
            bound = signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{label}(): {error}") from None
        bound.apply_defaults()
        return bound.arguments

    return bind


def _nameable(parameters: Sequence[inspect.Parameter]) -> list[frozenset[str]]:
    """By the number of positional arguments: what may be passed by name. Empty with ``*args`` or ``**kwargs``."""
    if any(each.kind in {each.VAR_POSITIONAL, each.VAR_KEYWORD} for each in parameters):
        return []
    positional = sum(each.kind in BY_POSITION for each in parameters)
    return [
        frozenset(each.name for each in parameters[count:] if each.kind is not each.POSITIONAL_ONLY)
        for count in range(positional + 1)
    ]
