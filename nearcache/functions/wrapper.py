"""What a decorated function is: called as the function is, with methods that take the same arguments.

A wrapper is a ``functools.partial`` of a closure. Of what can be called, has methods and binds to an object, that is
the quickest: the closure's is the only Python frame between the caller and the look in L1. And it makes
``inspect.iscoroutinefunction`` true for the wrapper of a coroutine function on every release of Python.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Concatenate, Generic, ParamSpec, Self, TypeAlias, TypeVar, cast, overload

from nearcache.errors import ConfigError
from nearcache.functions import label_of
from nearcache.functions.spec import FunctionSpec

P = ParamSpec("P")
Q = ParamSpec("Q")
T = TypeVar("T")
R = TypeVar("R")
S = TypeVar("S")

Awaited: TypeAlias = Coroutine[Any, Any, T]

MYPY = False
"""True in mypy, which does not compare self with the types of overloads: it would take each method for a class's. So
what a class gives takes any arguments there."""


class Wrapper(functools.partial[R], Generic[P, T, R]):
    """What both wrappers have. ``args`` is empty, or holds the object that a method is bound to."""

    __wrapped__: Callable[P, R]
    __name__: str
    __qualname__: str

    @property
    def _plan(self) -> FunctionSpec:
        # The closure has it, and nothing that it refers to has the closure: without a cycle, a function that a
        # factory made is gone as soon as nobody can call it.
        return self.func._plan  # type: ignore[attr-defined,no-any-return]  # noqa: SLF001  # made for it

    if TYPE_CHECKING:  # partial's own is as quick as a call gets; this tells its types

        def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
            """The function's value, from the nearest tier that has it."""
            ...

    else:  # as a class that answers to any name would hide misspelt ones from type checkers

        def __getattr__(self, name: str) -> Any:
            plan = self._plan
            if name == "__signature__":
                signature = plan.key.signature
                return signature.replace(parameters=list(signature.parameters.values())[len(self.args) :])
            if self.args:  # a bound one has what a bound method has
                if name == "__self__":
                    return self.args[0]
                if name == "__func__":
                    return plan.unbound()
                if name == "__wrapped__":
                    return plan.fn.__get__(*self.args)
                if name in plan.bound_names:  # made by weakref.WeakMethod, from the two above
                    return plan.bound_names[name]
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __eq__(self, other: object) -> bool:
        """As of functions and bound methods: the same function, bound to the same object."""
        if not isinstance(other, Wrapper):
            return NotImplemented
        return self._plan is other._plan and list(map(id, self.args)) == list(map(id, other.args))

    def __hash__(self) -> int:
        return hash((id(self._plan), *map(id, self.args)))

    def key(self, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """The key under which the value of this call is cached.

        Args:
            *args: those of the function.
            **kwargs: those of the function.

        Returns:
            The key, as ``get``, ``delete`` and ``explain`` of the cache take it.

        Raises:
            UncacheableArgument: an argument cannot become part of a key.

        >>> from nearcache import NearCache
        >>> @NearCache.from_url("memory://").cached("user:{id}")
        ... def user(id: int) -> str:
        ...     return "Ada"
        >>> user.key(7), user.key(id=7)
        ('user:7', 'user:7')
        """
        return self._plan.key(*self.args, *args, **kwargs)

    def peek(self, /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """The value of this call if L1 has it; never the network, and never the function.

        Args:
            *args: those of the function.
            **kwargs: those of the function.

        Returns:
            The value, or None.

        Raises:
            UncacheableArgument, CacheClosed: as ``key``; after ``close``.

        >>> from nearcache import NearCache
        >>> @NearCache.from_url("memory://").cached("user:{id}")
        ... def user(id: int) -> str:
        ...     return "Ada"
        >>> user.peek(7), user(7), user.peek(7)
        (None, 'Ada', 'Ada')
        """
        return cast("T | None", self._plan.cache.peek(self.key(*args, **kwargs)))

    def _group(self) -> tuple[str, ...]:
        group = self._plan.group
        if not group:
            raise ConfigError(
                f"{label_of(self.__wrapped__)}: its values have no tag of their own to be invalidated by: decorate it "
                "with cached(..., grouped=True)"
            )
        return group

    def _refreshed(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        whole = (*self.args, *args)
        return self._plan.load(self._plan.key(*whole, **kwargs), whole, kwargs, replace=True)

    def _bound(self, instance: object, owner: type | None) -> Any:
        """What ``instance.name`` is: a wrapper with ``instance`` in front, if the function would bind at all."""
        plan = self._plan
        if plan.of_class:
            instance = type(instance) if owner is None else owner
        if instance is None or self.args or not plan.binds:
            return self
        bound = type(self)(self.func, instance)
        # Bound anew for each call of a method: one dict for all costs half of what a copy does.
        bound.__dict__ = plan.bound_names
        return bound

    def __reduce__(self) -> str | tuple[Any, ...]:
        """By name, as functions are pickled."""
        if self.args:
            return getattr, (*self.args, self.__name__)
        return self.__qualname__

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {label_of(self.__wrapped__)}>"


class CachedFunction(Wrapper[P, T, T]):
    """A function whose values are cached; ``NearCache.cached`` makes it.

    It is called as the function is, and its methods take the same arguments. In a class it binds as functions do, also
    under or above @classmethod and @staticmethod. From Python 3.13 on @classmethod binds nothing that is below it: put
    it below ``cached`` there, or ``invalidate`` and the like want the class as their first argument. mypy takes a
    static method of an object for a method: name it by the class.

    >>> from nearcache import NearCache
    >>> cache = NearCache.from_url("memory://")
    >>> @cache.cached("user:{id}", ttl=60, grouped=True)
    ... def user(id: int) -> str:
    ...     return f"user {id}, {cache.stats().loads}"
    >>> user(7), user(7), user.__wrapped__(7)
    ('user 7, 1', 'user 7, 1', 'user 7, 1')
    """

    def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """Delete the value of this call everywhere.

        Args:
            *args: those of the function.
            **kwargs: those of the function.

        Returns:
            Whether Redis acknowledged; see ``NearCache.set``.

        Raises:
            UncacheableArgument: an argument cannot become part of a key.
            RemoteUnavailable, CacheClosed: as ``NearCache.delete``.

        >>> from nearcache import NearCache
        >>> @NearCache.from_url("memory://").cached("user:{id}")
        ... def user(id: int) -> str:
        ...     return "Ada"
        >>> user(7), user.invalidate(7), user.peek(7)
        ('Ada', True, None)
        """
        return cast("bool", self._plan.cache.delete(self.key(*args, **kwargs)))

    def invalidate_all(self) -> bool:
        """Drop the values of all calls everywhere, in one step.

        Returns:
            Whether Redis acknowledged; see ``NearCache.set``.

        Raises:
            ConfigError: the function was not decorated with ``grouped=True``.
            RemoteUnavailable, CacheClosed: as ``NearCache.delete``.

        >>> from nearcache import NearCache
        >>> @NearCache.from_url("memory://").cached("user:{id}", grouped=True)
        ... def user(id: int) -> str:
        ...     return "Ada"
        >>> user(7), user.invalidate_all(), user.peek(7)
        ('Ada', True, None)
        """
        return cast("bool", self._plan.cache.invalidate_tags(*self._group()))

    def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the function now, and cache its value; as ``NearCache.refresh``.

        Args:
            *args: those of the function.
            **kwargs: those of the function.

        Returns:
            The new value.

        Raises:
            UncacheableArgument: an argument cannot become part of a key.
            LoaderTimeout, CacheClosed: as ``NearCache.refresh``.
            Exception: what the function raises, as it is; the value that was there stays.

        >>> from nearcache import NearCache
        >>> numbers = iter([1, 2])
        >>> @NearCache.from_url("memory://").cached("next")
        ... def number() -> int:
        ...     return next(numbers)
        >>> number(), number(), number.refresh(), number()
        (1, 1, 2, 2)
        """
        return cast("T", self._refreshed(args, kwargs))

    if not MYPY:

        @overload  # of a class method
        def __get__(
            self: CachedFunction[Concatenate[type[S], Q], T], instance: S | None, owner: type[S], /
        ) -> CachedFunction[Q, T]: ...
        @overload
        def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...

    if MYPY:

        @overload  # of a class: of which kind of method is not known
        def __get__(self, instance: None, owner: type | None = None, /) -> CachedFunction[..., T]: ...

    @overload
    def __get__(
        self: CachedFunction[Concatenate[S, Q], T], instance: S, owner: type | None = None, /
    ) -> CachedFunction[Q, T]: ...
    @overload  # of a static method
    def __get__(self, instance: object, owner: type | None = None, /) -> Self: ...
    def __get__(self, instance: object, owner: type | None = None, /) -> Any:
        """Bind, as a function in a class does."""
        return self._bound(instance, owner)


class AsyncCachedFunction(Wrapper[P, T, Awaited[T]]):
    """A coroutine function whose values are cached; ``AsyncNearCache.cached`` makes it.

    It is called and awaited as the function is, and its methods take the same arguments; ``key`` and ``peek`` are not
    awaited. In a class it binds as functions do.

    >>> import asyncio
    >>> from nearcache import AsyncNearCache
    >>> async def main():
    ...     async with AsyncNearCache.from_url("memory://") as cache:
    ...         @cache.cached("user:{id}")
    ...         async def user(id: int) -> str:
    ...             return "Ada"
    ...         return await user(7), user.peek(7), await user.invalidate(7), user.peek(7)
    >>> asyncio.run(main())
    ('Ada', 'Ada', True, None)
    """

    async def invalidate(self, /, *args: P.args, **kwargs: P.kwargs) -> bool:
        """As :meth:`CachedFunction.invalidate`."""
        return cast("bool", await self._plan.cache.delete(self.key(*args, **kwargs)))

    async def invalidate_all(self) -> bool:
        """As :meth:`CachedFunction.invalidate_all`."""
        return cast("bool", await self._plan.cache.invalidate_tags(*self._group()))

    async def refresh(self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        """As :meth:`CachedFunction.refresh`."""
        return cast("T", await self._refreshed(args, kwargs))

    if not MYPY:

        @overload  # of a class method
        def __get__(
            self: AsyncCachedFunction[Concatenate[type[S], Q], T], instance: S | None, owner: type[S], /
        ) -> AsyncCachedFunction[Q, T]: ...
        @overload
        def __get__(self, instance: None, owner: type | None = None, /) -> Self: ...

    if MYPY:

        @overload  # of a class: of which kind of method is not known
        def __get__(self, instance: None, owner: type | None = None, /) -> AsyncCachedFunction[..., T]: ...

    @overload
    def __get__(
        self: AsyncCachedFunction[Concatenate[S, Q], T], instance: S, owner: type | None = None, /
    ) -> AsyncCachedFunction[Q, T]: ...
    @overload  # of a static method
    def __get__(self, instance: object, owner: type | None = None, /) -> Self: ...
    def __get__(self, instance: object, owner: type | None = None, /) -> Any:
        """Bind, as a function in a class does."""
        return self._bound(instance, owner)
