"""The signature by which a call becomes a key, where a decorator stands between @cached and the function."""

from __future__ import annotations

import dis
import functools
import inspect
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from nearcache.functions.naming import Function, content_of, label_of

_STARRED = frozenset({inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD})


def signature_of(fn: Function, ignore: Sequence[str] = ()) -> inspect.Signature:
    """The signature that the calls of ``fn`` really have.

    ``functools.wraps`` lends a decorator's wrapper the name and the signature of the function inside. If the wrapper
    puts in an argument or drops one, a key made by that signature would be another call's. So it counts only if the
    wrapper hands on its ``*args`` and ``**kwargs`` as they are; else the wrapper's own does.

    Args:
        fn: the function, or what its decorators made of it.
        ignore: parameters inside that a wrapper may supply without telling, since they do not count for the key.

    Raises:
        TypeError: it has no signature, or what a wrapper does with its arguments cannot be told.
    """
    if isinstance(fn, types.MethodType):
        whole = signature_of(fn.__func__, ignore)
        return whole.replace(parameters=list(whole.parameters.values())[1:])
    inner = getattr(fn, "__wrapped__", None)
    if isinstance(fn, functools._lru_cache_wrapper):  # noqa: SLF001  # written in C, it has no signature of its own
        return signature_of(fn.__wrapped__, ignore)
    own = _own(fn)
    if inner is None or isinstance(fn, functools.partial):
        return own
    if any(each.kind in _STARRED for each in own.parameters.values()):
        if not _hands_on(fn, own, inner):
            raise TypeError(
                f"{label_of(fn)}: the decorator below @cached takes {own}, and whether it hands all of that on to the "
                "function, unchanged, cannot be told, so that a key could be another call's; put @cached below that "
                "decorator, next to the function, or let its wrapper name the function's parameters"
            )
        return signature_of(inner, ignore)
    for name, parameter in signature_of(inner, ignore).parameters.items():
        if name not in own.parameters and name not in ignore and parameter.kind not in _STARRED:
            raise TypeError(
                f"{label_of(fn)}: the decorator below @cached supplies {name!r} itself, which the key would not show; "
                f"put @cached below that decorator, or leave it out by ignore=({name!r},) if it makes no difference"
            )
    return own


def _own(fn: Function) -> inspect.Signature:
    try:
        return inspect.signature(fn, follow_wrapped=False)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{label_of(fn)} cannot be cached: {error}; wrap it in a function made by def") from None


# ------------------------------------------------------------------------------------- what a wrapper does, by its code

_Step: TypeAlias = tuple[str, Any]

_NOISE = frozenset({"CACHE", "NOP", "PUSH_NULL", "RESUME", "COPY_FREE_VARS", "EXTENDED_ARG", "PRECALL", "NOT_TAKEN"})
_OF_VARIABLES = ("_FAST", "_DEREF", "_CELL", "_CLOSURE")
_READS_A_NAME = frozenset(("LOAD_ATTR", name) for name in ("__name__", "__qualname__", "__module__", "__doc__"))


def _hands_on(fn: Function, own: inspect.Signature, inner: object) -> bool:
    """Whether a wrapper calls the function inside with just the arguments that it was given, and nothing else.

    Its code is compared with what this Python makes of such a call. It may read ``args`` besides, as for a log; what
    might change ``kwargs``, or give the function to somebody else, is not trusted. Parameters with a default are the
    wrapper's own, as in ``def call(*args, _function=function, **kwargs)``: no call that has a key gives them.
    """
    if not isinstance(fn, types.FunctionType) or "__signature__" in vars(fn):
        return False
    variables = zip(fn.__code__.co_freevars, map(content_of, fn.__closure__ or ()), strict=True)
    extras = [(each.name, each.default) for each in own.parameters.values() if each.default is not each.empty]
    name = next((name for name, value in (*variables, *extras) if value is inner), None)
    given = [each for each in own.parameters.values() if each.default is each.empty]
    if name is None or not dict(extras).keys().isdisjoint(inspect.signature(fn).parameters):
        return False
    model = list(_steps(_call_with(name, own, given)))[:-1]  # without the return
    steps = list(_steps(fn.__code__))
    starts = [at for at in range(len(steps)) if steps[at : at + len(model)] == model]
    inside = {at + offset for at in starts for offset in range(len(model))}
    safe = {each.name: each.kind is not each.VAR_KEYWORD for each in given}
    return bool(starts) and all(at in inside or _is_harmless(steps, at, name, safe) for at in range(len(steps)))


def _is_harmless(steps: Sequence[_Step], at: int, name: str, safe: Mapping[str, bool]) -> bool:
    """Whether a step outside of the calls neither changes an argument nor lets the function out of sight.

    ``safe``: by argument, whether it may be read.
    """
    operation, variable = steps[at]
    if not isinstance(variable, str) or not any(kind in operation for kind in _OF_VARIABLES):
        return True
    if variable == name:
        return operation in {"LOAD_DEREF", "LOAD_FAST"} and steps[at + 1] in _READS_A_NAME
    return variable not in safe or (operation == "LOAD_FAST" and safe[variable])


def _steps(code: types.CodeType) -> Iterator[_Step]:
    """The instructions of a code, alike for all forms in which Python writes a local variable."""
    for each in dis.get_instructions(code):
        if each.opname in _NOISE:
            continue
        name = each.opname.replace("_BORROW", "").replace("_CHECK", "")
        if isinstance(each.argval, tuple) and "FAST" in name:  # two variables at once
            first, _, second = name.partition("_FAST_")
            yield f"{first}_FAST", each.argval[0]
            yield second, each.argval[1]
        else:
            yield name, each.argval


def _call_with(name: str, own: inspect.Signature, given: Iterable[inspect.Parameter]) -> types.CodeType:
    """The code of ``return name(*args, **kwargs)`` in a wrapper with this signature."""
    bare = [each.replace(default=each.empty, annotation=each.empty) for each in own.parameters.values()]
    call = ", ".join(
        f"{each.name}={each.name}" if each.kind is each.KEYWORD_ONLY else str(each.replace(annotation=each.empty))
        for each in given
    )
    source = f"def outer({name}):\n def call{inspect.Signature(bare)}:\n  return {name}({call})\n"
    code = compile(source, "<call>", "exec")
    for _ in range(2):
        code = next(each for each in code.co_consts if isinstance(each, types.CodeType))
    return code
