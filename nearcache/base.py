"""What both classes share: the look into L1, and all that never waits."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, Unpack, cast, overload

from nearcache.checks import Duration, seconds, shown
from nearcache.engine import write
from nearcache.engine.breaker import Breaker
from nearcache.engine.core import Core
from nearcache.engine.ports import MISSING, Missing, Runtime
from nearcache.engine.read import report_corrupt
from nearcache.errors import CacheClosed, CodecError, ConfigError, InvalidKey, warn
from nearcache.events import Listener as EventListener
from nearcache.local import drops
from nearcache.local.invalidation import AlwaysFresh, Invalidation
from nearcache.local.s3fifo import USES_MAX
from nearcache.local.store import Entry, Opener
from nearcache.local.tier import NEVER, Tier
from nearcache.local.whole import WholeTier
from nearcache.policy import Policy, check_key
from nearcache.protocol.codec import MsgpackCodec
from nearcache.runtime.run_sync import run_sync
from nearcache.settings import SETTINGS, Settings, SettingsOptions
from nearcache.transport.backend import Backend
from nearcache.troubles import Troubles

if TYPE_CHECKING:
    from nearcache.health import Health
    from nearcache.stats import Stats

D = TypeVar("D")


_caches: weakref.WeakSet[BaseCache] = weakref.WeakSet()


def _after_fork() -> None:
    """In the child: sockets, threads and locks are the parent's, and so is what L1 knows; begin anew."""
    BaseCache._opening = threading.RLock()  # noqa: SLF001  # its class is below; another thread may have held it
    for cache in tuple(_caches):
        cache._restart_after_fork()  # noqa: SLF001  # as above
        if cache._users:  # noqa: SLF001  # as above; the parent's
            cache._users = 0  # noqa: SLF001  # as above


os.register_at_fork(after_in_child=_after_fork)


def warned_of_default(where: Backend, settings: Settings) -> Backend:
    """The same Backend; warn if others may use its server, and have this namespace if they say nothing either."""
    if settings.namespace == SETTINGS["namespace"].default and where.new_bus is not None and where.server is None:
        warn(
            f"namespace={settings.namespace!r} is the default: applications on {where.shown} that name none share keys "
            "with this one, and clear() of each empties all; name it, as in namespace='shop'"
        )
    return where


def _core_on(where: Backend, settings: Settings, runtime: Runtime) -> Core:
    bounds = settings.l1_max_entries, settings.l1_max_bytes
    if where.buckets is not None:
        remotes = where.buckets.remotes
        whole = WholeTier(*bounds, settings.journal_max, settings.eviction, buckets=len(remotes))
        assert where.new_bus is not None  # noqa: S101  # only a server has buckets
        from nearcache.engine.buckets import core_of_buckets  # noqa: PLC0415  # few need it, and it takes its time to import

        return core_of_buckets(
            settings=settings, runtime=runtime, remotes=remotes, new_bus=where.new_bus, tier=whole, reads=where.reads
        )
    journal_max = 0 if where.new_bus is None else settings.journal_max
    tier = Tier(*bounds, journal_max, settings.eviction)
    if not where.keeps:
        tier.hold(0.0)  # elsewhere the greeting of a bus says how much, before anything is put
    invalidation = AlwaysFresh(tier) if where.new_bus is None else Invalidation(tier, settings.max_staleness)
    return Core(
        settings=settings,
        runtime=runtime,
        remote=where.remote,
        new_bus=where.new_bus,
        tier=tier,
        invalidation=invalidation,
        breaker=Breaker(settings.breaker_failures, settings.breaker_reset),
        policy=Policy.of(settings),
        reads=where.reads,
    )


class BaseCache:
    """A cache without the methods that wait."""

    _finalizer: weakref.finalize[..., Any] | None = None
    """Ends what runs for a cache that is forgotten without ``close``."""
    _troubles: Troubles
    _instruments: tuple[Callable[[Core], None], ...] = ()
    """Functions that watch the requests and loads of each core that this cache gets, as nearcache.observe.otel does."""
    _asynchronous: ClassVar[bool]
    _with: ClassVar[str] = "with cache:"
    """What opens a closed cache again, for the message of CacheClosed."""
    _shared: ClassVar[dict[tuple[type, object, str], BaseCache]] = {}
    """By class, URL and namespace, what ``shared`` has made."""
    _users: int | None = None
    """Of a shared cache: how many ``with`` are open. The last of them closes it, and the next use opens it again."""
    _opening: ClassVar[threading.RLock] = threading.RLock()
    """Held while any cache is opened again: two threads may find it closed, or its event loop."""

    @classmethod
    def from_url(cls, url: str, **settings: Unpack[SettingsOptions]) -> Self:
        """A cache on the server that a URL names. Nothing is connected yet.

        Args:
            url: ``redis://``, ``rediss://``, ``unix://``, ``redis+sentinel://host:port,host:port/service/0``,
                ``redis+cluster://`` with one or more nodes, ``memory://``, ``null://`` or ``embedded://``. ``null://``
                switches caching off: writes are acknowledged, nothing is kept, and each load is made.
            **settings: see :class:`Settings`.

        Raises:
            ConfigError: the URL or a setting can never work.

        >>> from nearcache import NearCache
        >>> NearCache.from_url("redis://cache:6379/0", namespace="shop", ttl=60)
        <NearCache redis://cache:6379/0 namespace='shop'>
        """
        return cls._make(url, Settings(**settings))

    @classmethod
    def from_env(
        cls,
        prefix: str = "NEARCACHE_",
        *,
        env_file: str | Path | None = None,
        secrets_dir: str | Path | None = None,
        **settings: Unpack[SettingsOptions],
    ) -> Self:
        """A cache set up by ``NEARCACHE_URL``, ``NEARCACHE_TTL`` and so on: the name of a setting in capitals.

        ``NEARCACHE_USERNAME`` and ``NEARCACHE_PASSWORD`` count more than those of the URL, and change nothing where the
        URL names no server. ``NEARCACHE_URL_FILE``, ``NEARCACHE_PASSWORD_FILE`` and so on may name a file that has the
        text, such as a mounted secret. A variable of an unknown name is a :class:`NearCacheWarning`.

        Args:
            prefix: what the names of the variables begin with.
            env_file: a file of variables, such as ``.env``, which need not exist; the environment counts more. This
                and ``secrets_dir`` need the extra ``settings``.
            secrets_dir: a folder with a file for each variable, such as ``/run/secrets``; the other two count more.
                Where there is none, a :class:`NearCacheWarning` says so.
            **settings: see :class:`Settings`; they count more than all variables.

        Raises:
            ConfigError: there is no URL, or a variable can't be read.

        >>> import os
        >>> from unittest.mock import patch
        >>> from nearcache import NearCache
        >>> with patch.dict(os.environ, {"SHOP_CACHE_URL": "redis://cache:6379/0", "SHOP_CACHE_NAMESPACE": "shop"}):
        ...     NearCache.from_env(prefix="SHOP_CACHE_", ttl=60)
        <NearCache redis://cache:6379/0 namespace='shop'>
        """
        from nearcache.environment import from_env  # noqa: PLC0415  # few need it

        return cls._make(*from_env(os.environ, prefix, env_file=env_file, secrets_dir=secrets_dir, **settings))

    @classmethod
    def shared(cls, url: str, **settings: Unpack[SettingsOptions]) -> Self:
        """The one cache of this process for this class, URL and namespace; the first call makes it.

        The last ``with`` to leave closes it, and so does ``close``; the next use opens it again, with an empty L1.
        After a fork the child has its own behind the same object. A NearCache and an AsyncNearCache are two caches.

        Args:
            url: as for ``from_url``.
            **settings: see :class:`Settings`; the same in each call, also those that are left out. Functions and codecs
                are the same if they are the same object.

        Raises:
            ConfigError: the URL or a setting can never work; or the cache is there, and has other settings.

        >>> from nearcache import NearCache
        >>> NearCache.shared("memory://", namespace="shop") is NearCache.shared("memory://", namespace="shop")
        True
        """
        asked = Settings(**settings)
        with cls._opening:
            place = cls, url, asked.namespace
            if place not in cls._shared:
                made = cls._shared[place] = cls._make(url, asked)
                made._users = 0  # noqa: SLF001  # of this class
            cache = cls._shared[place]
        others = [name for name in SETTINGS if getattr(cache.settings, name) != getattr(asked, name)]
        if others:
            raise ConfigError(
                f"{cache!r} is shared, and was made with another {', '.join(others)}: give the same settings in each "
                "call, also those that are left out, or name another namespace"
            )
        return cast("Self", cache)

    @classmethod
    def _make(cls, url: str, settings: Settings) -> Self:
        from nearcache.transport.open import open_url  # noqa: PLC0415  # all transports, which only an open cache needs

        self = cls.__new__(cls)
        self._build(warned_of_default(open_url(url, settings, asynchronous=cls._asynchronous), settings), settings)
        return self

    def _restart_after_fork(self) -> None:
        if self._closed:
            self._leave()
        else:
            self._begin_anew(self._backend.again())

    def _reopen_closed(self) -> None:
        with self._opening:
            if self._closed:
                self._reopen()

    def _enter(self) -> None:
        """A ``with`` begins."""
        with self._opening:
            self._reopen_closed()
            if self._users is not None:
                self._users += 1

    def _leave_with(self) -> bool:
        """A ``with`` ends; whether the cache is closed with it."""
        if self._users is not None:
            self._users = max(0, self._users - 1)
        return not self._users

    def _reopen(self) -> None:
        """Begin anew on the same server: after ``close``, or when the event loop is closed and there is another one.

        The journal is kept: what Redis has not acknowledged is still a miss here, and still has to be replayed.
        """
        journals = [core.tier.journal for core in self._core.all]
        self._begin_anew(self._backend.again())
        for core, journal in zip(self._core.all, journals, strict=True):
            core.tier.journal = journal

    def _begin_anew(self, where: Backend) -> None:
        """Replace everything but the settings and the listeners: connections, locks, tasks and L1."""
        listeners, troubles = self._core.listeners, self._troubles
        self._leave()
        self._build(where, self.settings)
        self._core.listeners, self._troubles = listeners, troubles
        troubles.begin_anew()

    def _leave(self) -> None:
        """Make the present state harmless: what it holds is another process's or another loop's."""
        if self._finalizer is not None:
            self._finalizer.detach()  # after a fork, the sockets that it would shut are the parent's
        # An operation that forked in its loader must not go on to ask: it would read the parent's replies.
        for core in self._core.all:
            core.requests.bypassed = True

    def _build(self, where: Backend, settings: Settings) -> None:
        """Make what the class needs beside; it calls ``__init__`` of this one."""
        raise NotImplementedError

    def __init__(self, where: Backend, settings: Settings, runtime: Runtime) -> None:
        from nearcache.advisor import EVERY, Advisor  # noqa: PLC0415  # it imports the log
        from nearcache.log import Log  # noqa: PLC0415  # structlog takes longer to import than all else together

        self._backend = where
        self._core = _core_on(where, settings, runtime)
        if settings.audit_fraction and where.new_bus is not None:
            from nearcache.engine.audit import Audit  # noqa: PLC0415  # few ask for it

            self._core.chores.add(Audit(self._core).run, 0.0)
        self._troubles = Troubles(f"{where.shown} namespace={settings.namespace!r}")
        self._log = Log(settings.namespace)
        if where.new_bus is not None:
            shared = where.server is None
            self._core.chores.add(Advisor(self._core, self._troubles, self._log, shared=shared).run, EVERY)
        if settings.announce and where.new_bus is not None:
            from nearcache import announce  # noqa: PLC0415  # few ask for it

            announcer = announce.Announcer(self._core, self._troubles, type(self).__name__)
            self._core.chores.add(announcer.run, announce.EVERY)
        self._core.listeners += [self._log, self._troubles]
        self._tier = self._core.tier
        self._closed = False
        for instrument in self._instruments:
            instrument(self._core)
        _caches.add(self)

    def _instrument(self, instrument: Callable[[Core], None]) -> None:
        """Watch this core, and those that come after a fork or when the cache is opened again."""
        self._instruments += (instrument,)
        instrument(self._core)

    def __repr__(self) -> str:
        if not hasattr(self, "_core"):  # in the traceback of what is wrong with its URL or settings
            return f"<{type(self).__name__} that is not made>"
        settings = self._core.settings
        return f"<{type(self).__name__} {self._backend.shown} namespace={settings.namespace!r}>"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError(
            f"{self!r} can't be copied or pickled, since it has connections and locks: make another one by its URL, "
            "and leave it out of what is copied, as __getstate__ of the object that holds it may do"
        )

    @property
    def _policy(self) -> Policy:
        return self._core.policy

    @property
    def settings(self) -> Settings:
        """The settings, frozen.

        >>> from nearcache import NearCache
        >>> NearCache.from_url("memory://", ttl=60).settings.ttl
        60.0
        """
        return self._core.settings

    @property
    def codec(self) -> MsgpackCodec:
        """The codec, with which types are registered: ``cache.codec.register(User)``.

        Caches that are given one `Settings` object, or one codec, share it.

        Raises:
            ConfigError: the codec is the application's own, ``settings.codec``, which has to know its types itself.

        >>> from fractions import Fraction
        >>> from nearcache import NearCache
        >>> codec = NearCache.from_url("memory://").codec
        >>> codec.decode(codec.encode(Fraction(1, 3)))
        Fraction(1, 3)
        """
        codec = self.settings.codec
        if not isinstance(codec, MsgpackCodec):
            raise ConfigError(f"codec={codec!r} of the settings is no MsgpackCodec: it has to know its types itself")
        return codec

    @property
    def url(self) -> str:
        """Where the server is, without user and password; for ``embedded://`` what other processes connect to.

        >>> from nearcache import NearCache
        >>> NearCache.from_url("redis://user:secret@cache:6379/0", namespace="shop").url
        'redis://cache:6379/0'
        """
        return self._backend.shown

    @property
    def healthy(self) -> bool:
        """Whether L1 is proven coherent now; False before the first use of a server.

        >>> from nearcache import NearCache
        >>> NearCache.from_url("memory://").healthy
        True
        """
        return self._core.healthy

    def stats(self) -> Stats:
        """The counters since the cache was made, as a frozen snapshot.

        >>> from nearcache import NearCache
        >>> cache = NearCache.from_url("memory://")
        >>> cache.get_or_set("answer", lambda: 42), cache.get("answer")
        (42, 42)
        >>> cache.stats().loads, cache.stats().l1_hits
        (1, 1)
        """
        return self._core.stats()

    def health(self) -> Health:
        """How the cache is doing now, as a frozen snapshot; nobody is asked, so it is cheap and never waits.

        >>> from nearcache import NearCache
        >>> NearCache.from_url("memory://").health().status
        'ok'
        """
        from nearcache.health import health_of  # noqa: PLC0415  # few need it

        where, troubles = self._backend, self._troubles
        shared = where.new_bus is not None and where.server is None
        health = health_of(self._core, troubles, closed=self._closed, shared=shared, primary=where.primary())
        self._log.advise(health.reasons, troubles.advised)
        return health

    def on_event(self, callback: EventListener) -> Callable[[], None]:
        """Call ``callback`` with every event, on the thread or loop where it happens.

        Args:
            callback: takes an :class:`~nearcache.events.Event`; what it raises is ignored.

        Returns:
            A function that ends it.

        Raises:
            ConfigError: it can't be called.

        >>> from nearcache import NearCache
        >>> unsubscribe = NearCache.from_url("memory://").on_event(print)
        >>> unsubscribe()
        """
        if not callable(callback):
            raise ConfigError(f"callback={shown(callback)}: must be callable, with the event as its argument")
        listeners = self._core.listeners
        listeners.append(callback)

        def unsubscribe() -> None:
            if callback in listeners:
                listeners.remove(callback)

        return unsubscribe

    @overload
    def peek(self, key: str) -> Any | None: ...
    @overload
    def peek(self, key: str, default: D) -> Any | D: ...
    def peek(self, key: str, default: Any = None) -> Any:
        """The value if L1 has it and may serve it; never the network, and not counted.

        Args:
            key: the key.
            default: returned when L1 has no such value.

        Returns:
            The value, or the default.

        Raises:
            InvalidKey: the key is no key.
            CacheClosed: after ``close``.

        >>> from nearcache import NearCache
        >>> with NearCache.from_url("memory://") as cache:
        ...     cache.set("user:7", "Ada"), cache.peek("user:7"), cache.peek("user:8")
        (True, 'Ada', None)
        """
        try:
            value = self._find(key)
        except TypeError:  # no key at all
            value = MISSING
        if value is MISSING:
            self._checked(key)
            return default
        return value

    def clear_local(self) -> None:
        """Drop every entry of this process's L1; Redis and the other processes keep theirs.

        Raises:
            CacheClosed: after ``close``.

        >>> from nearcache import NearCache
        >>> cache = NearCache.from_url("memory://")
        >>> cache.set("user:7", "Ada"), cache.clear_local(), cache.peek("user:7")
        (True, None, None)
        """
        self._check_open()
        run_sync(write.drop_local(self._core))

    # The hot path; `get` of both classes and the wrappers of functions have it written out, a call less. Without a
    # lock: see the head of local/tier.py for why. The clock is looked up each time, so that a test may replace it.
    def _look(self, key: str) -> Any | Missing:
        """The value in L1, counted as a hit, or MISSING."""
        tier = self._tier
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
                return entry.value if entry.decode is None else self._decoded(key, entry)
        except (KeyError, TypeError):  # absent, just gone, or no key at all, which is told on the long way
            pass
        return MISSING

    def _find(self, key: str) -> Any | Missing:
        tier = self._tier
        entry = tier.entry(key)
        now = monotonic()
        if entry is None or now >= entry.expires or now >= entry.proof.until:
            return MISSING
        if entry.decode is None:
            return entry.value
        try:
            return entry.decode(entry.value)
        except CodecError:
            return MISSING

    def _decoded(self, key: str, entry: Entry) -> Any:
        """The caller's own value of an entry that holds bytes, for a hit that was counted.

        Raises:
            KeyError: the codec fails; the entry is dropped, and it was no hit.
        """
        try:
            decode, stored = entry.decode, entry.value
            if not isinstance(decode, Opener):
                return decode(stored)  # type: ignore[misc]  # seen by the caller
            return stored[0](stored[1]) if type(stored) is tuple else decode.first(entry, stored)
        except CodecError as error:
            self._tier.hits -= 1
            report_corrupt(self._core, key, error)
            with self._tier.lock:
                if self._tier.entries.get(key) is entry:
                    self._tier.drop(key)
                    self._tier.drops.note((key, drops.DAMAGED))
            raise KeyError(key) from error

    def _look_many(self, keys: Iterable[str]) -> tuple[dict[str, Any], list[str]]:
        """What L1 has of some keys, and which others there are, each once."""
        if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
            raise InvalidKey(f"keys={shown(keys)}: must be several keys, as in get_many(['a', 'b']); for one use get")
        self._check_open()
        most, entries = self._core.settings.max_key_bytes, self._tier.entries
        wanted = {check_key(key, most): None for key in keys}
        found = {key: value for key in wanted if key in entries and (value := self._look(key)) is not MISSING}
        return found, [key for key in wanted if key not in found] if found else list(wanted)

    def _hold_ms(self, hold: Duration | None) -> int:
        return 0 if hold is None else max(1, int(seconds("hold", hold) * 1000))

    def _checked_items(self, values: Mapping[str, object]) -> dict[str, object]:
        if not isinstance(values, Mapping):
            raise InvalidKey(
                f"values={shown(values)}: must be a mapping from keys to values, as in set_many({{'a': 1}})"
            )
        return {self._checked(key): value for key, value in values.items()}

    def _checked(self, key: object) -> str:
        self._check_open()
        return check_key(key, self._core.settings.max_key_bytes)

    def _check_open(self) -> None:
        if self._closed and self._users is not None:
            self._reopen_closed()
        if self._closed:
            raise CacheClosed(f"{self!r} was closed; make a new one, or open it again by `{self._with}`")

    def _stop_serving(self) -> None:
        """Serve nothing from now on."""
        self._closed = True
        with self._tier.lock:
            for core in self._core.all:
                core.tier.synced = False
                core.tier.proof.until = NEVER
            self._tier.drop_all("the cache was closed")
            self._tier.release()
