"""Deletes after the commit of a transaction."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress

from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.db import transaction

from nearcache.errors import RemoteUnavailable
from nearcache.integrations.django.backend import NearCacheBackend
from nearcache.policy import check_key, check_tags


def invalidate_on_commit(
    keys: Iterable[str] = (),
    tags: Iterable[str] = (),
    *,
    near_keys: Iterable[str] = (),
    version: int | None = None,
    cache: str = "default",
    using: str | None = None,
) -> None:
    """Delete after the commit of the present transaction, before all its other hooks; at once if there is none.

    What is rolled back, to a savepoint too, deletes nothing. A hook that was added earlier, as one that sends a task,
    finds the old value gone.

    Args:
        keys: of Django's cache, in the version.
        tags: whatever carries one of these.
        near_keys: of the NearCache behind it, as ``user.key(7)`` of a cached function.
        version: of the keys.
        cache: the alias in CACHES.
        using: the alias of the database.

    Raises:
        ImproperlyConfigured: the alias has another backend.
        InvalidKey: one of the keys or tags is none.
    """
    backend = caches[cache]
    if not isinstance(backend, NearCacheBackend):
        raise ImproperlyConfigured(f"CACHES[{cache!r}] is {type(backend).__name__}: must be a NearCacheBackend")
    near, limit = backend.near, backend.near.settings.max_key_bytes
    names = [check_key(key, limit) for key in near_keys]
    names += [check_key(backend.make_and_validate_key(key, version), limit) for key in keys]
    checked = check_tags(tuple(tags), limit, None)

    def invalidate() -> None:
        for call, given in ((near.delete, names), (near.invalidate_tags, checked)):
            with suppress(RemoteUnavailable):  # it is journalled, and the transaction is committed
                if given:
                    call(*given)

    connection = transaction.get_connection(using)
    transaction.on_commit(_Hook(invalidate), using)
    hooks = connection.run_on_commit
    if connection.in_atomic_block:  # else it has run already
        ahead = sum(isinstance(hook[1], _Hook) for hook in hooks[:-1])
        hooks.insert(ahead, hooks.pop())


class _Hook:
    """What is done after the commit, to be told from other hooks."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def __call__(self) -> None:
        self._call()
