"""cached(): a function that looks in L1 first; what it does not find there is the cache's work."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, ParamSpec, TypeVar, cast, overload

from nearcache.errors import ConfigError
from nearcache.functions import check_coroutine, check_plain, group_of, label_of, make_key_function, make_tags_function
from nearcache.functions.annotations import register_returned
from nearcache.functions.registry import register
from nearcache.functions.spec import Cache, FunctionSpec
from nearcache.functions.wrapper import AsyncCachedFunction, Awaited, CachedFunction, Wrapper
from nearcache.local.s3fifo import USES_MAX
from nearcache.policy import CachedOptions, LoadOptions

P = ParamSpec("P")
T = TypeVar("T")

_OPTIONS = dict.fromkeys(CachedOptions.__annotations__)


# ------------------------------------------------------------------------------------------------- the way of a call

# The two closures are the hot path, and alike but for async and await; the look is BaseCache._look's
# written out. The key is built after the try, and not in its except: what build raises shall not carry the memo's
# refusal as its context.


NONE: Any = object()
"""In the place of a first argument that was not given."""


def given(first: object, others: tuple[Any, ...]) -> tuple[Any, ...]:
    """The positional arguments of a call. Parted in two, since Python makes a tuple only of those after the first."""
    return () if first is NONE else (first, *others)


def _plain_call(plan: FunctionSpec) -> Callable[..., Any]:
    cache, keys, load = plan.cache, plan.key, plan.load
    short, memo = keys.short.kept, keys.memo

    def call(first: Any = NONE, /, *others: Any, **named: Any) -> Any:
        try:
            if not others and not named and ((kind := type(first)) is str or kind is int):
                key = short[first]
            else:
                key = memo(**named) if first is NONE else memo(first, *others, **named)
        except Exception:  # noqa: BLE001  # learn decides
            key = None
        if key is None:
            key = keys.learn(*given(first, others), **named)
        tier = cache._tier  # noqa: SLF001  # made for this one caller
        try:
            entry = tier.entries[key]
            now = monotonic()
            if now < entry.deadline and now < entry.proof.until:
                touch = tier.touch
                if touch is not None:
                    touch(key)
                elif entry.uses < USES_MAX:
                    entry.uses += 1
                tier.hits += 1
                return entry.value if entry.decode is None else cache._decoded(key, entry)  # noqa: SLF001  # as above
        except (KeyError, TypeError):
            pass
        return load(key, given(first, others), named)

    return call


def _coroutine_call(plan: FunctionSpec) -> Callable[..., Awaited[Any]]:
    cache, keys, load = plan.cache, plan.key, plan.load
    short, memo = keys.short.kept, keys.memo

    async def call(first: Any = NONE, /, *others: Any, **named: Any) -> Any:
        try:
            if not others and not named and ((kind := type(first)) is str or kind is int):
                key = short[first]
            else:
                key = memo(**named) if first is NONE else memo(first, *others, **named)
        except Exception:  # noqa: BLE001  # learn decides
            key = None
        if key is None:
            key = keys.learn(*given(first, others), **named)
        tier = cache._tier  # noqa: SLF001  # made for this one caller
        try:
            entry = tier.entries[key]
            now = monotonic()
            if now < entry.deadline and now < entry.proof.until:
                touch = tier.touch
                if touch is not None:
                    touch(key)
                elif entry.uses < USES_MAX:
                    entry.uses += 1
                tier.hits += 1
                return entry.value if entry.decode is None else cache._decoded(key, entry)  # noqa: SLF001  # as above
        except (KeyError, TypeError):
            pass
        return await load(key, given(first, others), named)

    return call


# ------------------------------------------------------------------------------------------------------- decorating


def _binds(fn: Callable[..., Any]) -> bool:
    """Whether a class makes a method of it, as of functions; not of a staticmethod, a builtin or most objects."""
    if isinstance(fn, functools.partial) and not isinstance(fn, Wrapper):
        return False  # from 3.14 on it does; 3.13 warns of that when asked
    bind = getattr(type(fn), "__get__", None)
    probe = object()
    return bind is not None and getattr(bind(fn, probe, object), "__self__", None) is probe


W = TypeVar("W", bound=Wrapper[..., Any, Any])


def _cached(
    kind: type[W],
    check: Callable[[Callable[..., Any]], None],
    make_call: Callable[[FunctionSpec], Callable[..., Any]],
    cache: Cache,
    target: Callable[..., Any] | str | None,
    *,
    ignore: Sequence[str] = (),
    tags: Sequence[str] = (),
    version: str | None = None,
    grouped: bool = False,
    **options: Any,
) -> W | Callable[[Callable[..., Any]], W]:
    if type(grouped) is not bool:
        raise ConfigError(f"grouped={grouped!r}: must be True or False")
    policy = cache._policy.over(cast("LoadOptions", options), _OPTIONS)  # noqa: SLF001  # made for this one caller

    def decorate(fn: Callable[..., Any], template: str | None = None) -> W:
        of_class = isinstance(fn, classmethod)
        binds = of_class or _binds(fn)
        if isinstance(fn, classmethod | staticmethod):
            fn = fn.__func__
        check(fn)
        key = make_key_function(fn, template, ignore, policy.max_key_bytes, version)
        tagged = make_tags_function(fn, tags, ignore, policy.max_key_bytes)
        always, of_call = (tagged, None) if isinstance(tagged, tuple) else ((), tagged)
        group = (group_of(template or label_of(fn), policy.max_key_bytes),) if grouped else ()
        values = policy.with_tags((*always, *group)) if always or group else policy
        plan = FunctionSpec(cache, fn, key, of_call, values, group, binds, of_class)
        register(cache, fn, template, key.shape)
        register_returned(cache.settings.codec, fn)
        # The closure has the function's signature too: some frameworks look at what a partial is made of.
        call = functools.update_wrapper(make_call(plan), fn)
        wrapper = kind(call)
        functools.update_wrapper(wrapper, fn)
        for made in (call, wrapper):
            vars(made).pop("__call__", None)  # of a wrapper that is wrapped
        vars(call).update(_plan=plan, __signature__=key.signature)
        plan.bound_names.update((name, value) for name, value in vars(wrapper).items() if name != "__wrapped__")
        plan.unbound = weakref.ref(wrapper)
        if kind is CachedFunction:
            # Calls do not come by here, but Celery asks an object's __call__ for the module and the arguments.
            vars(wrapper)["__call__"] = call
        return wrapper

    if target is None or isinstance(target, str):
        return functools.partial(decorate, template=target)
    return decorate(target)


@overload
def cached_sync(cache: Cache, target: Callable[P, T], **options: Any) -> CachedFunction[P, T]: ...
@overload
def cached_sync(
    cache: Cache, target: str | None = None, **options: Any
) -> Callable[[Callable[P, T]], CachedFunction[P, T]]: ...
def cached_sync(cache: Cache, target: Callable[..., Any] | str | None = None, **options: Any) -> Any:
    """Cache a plain function.

    Args:
        cache: where its values live.
        target: the function (bare ``@cached``), a key template such as ``"user:{id}"``, or None.
        **options: ``ignore``, names of parameters that do not count for the key; ``tags``, templates as the key's;
            ``version``, part of the key; ``grouped``, for ``invalidate_all``; and the options of ``get_or_set``.

    Returns:
        The wrapper, or a decorator that makes it.

    Raises:
        ConfigError: an option is unknown or out of its range, or another function would have the same keys.
        TypeError: the function is not a plain one, or would not have a key of its own for each call.
    """
    return _cached(CachedFunction, check_plain, _plain_call, cache, target, **options)


@overload
def cached_async(cache: Cache, target: Callable[P, Awaited[T]], **options: Any) -> AsyncCachedFunction[P, T]: ...
@overload
def cached_async(
    cache: Cache, target: str | None = None, **options: Any
) -> Callable[[Callable[P, Awaited[T]]], AsyncCachedFunction[P, T]]: ...
def cached_async(cache: Cache, target: Callable[..., Any] | str | None = None, **options: Any) -> Any:
    """Cache a coroutine function; else as :func:`cached_sync`."""
    return _cached(AsyncCachedFunction, check_coroutine, _coroutine_call, cache, target, **options)
