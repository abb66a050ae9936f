"""What a wrapper of a function knows: its cache, the function, and how a call becomes a key."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from nearcache.functions import KeyFunction
from nearcache.local.tier import Tier


class Cache(Protocol):
    """What a wrapper asks of a cache. The methods are read-only attributes here, so that typed options fit too."""

    @property
    def _tier(self) -> Tier:
        """Where a call looks; asked for at each call, since after a fork it is another one."""
        ...

    def peek(self, key: str, /) -> Any:
        """The value in L1 or None."""
        ...

    @property
    def get_or_set(self) -> Callable[..., Any]:
        """``(key, loader, **options)``: the value, loaded when it is missing."""
        ...

    @property
    def refresh(self) -> Callable[..., Any]:
        """``(key, loader, **options)``: the value, loaded whether it is missing or not."""
        ...

    @property
    def delete(self) -> Callable[..., Any]:
        """``(*keys)``: whether Redis acknowledged."""
        ...


@dataclass(slots=True, eq=False)
class FunctionSpec:
    """What a wrapper and its bound copies share."""

    cache: Cache
    fn: Callable[..., Any]
    key: KeyFunction
    tags: Callable[..., tuple[str, ...]] | None
    options: Mapping[str, Any]
    binds: bool
    of_class: bool  # a classmethod: it binds the class, from an instance too
    bound_names: dict[str, Any] = field(default_factory=dict)  # every attribute of a bound copy but __wrapped__

    def loader(self) -> Callable[..., Any]:
        """What a call does when L1 has no value for it: ``(key, args, kwargs)``."""
        return functools.partial(self.load, self.cache.get_or_set)

    def load(self, ask: Callable[..., Any], key: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Ask the cache for the value of a call, with a loader that makes the call."""
        options = self.options if self.tags is None else {**self.options, "tags": self.tags(*args, **kwargs)}
        return ask(key, functools.partial(self.fn, *args, **kwargs), **options)
