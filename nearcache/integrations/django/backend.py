"""The backend for CACHES.

Every alias of every thread with one LOCATION and namespace has one NearCache behind it. The asynchronous methods answer
an L1 hit at once, and do all else by the same cache in a thread: there is one L1, so that ``set`` and ``aget`` agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from nearcache.checks import FOREVER
from nearcache.engine.ports import MISSING
from nearcache.errors import CodecError
from nearcache.integrations.django.codec import DjangoCodec, PickleCodec
from nearcache.protocol.codec import Codec
from nearcache.sync import NearCache

_NOT_OURS = frozenset({"MAX_ENTRIES", "CULL_FREQUENCY"})
"""Options of Django's own backends: the server evicts by itself, and l1_max_entries bounds L1."""


def _settings(params: Mapping[str, Any]) -> dict[str, Any]:
    settings = {name: value for name, value in params.get("OPTIONS", {}).items() if name not in _NOT_OURS}
    codec: Any = settings.get("codec", DjangoCodec)
    codec = import_string(codec) if isinstance(codec, str) else codec
    made: Codec = codec() if isinstance(codec, type) else codec
    if isinstance(made, PickleCodec) and settings.setdefault("copy", "serialized") != "serialized":
        raise ImproperlyConfigured(f"OPTIONS: copy={settings['copy']!r} with PickleCodec: it must be 'serialized'")
    # Timeouts are exact, as sessions expect, unless OPTIONS says otherwise.
    return {"jitter": 0, **settings, "codec": made}


async def _in_thread(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Call what asks Redis: any thread will do, and it must not wait for the one that the ORM's calls share."""
    return await sync_to_async(call, thread_sensitive=False)(*args, **options)


class NearCacheBackend(BaseCache):  # type: ignore[misc]  # Django has no types
    """A backend for CACHES: LOCATION is the URL, OPTIONS the settings of the cache; see docs/django.md."""

    def __init__(self, location: str, params: dict[str, Any]) -> None:
        super().__init__(params)
        if not location or not isinstance(location, str):
            raise ImproperlyConfigured(f"LOCATION={location!r}: must be one URL, as redis://cache:6379/0")
        self.near: NearCache = NearCache.shared(location, **_settings(params))
        """The NearCache behind it, for functions (``near.cached``), tags, events and health."""

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> float | None:
        """A timeout in seconds: None is for as long as there is, 10 years; 0 or less is not at all."""
        if timeout is DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        return FOREVER if timeout is None else timeout

    def _name(self, key: str, version: int | None) -> str:
        """The key in the NearCache."""
        return cast("str", self.make_and_validate_key(key, version))

    # ---------------------------------------------------------------------------------------------- reading

    def get(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """The value of a key. A cached None is a value."""
        return self.near.get(self._name(key, version), default)

    def get_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        """The values of some keys; what is missing is absent."""
        names = {self._name(key, version): key for key in keys}
        return {names[name]: value for name, value in self.near.get_many(names).items()}

    def get_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, **options: Any
    ) -> Any:
        """The value of a key; if it is missing, ``default`` or what it returns.

        A function is called once in the fleet, while the others that need the key wait for it.

        Args:
            key: the key.
            default: a value, or a function without arguments.
            timeout: as for ``set``.
            version: as for ``set``.
            **options: those of NearCache.get_or_set, such as ``tags`` and ``stale_if_error``.
        """
        seconds = self.get_backend_timeout(timeout)
        load: Callable[[], Any] = default if callable(default) else lambda: default
        if seconds is not None and seconds <= 0:
            value = self.get(key, MISSING, version)
            return load() if value is MISSING else value
        return self.near.get_or_set(self._name(key, version), load, ttl=seconds, **options)

    # ---------------------------------------------------------------------------------------------- writing

    def set(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, **options: Any
    ) -> None:
        """Store a value.

        Args:
            key: the key.
            value: what the codec carries.
            timeout: seconds; None: for ever; 0 or less: not at all, and what was there is deleted.
            version: in place of the alias's VERSION.
            **options: those of NearCache.set, such as ``tags``.
        """
        self.set_many({key: value}, timeout, version, **options)

    def set_many(
        self, data: Mapping[str, Any], timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, **options: Any
    ) -> list[str]:
        """Store some values, as ``set``. What Redis does not acknowledge is a miss, not a failed key."""
        values = {self._name(key, version): value for key, value in data.items()}
        seconds = self.get_backend_timeout(timeout)
        if seconds is not None and seconds <= 0:
            self.near.delete(*values)
        elif values:
            self.near.set_many(values, ttl=seconds, **options)
        return []

    def add(
        self, key: str, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, **options: Any
    ) -> bool:
        """Store a value if there is none, decided by Redis; whether it was stored."""
        seconds = self.get_backend_timeout(timeout)
        if seconds is not None and seconds <= 0:
            return not self.has_key(key, version)
        return self.near.add(self._name(key, version), value, ttl=seconds, **options)

    def touch(self, key: str, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Give a value a new timeout from now on; whether there was one."""
        seconds = self.get_backend_timeout(timeout)
        if seconds is not None and seconds <= 0:
            return self.delete(key, version)
        return self.near.touch(self._name(key, version), ttl=seconds)

    def delete(self, key: str, version: int | None = None) -> bool:
        """Delete a value everywhere; whether there was one."""
        return self.near.delete_existing(self._name(key, version))

    def delete_many(self, keys: Iterable[str], version: int | None = None) -> None:
        """Delete some values everywhere, by one question."""
        self.near.delete(*(self._name(key, version) for key in keys))

    def clear(self) -> bool:
        """Drop everything in the namespace, of every alias that shares it; whether Redis acknowledged."""
        return self.near.clear()

    def incr(self, key: str, delta: int = 1, version: int | None = None) -> int:
        """Add to a number, and keep its timeout.

        Raises:
            ValueError: there is no such key.
            TypeError: its value is no int, or has tags.
        """
        try:
            return self.near.incr(self._name(key, version), delta, initial=None)
        except KeyError:
            raise ValueError(f"Key {key!r} not found") from None
        except CodecError as error:
            raise TypeError(str(error)) from None

    # ----------------------------------------------------------------------------------------- asynchronous

    async def aget(self, key: str, default: Any = None, version: int | None = None) -> Any:
        """As ``get``. A hit of L1 costs no thread."""
        value = self.near._look(self._name(key, version))  # noqa: SLF001  # peek would not keep it young
        return await _in_thread(self.get, key, default, version) if value is MISSING else value

    async def aget_many(self, keys: Iterable[str], version: int | None = None) -> dict[str, Any]:
        """As ``get_many``."""
        wanted = list(keys)
        looked = {key: self.near._look(self._name(key, version)) for key in wanted}  # noqa: SLF001  # as above
        found = {key: value for key, value in looked.items() if value is not MISSING}
        absent = [key for key in looked if key not in found]
        return {**found, **await _in_thread(self.get_many, absent, version)} if absent else found

    async def aget_or_set(
        self, key: str, default: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None, **options: Any
    ) -> Any:
        """As ``get_or_set``; ``default`` is called in the thread that the ORM's calls share."""
        value = self.near._look(self._name(key, version))  # noqa: SLF001  # as above
        if value is not MISSING:
            return value
        return await sync_to_async(self.get_or_set)(key, default, timeout, version, **options)

    async def aset(self, *args: Any, **options: Any) -> None:
        """As ``set``."""
        await _in_thread(self.set, *args, **options)

    async def aset_many(self, *args: Any, **options: Any) -> Any:
        """As ``set_many``."""
        return await _in_thread(self.set_many, *args, **options)

    async def aadd(self, *args: Any, **options: Any) -> Any:
        """As ``add``."""
        return await _in_thread(self.add, *args, **options)

    async def atouch(self, *args: Any, **options: Any) -> Any:
        """As ``touch``."""
        return await _in_thread(self.touch, *args, **options)

    async def adelete(self, *args: Any, **options: Any) -> Any:
        """As ``delete``."""
        return await _in_thread(self.delete, *args, **options)

    async def adelete_many(self, *args: Any, **options: Any) -> None:
        """As ``delete_many``."""
        await _in_thread(self.delete_many, *args, **options)

    async def aincr(self, *args: Any, **options: Any) -> Any:
        """As ``incr``."""
        return await _in_thread(self.incr, *args, **options)

    async def aclear(self) -> Any:
        """As ``clear``."""
        return await _in_thread(self.clear)
