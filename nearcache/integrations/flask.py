"""Flask: a backend for Flask-Caching by CACHE_TYPE, and ``init_app`` for the cache itself; see docs/flask.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeAlias, cast

from flask import Flask, current_app
from flask.wrappers import Response
from flask_caching.backends.base import BaseCache
from markupsafe import Markup
from werkzeug.datastructures import Headers

from nearcache.checks import FOREVER
from nearcache.engine.ports import MISSING
from nearcache.errors import CodecError, ConfigError
from nearcache.protocol.codec import MsgpackCodec
from nearcache.sync import NearCache

NAME = "nearcache"
"""Of the cache in ``app.extensions``."""

Timeout: TypeAlias = float | timedelta | None

_MARKUP, _RESPONSE = b"M", b"R"


@dataclass(frozen=True, slots=True)
class FlaskCodec(MsgpackCodec):
    """What MsgpackCodec carries, and at the top level Markup and Flask's Response: status, headers and content.

    A view that is cached by Flask-Caching returns them, and so does a cached template fragment.
    """

    def encode(self, value: object) -> bytes:
        """The value as bytes.

        Raises:
            CodecError: for a value that is not carried, such as a response that streams.
        """
        if type(value) is Markup:
            return _MARKUP + MsgpackCodec.encode(self, str.__str__(value))
        if type(value) is Response:
            if value.is_streamed:
                raise CodecError("the value is a response that streams, which is not kept")
            return _RESPONSE + MsgpackCodec.encode(self, (value.status, value.headers.to_wsgi_list(), value.get_data()))
        return MsgpackCodec.encode(self, value)

    def decode(self, data: bytes) -> Any:
        """The value that was encoded."""
        form = data[:1]
        if form == _MARKUP:
            return Markup(MsgpackCodec.decode(self, data[1:]))  # noqa: S704  # it was one when it was stored
        if form == _RESPONSE:
            try:
                status, headers, content = MsgpackCodec.decode(self, data[1:])
                return Response(content, status=status, headers=Headers(headers))
            except Exception as error:  # damaged fields may raise anything in the constructors
                raise CodecError(f"no response of this codec, or damaged: {error}; delete the key") from error
        return MsgpackCodec.decode(self, data)


def init_app(app: Flask, cache: NearCache | None = None) -> NearCache:
    """Give an application a cache: ``app.extensions["nearcache"]``, or ``cache_of(app)``.

    Args:
        app: the application.
        cache: the cache; without it, the one of this process for ``app.config["NEARCACHE_URL"]`` and the settings that
            stand there as ``NEARCACHE_TTL`` and so on.

    Returns:
        The cache. It connects at its first use, in each worker, and is not closed with a request.

    Raises:
        ConfigError: there is no URL, or a setting can never work.
    """
    if cache is None:
        url = app.config.get("NEARCACHE_URL")
        if not url:
            raise ConfigError("app.config has no NEARCACHE_URL, as redis://cache:6379/0: set it, or give a cache")
        given: Any = app.config.get_namespace("NEARCACHE_")
        given.pop("url")
        cache = NearCache.shared(url, **given)
    app.extensions[NAME] = cache
    return cache


def cache_of(app: Flask | None = None) -> NearCache:
    """The cache that ``init_app`` has given an application.

    Args:
        app: the application; None: the one that handles this request.

    Returns:
        The cache.

    Raises:
        ConfigError: it has none.
    """
    found = (app or current_app).extensions.get(NAME)
    if found is None:
        raise ConfigError("the application has no cache: call init_app(app) first")
    return cast("NearCache", found)


class Backend(BaseCache):
    """A backend for Flask-Caching: ``CACHE_TYPE = "nearcache.integrations.flask.Backend"``.

    Args:
        near: the NearCache behind it.
        prefix: what each key begins with.
        default_timeout: seconds; 0: for ever.
    """

    def __init__(self, near: NearCache, prefix: str = "", default_timeout: int = 300) -> None:
        super().__init__(default_timeout)
        self.near: NearCache = near
        self._prefix = prefix

    @classmethod
    def factory(cls, app: Flask, config: dict[str, Any], args: list[Any], kwargs: dict[str, Any]) -> Backend:
        """Made of CACHE_NEARCACHE_URL and CACHE_OPTIONS, which has the settings; CACHE_KEY_PREFIX is of the keys.

        Raises:
            ConfigError: there is no URL, or a setting can never work.
        """
        url = config.get("CACHE_NEARCACHE_URL")
        if not url:
            raise ConfigError("CACHE_NEARCACHE_URL is missing: must be a URL, as redis://cache:6379/0")
        # Timeouts are exact, unless CACHE_OPTIONS says otherwise.
        settings: Any = {"codec": FlaskCodec(), "jitter": 0, **(config.get("CACHE_OPTIONS") or {})}
        near = NearCache.shared(url, **settings)
        return cls(near, config.get("CACHE_KEY_PREFIX") or "", config["CACHE_DEFAULT_TIMEOUT"])

    def _ttl(self, timeout: Timeout) -> float:
        """Seconds: None is the default, 0 for ever; below 0 it is over."""
        seconds = self.default_timeout if timeout is None else timeout
        if isinstance(seconds, timedelta):
            seconds = seconds.total_seconds()
        return FOREVER if seconds == 0 else seconds

    def get(self, key: str) -> Any:
        """The value of a key, or None."""
        return self.near.get(self._prefix + key)

    def get_many(self, *keys: str) -> list[Any]:
        """The values of some keys in their order, None for what is missing."""
        found = self.near.get_many(self._prefix + key for key in keys)
        return [found.get(self._prefix + key) for key in keys]

    def get_dict(self, *keys: str) -> dict[str, Any]:
        """As ``get_many``, by key."""
        return dict(zip(keys, self.get_many(*keys), strict=True))

    def has(self, key: str) -> bool:
        """Whether there is a value, which may be None."""
        return self.near.get(self._prefix + key, MISSING) is not MISSING

    def set(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Store a value for so many seconds; None: the default, 0: for ever. Whether Redis acknowledged."""
        return bool(self.set_many({key: value}, timeout))

    def set_many(self, mapping: Mapping[str, Any], timeout: Timeout = None) -> list[str]:
        """As ``set``; the keys that were stored: all or none."""
        ttl, values = self._ttl(timeout), {self._prefix + key: value for key, value in mapping.items()}
        stored = self.near.delete(*values) if ttl < 0 else self.near.set_many(values, ttl=ttl)
        return list(mapping) if stored else []

    def add(self, key: str, value: Any, timeout: Timeout = None) -> bool:
        """Store a value if there is none, decided by Redis; whether it was stored."""
        ttl = self._ttl(timeout)
        return not self.has(key) if ttl < 0 else self.near.add(self._prefix + key, value, ttl=ttl)

    def delete(self, key: str) -> bool:
        """Delete a value everywhere; whether there was one."""
        return self.near.delete_existing(self._prefix + key)

    def delete_many(self, *keys: str) -> list[str]:
        """Delete some values everywhere, by one question; the keys, if Redis acknowledged."""
        return list(keys) if keys and self.near.delete(*(self._prefix + key for key in keys)) else []

    def inc(self, key: str, delta: int = 1) -> int:
        """Add to a number, by one script; a new one begins at 0, with the default timeout.

        Raises:
            TypeError: the value is no int.
        """
        try:
            return self.near.incr(self._prefix + key, delta, ttl=self._ttl(None))
        except CodecError as error:
            raise TypeError(str(error)) from None

    def dec(self, key: str, delta: int = 1) -> int:
        """Take from a number, as ``inc``."""
        return self.inc(key, -delta)

    def clear(self) -> bool:
        """Drop everything in the namespace, of every prefix; whether Redis acknowledged."""
        return self.near.clear()
