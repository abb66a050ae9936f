"""cached(): a function that looks in L1 first; what it does not find there is the cache's work.

A wrapper is a ``functools.partial`` of a closure. Of what can be called, has methods and binds to an object, that is
the quickest: the closure's is the only Python frame between the caller and the look in L1. And it makes
``inspect.iscoroutinefunction`` true for the wrapper of a coroutine function on every release of Python.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping, Sequence
from time import monotonic
from typing import (
    TYPE_CHECKING,
    Any,
    Concatenate,
    Generic,
    ParamSpec,
    Self,
    TypeAlias,
    TypeVar,
    cast,
    overload,
)

from nearcache.functions import check_coroutine, check_plain, label_of, make_key_function, make_tags_function
from nearcache.functions.spec import Cache, FunctionSpec
from nearcache.local.s3fifo import USES_MAX
from nearcache.policy import LoadOptions

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")

Awaited: TypeAlias = Coroutine[Any, Any, T]


class _Wrapper(functools.partial[R], Generic[P, T, R]):
    """What both wrappers have. ``args`` is empty, or holds the object that a method is bound to."""

    _plan: FunctionSpec
    __wrapped__: Callable[P, R]
    __name__: str
    __qualname__: str

    if TYPE_CHECKING:  # partial's own is as quick as a call gets; this tells its types

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
            """The function's value, from the nearest tier that has it."""
            ...

    else:  # as a class that answers to any name would hide misspelt ones from type checkers

        def __getattr__(self, name: str) -> Any:
            if name == "__wrapped__" and self.args:
                return self._plan.fn.__get__(*self.args)
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key under which the value of this call is cached.

        Raises:
            UncacheableArgument: an argument cannot become part of a key.
        """
        return self._plan.key(*self.args, *args, **kwargs)

    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """The value of this call if L1 has it, else None; never the network."""
        return cast("T | None", self._plan.cache.peek(self.key(*args, **kwargs)))

    def _refreshed(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        whole = (*self.args, *args)
        return self._plan.load(self._plan.key(*whole, **kwargs), whole, kwargs, replace=True)

    def _bound(self, instance: object, owner: type | None) -> Any:
        """What ``instance.name`` is: a wrapper with ``instance`` in front, if the function would bind at all."""
        if self._plan.of_class:
            instance = type(instance) if owner is None else owner
        if instance is None or self.args or not self._plan.binds:
            return self
        bound = type(self)(self.func, instance)
        # Bound anew for each call of a method: one dict for all costs half of what a copy does.
        bound.__dict__ = self._plan.bound_names
        return bound

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By name, as functions are pickled."""
        if self.args:
            return getattr, (*self.args, self.__name__)
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {label_of(self.__wrapped__)}>"


class CachedFunction(_Wrapper[P, T, T]):
    """A function whose values are cached; ``NearCache.cached`` makes it.

    It is called as the function is, and its methods take the same arguments. In a class it binds as functions do.
    """

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the value of this call everywhere; whether Redis acknowledged."""
        return cast("bool", self._plan.cache.delete(self.key(*args, **kwargs)))

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function now, and cache and return its value."""
        return cast("T", self._refreshed(args, kwargs))

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], T], instance: S, owner: type | None = None, /
    ) -> CachedFunction[Q, T]: ...
    def __get__(self, instance: object, owner: type | None = None, /) -> Any:
        """Bind, as a function in a class does."""
        return self._bound(instance, owner)


class AsyncCachedFunction(_Wrapper[P, T, Awaited[T]]):
    """A coroutine function whose values are cached; ``AsyncNearCache.cached`` makes it.

    It is called and awaited as the function is, and its methods take the same arguments; ``key`` and ``peek`` are not
    awaited. In a class it binds as functions do.
    """

    async def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the value of this call everywhere; whether Redis acknowledged."""
        return cast("bool", await self._plan.cache.delete(self.key(*args, **kwargs)))

    async def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function now, and cache and return its value."""
        return cast("T", await self._refreshed(args, kwargs))

    @overload
    def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...
    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[S, Q], T], instance: S, owner: type | None = None, /
    ) -> AsyncCachedFunction[Q, T]: ...
    def __get__(self, instance: object, owner: type | None = None, /) -> Any:
        """Bind, as a function in a class does."""
        return self._bound(instance, owner)


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
                return entry.value if tier.decode is None else tier.decode(entry.value)
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
                return entry.value if tier.decode is None else tier.decode(entry.value)
        except (KeyError, TypeError):
            pass
        return await load(key, given(first, others), named)

    return call


# ------------------------------------------------------------------------------------------------------- decorating


def _binds(fn: Callable[..., Any]) -> bool:
    """Whether a class makes a method of it, as of functions; not of a staticmethod, a builtin or most objects."""
    if isinstance(fn, functools.partial) and not isinstance(fn, _Wrapper):
        return False  # from 3.14 on it does; 3.13 warns of that when asked
    bind = getattr(type(fn), "__get__", None)
    probe = object()
    return bind is not None and getattr(bind(fn, probe, object), "__self__", None) is probe


W = TypeVar("W", bound=_Wrapper[..., Any, Any])


def _cached(
    kind: type[W],
    check: Callable[[Callable[..., Any]], None],
    make_call: Callable[[FunctionSpec], Callable[..., Any]],
    cache: Cache,
    target: Callable[..., Any] | str | None,
    *,
    ignore: Sequence[str] = (),
    tags: Sequence[str] = (),
    **options: Any,
) -> W | Callable[[Callable[..., Any]], W]:
    policy = cache._policy.over(cast("LoadOptions", options))  # noqa: SLF001  # made for this one caller

    def decorate(fn: Callable[..., Any], template: str | None = None) -> W:
        of_class = isinstance(fn, classmethod)
        binds = of_class or _binds(fn)
        if isinstance(fn, classmethod | staticmethod):
            fn = fn.__func__
        check(fn)
        key = make_key_function(fn, template, ignore, policy.max_key_bytes)
        plan = FunctionSpec(cache, fn, key, make_tags_function(fn, tags) if tags else None, policy, binds, of_class)
        # The closure has the function's signature too: some frameworks look at what a partial is made of.
        wrapper = kind(functools.update_wrapper(make_call(plan), fn))
        functools.update_wrapper(wrapper, fn)
        vars(wrapper)["_plan"] = plan  # last: a wrapper that is wrapped has one too
        plan.bound_names.update((name, value) for name, value in vars(wrapper).items() if name != "__wrapped__")
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
        **options: ``ignore``, names of parameters that do not count for the key; ``tags``, templates as the key's; and
            the options of ``get_or_set``.

    Returns:
        The wrapper, or a decorator that makes it.

    Raises:
        ConfigError: an option is unknown or out of its range.
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
