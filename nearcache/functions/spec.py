"""What a wrapper of a function knows: its cache, the function, and how a call becomes a key."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from nearcache.functions import KeyFunction
from nearcache.local.tier import Tier
from nearcache.policy import Policy
from nearcache.settings import Settings


class Cache(Protocol):
    """What a wrapper asks of a cache. The methods are read-only attributes here, so that typed options fit too."""

    @property
    def _tier(self) -> Tier:
        """Where a call looks; asked for at each call, since after a fork it is another one."""
        ...

    @property
    def _policy(self) -> Policy:
        """What the settings say of values; a function's own options go over it."""
        ...

    @property
    def settings(self) -> Settings:
        """Its codec has to know the types of the values."""
        ...

    def peek(self, key: str, /) -> Any:
        """The value in L1 or None."""
        ...

    @property
    def _decoded(self) -> Callable[..., Any]:
        """``(key, entry)``: the caller's own value of an entry that holds bytes, or KeyError."""
        ...

    @property
    def _load(self) -> Callable[..., Any]:
        """``(key, loader, policy, *, replace)``: the value, loaded when it is missing, or in any case."""
        ...

    @property
    def delete(self) -> Callable[..., Any]:
        """``(*keys)``: whether Redis acknowledged."""
        ...

    @property
    def invalidate_tags(self) -> Callable[..., Any]:
        """``(*tags)``: whether Redis acknowledged."""
        ...


@dataclass(slots=True, eq=False, repr=False)
class FunctionSpec:
    """What a wrapper and its bound copies share."""

    cache: Cache
    fn: Callable[..., Any]
    key: KeyFunction
    tags: Callable[..., tuple[str, ...]] | None
    policy: Policy
    """How its values are stored and loaded, made once when the function is decorated."""
    group: tuple[str, ...]
    """The tag that all of its values carry, if it is grouped."""
    binds: bool
    of_class: bool  # a classmethod: it binds the class, from an instance too
    bound_names: dict[str, Any] = field(default_factory=dict)  # the attributes of a bound copy
    unbound: Callable[[], Any] = lambda: None  # the wrapper of which bound ones are copies

    def load(self, key: str, args: Sequence[Any], kwargs: Mapping[str, Any], *, replace: bool = False) -> Any:
        """Ask the cache for the value of a call, with a loader that makes the call; ``replace``: load in any case."""
        policy = self.policy
        if self.tags is not None:
            policy = policy.with_tags((*self.tags(*args, **kwargs), *self.group))
        return self.cache._load(key, functools.partial(self.fn, *args, **kwargs), policy, replace=replace)  # noqa: SLF001  # made for wrappers
