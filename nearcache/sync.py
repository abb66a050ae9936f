"""NearCache: the look into L1, else the flow, run in the caller's thread."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from functools import partial
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, ParamSpec, Self, TypeVar, Unpack, overload

from nearcache.base import BaseCache, warned_of_default
from nearcache.checks import Duration, Ttl, seconds
from nearcache.engine import atomic, load, read, write
from nearcache.engine.core import Core
from nearcache.engine.ports import MISSING
from nearcache.engine.replay import replay_journal
from nearcache.errors import ConfigError
from nearcache.local.s3fifo import USES_MAX
from nearcache.policy import (
    STORING,
    CachedOptions,
    LoadOptions,
    Policy,
    WriteOptions,
    check_counts,
    check_key,
    check_tags,
)
from nearcache.runtime.lifetime import BusThread, end_of_threads, subscriber_of
from nearcache.runtime.run_sync import run_sync
from nearcache.runtime.threads import ThreadRuntime
from nearcache.settings import Settings
from nearcache.transport.backend import Backend, Client

if TYPE_CHECKING:
    from nearcache.explanation import Explanation
    from nearcache.functions.wrapper import CachedFunction

D = TypeVar("D")
P = ParamSpec("P")
T = TypeVar("T")


def _replay(core: Core) -> None:
    run_sync(replay_journal(core))


class NearCache(BaseCache):
    """A near cache for threads: L1 in this process, coherent with every other process over Redis or Valkey.

    Args:
        client: a ``redis.Redis`` or ``redis.RedisCluster``; its connection settings are borrowed, the client itself is
            left alone.
        settings: see :class:`Settings`.

    Raises:
        ConfigError: it is no such client.

    >>> with NearCache.from_url("memory://", ttl=60) as cache:
    ...     cache.set("user:7", {"name": "Ada"})
    ...     cache.get("user:7")
    True
    {'name': 'Ada'}
    """

    _asynchronous = False

    def __init__(self, client: Client, settings: Settings | None = None) -> None:
        settings = settings or Settings()
        from nearcache.transport.open import open_client  # noqa: PLC0415  # all transports, which only an open cache needs

        self._build(warned_of_default(open_client(client, settings, asynchronous=False), settings), settings)

    def _build(self, where: Backend, settings: Settings) -> None:
        self._runtime = ThreadRuntime(settings.max_concurrent_loads)
        super().__init__(where, settings, self._runtime)
        self._subscriber = subscriber_of(self._core, where)
        self._bus = BusThread(self._subscriber)
        self._finalizer = weakref.finalize(self, end_of_threads, self._subscriber, self._backend)

    # ------------------------------------------------------------------------------------------------- life

    def __enter__(self) -> Self:
        """Start, and wait for the first attempt to connect. A cache that was closed is opened again, with an empty L1.

        Raises:
            ConfigError: the set-up can never work: a wrong password, an untrusted certificate, a port with TLS and a
                URL without it, a database, a Sentinel or a release that will not do, no Redis at all. A server that is
                away is no error: the cache works without it, and connects when it is back.
        """
        self._enter()
        refusal: object = None
        self._troubles.opening = True
        try:
            self._ready()
            refusal = run_sync(self._subscriber.first_attempt())
            if refusal is not None:
                raise ConfigError(f"{self.url}: {refusal}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        finally:
            self._troubles.opened(raised=refusal is not None)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._opening:
            end = self._stop() if self._leave_with() else None
        if end is not None:
            end()

    def close(self) -> None:
        """Stop the bus and close every connection; L1 is dropped. Closing twice is allowed; ``with`` opens it again.

        What the journal holds is replayed before, if Redis answers. It waits for loads and for Redis at most
        ``redis_connect_timeout`` and twice ``redis_timeout``.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.close()
        >>> cache.get("user:7")
        Traceback (most recent call last):
        nearcache.errors.CacheClosed: ...
        """
        self._stop()()

    def _stop(self) -> Callable[[], None]:
        """Serve nothing from now on. What it returns ends what has run, also if the cache was opened again by then."""
        with self._opening:
            core, runtime, bus, server = self._core, self._runtime, self._bus, self._backend.server
            self._subscriber.end()
            if self._finalizer is not None:
                self._finalizer.detach()
            self._stop_serving()
        patience = self.settings.redis_connect_timeout + 2 * self.settings.redis_timeout

        def end() -> None:
            with ExitStack() as steps:  # whatever one of them raises, the others are done
                if server is not None:
                    steps.callback(server.stop)
                steps.callback(lambda: run_sync(core.remote.close()))
                for one in core.all:
                    steps.callback(partial(_replay, one))
                steps.callback(runtime.drain, patience)
                steps.callback(bus.join, patience)
                core.interrupt()

        return end

    def wait_healthy(self, timeout: Duration = 2.0) -> bool:
        """Start the cache if it was not used yet, and wait until L1 is proven coherent.

        Args:
            timeout: seconds, or a timedelta.

        Returns:
            Whether L1 is proven. False is no reason to give up: reads go to Redis, or call their loaders.

        Raises:
            ConfigError: the timeout is none.
            CacheClosed: after ``close``.

        >>> NearCache.from_url("memory://").wait_healthy(timeout=1)
        True
        """
        self._ready()
        return run_sync(self._subscriber.wait_healthy(seconds("timeout", timeout)))

    def _ready(self) -> None:
        """Before anything that may ask Redis: the bus starts at the first use."""
        self._check_open()
        if self._bus.thread is None and self._core.new_bus is not None:
            self._bus.start()
            run_sync(self._subscriber.first_use())

    # ---------------------------------------------------------------------------------------------- reading

    @overload
    def get(self, key: str) -> Any | None: ...
    @overload
    def get(self, key: str, default: D) -> Any | D: ...
    def get(self, key: str, default: Any = None) -> Any:
        """The value of a key, from L1, else from Redis.

        The caller may change what it gets, unless ``copy="none"``: an immutable value is shared, a list or dict is
        decoded anew.

        Args:
            key: the key.
            default: returned when neither has it. A cached None is a value, and comes back as None.

        Returns:
            The value, equal to what was stored and of its type, or the default.

        Raises:
            InvalidKey: the key is no key.
            CacheClosed: after ``close``. What goes wrong with Redis is never raised: it is a miss.

        >>> NearCache.from_url("memory://").get("user:7", default="nobody")
        'nobody'
        """
        # The look of BaseCache._look written out: a call less, on the path that counts.
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
        except (KeyError, TypeError):
            pass
        if self._closed or self._bus.thread is None:
            self._ready()
        core = self._core
        most = core.settings.max_key_bytes
        if (
            type(key) is not str or not key.isascii() or not 0 < len(key) <= most
        ):  # as check_key: nearly always a call less
            key = check_key(key, most)
        value = run_sync(read.get(core, key))
        return default if value is MISSING else value

    def get_many(self, keys: Iterable[str]) -> dict[str, Any]:
        """The values of some keys, from L1, and the rest in one request from Redis.

        Args:
            keys: the keys, any number of them.

        Returns:
            The values by key; what is missing is absent.

        Raises:
            InvalidKey: one of the keys is no key; nothing was read.
            CacheClosed: after ``close``.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.set_many({"a": 1, "b": 2}), cache.get_many(["a", "b", "c"])
        (True, {'a': 1, 'b': 2})
        """
        self._ready()
        found, absent = self._look_many(keys)
        return found | run_sync(read.get_many(self._core, absent)) if absent else found

    def get_or_set(self, key: str, loader: Callable[[], T], **options: Unpack[LoadOptions]) -> T:
        """The value of a key, loaded when neither tier has it: once in the fleet, while the others wait for it.

        Args:
            key: the key.
            loader: called without arguments, in this thread, with no lock held.
                It runs in a thread of its own, with a copy of the context, when it has a time limit, or when the
                value is there and is only made anew.
            **options: over the settings of the same names, for this call; durations are seconds or a timedelta, None
                means the setting's. How the value is kept: ``ttl`` (or a function of the value that gives it),
                ``l1_ttl``, ``negative_ttl`` for None (0: not at all), ``tags``, ``condition`` (a function of the value:
                whether to store it), ``copy`` (see the setting). What is served past its end:
                ``stale_while_revalidate`` and ``stale_if_error``, for how long beyond it. The former outlives the
                request, whose session is closed: a loader opens its own. When it is made anew before:
                ``early_refresh``, a fraction of the ttl from 0 to 1, or ``xfetch_beta``, a factor up to 100. How long a
                reader waits: ``loader_soft_timeout`` until a stale value serves, ``loader_hard_timeout`` until it gives
                up, ``wait_timeout`` for somebody else's load, by default twice ``lease``. ``lease``: for how long
                nobody else in the fleet loads it.

        Returns:
            The value; a stale one where the options allow it. One that can't be stored is returned all the same,
            uncached, with an event.

        Raises:
            InvalidKey, ConfigError: the key or an option is none.
            LoaderTimeout: not loaded within ``loader_hard_timeout``, or no turn came while ``max_concurrent_loads``
                bounds loads, and there is no stale value that may serve.
            CacheClosed: after ``close``.
            Exception: what the loader raises, as it is.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.get_or_set("answer", lambda: 6 * 7, ttl=60)
        42
        """
        value = self._look(key)
        if value is not MISSING:
            if options:  # wrong ones are told at each call, and not only where the value is absent
                self._policy.check(options)
            return value  # type: ignore[no-any-return]  # what was stored under the key is what the loader gives
        policy = self._core.policy
        return self._load(key, loader, policy.over(options) if options else policy, replace=False)

    def get_or_set_many(
        self, keys: Iterable[str], load_many: Callable[[list[str]], Mapping[str, T]], **options: Unpack[LoadOptions]
    ) -> dict[str, T]:
        """The values of some keys; those that neither tier has are loaded by one call, each once in the fleet.

        Args:
            keys: the keys.
            load_many: called as the loader of ``get_or_set``, with the missing keys that nobody else loads. It gives a
                mapping; what it gives for other keys is ignored. It is called again for keys whose load elsewhere
                failed or takes longer than ``wait_timeout``.
            **options: those of ``get_or_set``, for each key. What is made anew in the background is loaded by one call
                too.

        Returns:
            The values by key. A key that ``load_many`` leaves out is absent; nothing is stored for it, and what Redis
            still had of it is deleted.

        Raises:
            InvalidKey, ConfigError, LoaderTimeout, CacheClosed: as ``get_or_set``.
            Exception: what ``load_many`` raises, here or for a reader of one of the keys that was waited for; then the
                other keys are stored, but not returned.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.get_or_set_many(["a", "bb"], lambda keys: {key: len(key) for key in keys}, ttl=60)
        {'a': 1, 'bb': 2}
        """
        policy = self._policy.over(options)
        self._ready()
        found, absent = self._look_many(keys)
        if not absent:
            return found
        try:
            from nearcache.engine.load_many import get_or_load_many, values_of  # noqa: PLC0415  # few need it

            return found | values_of(run_sync(get_or_load_many(self._core, absent, load_many, policy)))
        except BaseException:
            for key in absent:
                self._core.flights.abandon(key, self._runtime.callers()[-1])
            raise

    def refresh(self, key: str, loader: Callable[[], T], **options: Unpack[LoadOptions]) -> T:
        """Load now, whether there is a value or not.

        Other processes keep what their L1 holds until it expires: to drop it everywhere, ``delete`` it.

        Args:
            key: the key.
            loader: as for ``get_or_set``.
            **options: those of ``get_or_set``, in the same units. Nothing stale is returned in place of the new value,
                so ``loader_soft_timeout`` and the stale windows say only how the value is kept for later readers.

        Returns:
            The value that was loaded: by this call, or by another ``refresh`` of the key that was under way here.

        Raises:
            InvalidKey, ConfigError, LoaderTimeout, CacheClosed: as ``get_or_set``.
            Exception: what the loader raises, as it is; the value that was there stays.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.set("answer", 41), cache.refresh("answer", lambda: 42), cache.get("answer")
        (True, 42, 42)
        """
        return self._load(key, loader, self._policy.over(options), replace=True)

    def _load(self, key: str, loader: Callable[[], T], policy: Policy, *, replace: bool) -> T:
        if self._closed or self._bus.thread is None:
            self._ready()
        key = check_key(key, self._core.settings.max_key_bytes)
        try:
            flow = load.get_or_load(self._core, key, loader, policy, replace=replace)
            return run_sync(flow).get()  # type: ignore[no-any-return]  # as above
        except BaseException:
            self._core.flights.abandon(key, self._runtime.callers()[-1])
            raise

    # ---------------------------------------------------------------------------------------------- writing

    def set(self, key: str, value: object, **options: Unpack[WriteOptions]) -> bool:
        """Store a value in Redis and in this L1; every other L1 drops the key.

        Args:
            key: the key.
            value: anything the codec carries.
            **options: ``ttl``, ``l1_ttl`` and ``negative_ttl`` in seconds, ``tags``, ``condition``, ``copy``.

        Returns:
            True: Redis acknowledged, or ``negative_ttl`` or ``condition`` turned the value down. False: it did not.
            Then the key is a miss in this process, and deleted in Redis when it answers again.

        Raises:
            InvalidKey, ConfigError, CodecError, ValueTooLarge: nothing was stored.
            RemoteUnavailable: not acknowledged, with ``on_unavailable="raise"``.
            CacheClosed: after ``close``.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.set("user:7", {"name": "Ada"}, ttl=60, tags=["users"]), cache.get("user:7")
        (True, {'name': 'Ada'})
        """
        if self._closed or self._bus.thread is None:
            self._ready()
        core = self._core
        policy = core.policy.over(options, STORING) if options else core.policy
        return run_sync(write.store_one(core, check_key(key, core.settings.max_key_bytes), value, policy))

    def set_many(self, values: Mapping[str, object], **options: Unpack[WriteOptions]) -> bool:
        """Store some values, each as ``set`` does; all are checked and encoded before any is stored.

        Args:
            values: the values by key. Up to 500 of them go to Redis in one script.
            **options: those of ``set``, in the same units, for each of the values.

        Returns:
            Whether Redis acknowledged all of them; see ``set``.

        Raises:
            InvalidKey, ConfigError, CodecError, ValueTooLarge, RemoteUnavailable, CacheClosed: as ``set``.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.set_many({"a": 1, "b": 2}, ttl=60), cache.get("b")
        (True, 2)
        """
        self._ready()
        policy = self._policy.over(options, STORING)
        return run_sync(write.store(self._core, self._checked_items(values), policy))

    def delete(self, *keys: str, hold: Duration | None = None) -> bool:
        """Delete some keys in Redis and in every L1.

        Args:
            *keys: the keys.
            hold: for so many seconds nobody's loaded value is kept: for loaders that read from a replica which lags.

        Returns:
            Whether Redis acknowledged; see ``set``, also for what it raises.

        Raises:
            InvalidKey, ConfigError: one of the keys is no key, or hold no duration; nothing was deleted.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.set("user:7", "Ada"), cache.delete("user:7", "user:8"), cache.get("user:7")
        (True, True, None)
        """
        self._ready()
        return run_sync(write.delete(self._core, [self._checked(key) for key in keys], self._hold_ms(hold)))

    def delete_existing(self, key: str) -> bool:
        """As ``delete`` for one key, and say whether it made a difference: of callers at one time, one is told True.

        Args:
            key: the key.

        Returns:
            Whether a living value was there, and Redis acknowledged.

        Raises:
            InvalidKey, RemoteUnavailable, CacheClosed: as ``delete``.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.set("user:7", "Ada"), cache.delete_existing("user:7"), cache.delete_existing("user:7")
        (True, True, False)
        """
        self._ready()
        return run_sync(write.delete_existing(self._core, self._checked(key)))

    def add(self, key: str, value: object, **options: Unpack[WriteOptions]) -> bool:
        """Store a value if there is no living one, decided by Redis: of callers in the whole fleet, one is told True.

        Args:
            key: the key.
            value: anything the codec carries.
            **options: those of ``set``, in the same units.

        Returns:
            True: it was stored. False: a living value or a hold (see ``delete``) is there; ``negative_ttl`` or
            ``condition`` turned the value down; an earlier write of the key has still to be replayed; or Redis did
            not answer. Then the value may have been stored all the same, until its ttl ends: nothing is journalled.

        Raises:
            InvalidKey, ConfigError, CodecError, ValueTooLarge: nothing was stored.
            RemoteUnavailable: Redis did not answer, with ``on_unavailable="raise"``.
            CacheClosed: after ``close``.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.add("job:7", "worker 1", ttl=30), cache.add("job:7", "worker 2", ttl=30), cache.get("job:7")
        (True, False, 'worker 1')
        """
        self._ready()
        policy = self._policy.over(options, STORING)
        return run_sync(atomic.add(self._core, self._checked(key), value, policy))

    def touch(self, key: str, ttl: Ttl | None = None) -> bool:
        """Give a living value a new ttl from now on, in Redis and in every L1, without sending the value.

        Args:
            key: the key. Its tags and stale windows stay.
            ttl: seconds, a timedelta, or a function of the value that gives it; None: the setting's.

        Returns:
            Whether there was a living value, and Redis acknowledged. If it did not, the ttl may be the new one all the
            same: nothing is journalled.

        Raises:
            InvalidKey, ConfigError: the key or ttl is none.
            RemoteUnavailable: Redis did not answer, with ``on_unavailable="raise"``.
            CacheClosed: after ``close``.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.touch("user:7", ttl=60), cache.set("user:7", "Ada", ttl=30), cache.touch("user:7", ttl=60)
        (False, True, True)
        """
        self._ready()
        return run_sync(atomic.touch(self._core, self._checked(key), self._policy.over({"ttl": ttl})))

    def incr(self, key: str, delta: int = 1, initial: int | None = 0, ttl: Ttl | None = None) -> int:
        """Add to a counter in Redis; ``get`` gives its number too, always from Redis.

        Args:
            key: the key. An int that was set without tags becomes a counter and keeps its ttl; whatever ends a value
                ends a counter as well.
            delta: what is added; a negative one is taken away.
            initial: what a counter that does not exist is taken for; None: it is a KeyError.
            ttl: of a counter that begins now, in seconds or as for ``touch``; later calls leave it alone.

        Returns:
            The new number.

        Raises:
            InvalidKey, ConfigError: the key, ttl, or a number is none.
            KeyError: there is no counter, and ``initial`` is None.
            CodecError: the key has a value of another type, or with tags.
            ValueTooLarge: the number would be 2**53 or more, or -2**53 or less; the counter stays as it is.
            RemoteUnavailable: Redis did not answer, or an earlier write of the key has still to be replayed. A counter
                can't do without Redis. It may have counted, and is not repeated: a repetition could count twice.
            CacheClosed: after ``close``.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.incr("hits"), cache.incr("hits", 10), cache.incr("hits", -1), cache.get("hits")
        (1, 11, 10, 10)
        """
        self._ready()
        flow = atomic.incr(
            self._core, self._checked(key), *check_counts(delta, initial), self._policy.over({"ttl": ttl})
        )
        return run_sync(flow)

    def mark_stale(self, *keys: str) -> bool:
        """Let the next read of some keys load, everywhere; else as ``delete``.

        The old value still serves where ``stale_if_error`` allows it, when that load fails.

        Args:
            *keys: the keys.

        Returns:
            Whether Redis acknowledged; see ``set``.

        Raises:
            InvalidKey, RemoteUnavailable, CacheClosed: as ``delete``.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.set("user:7", "Ada"), cache.mark_stale("user:7"), cache.get("user:7")
        (True, True, None)
        """
        self._ready()
        return run_sync(write.mark_stale(self._core, [self._checked(key) for key in keys]))

    def invalidate_tags(self, *tags: str, stale: bool = False) -> bool:
        """Drop everything that carries one of the tags, in Redis and in every L1; whether Redis acknowledged.

        With ``stale=True`` it does what ``mark_stale`` does, to all of these values: the next read of each loads, and
        the old value may serve if that fails (``stale_if_error``).

        >>> cache = NearCache.from_url("memory://")
        >>> cache.set("user:7", "Ada", tags=["users"]), cache.invalidate_tags("users"), cache.get("user:7")
        (True, True, None)
        """
        self._ready()
        checked = check_tags(tags, self._core.settings.max_key_bytes, None)
        return run_sync(write.invalidate_tags(self._core, checked, stale=stale))

    def explain(self, key: str) -> Explanation:
        """Where the value of a key stands, what a read would do now, and why; nothing is changed or counted.

        Args:
            key: the key.

        Returns:
            What both tiers know of it, without the value; print it. That Redis does not answer is part of it.

        Raises:
            InvalidKey: the key is no key.
            CacheClosed: after ``close``.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.set("user:7", "Ada", tags=["users"]), cache.explain("user:7").tier, cache.invalidate_tags("users")
        (True, 'l1', True)
        >>> cache.explain("user:7").left_l1
        'one of its tags was invalidated'
        """
        self._ready()
        from nearcache.engine.explain import explain  # noqa: PLC0415  # few need it

        return run_sync(explain(self._core, self._checked(key)))

    def clear(self) -> bool:
        """Drop everything in the namespace, in Redis and in every L1, in one step, however much there is.

        Returns:
            Whether Redis acknowledged; see ``set``.

        Raises:
            RemoteUnavailable: not acknowledged, with ``on_unavailable="raise"``.
            CacheClosed: after ``close``.

        >>> cache = NearCache.from_url("memory://")
        >>> cache.set("user:7", "Ada"), cache.clear(), cache.get("user:7")
        (True, True, None)
        """
        self._ready()
        return run_sync(write.clear(self._core))

    # --------------------------------------------------------------------------------------------- functions

    @overload
    def cached(self, target: Callable[P, T], /) -> CachedFunction[P, T]: ...
    @overload
    def cached(
        self, target: str | None = None, /, **options: Unpack[CachedOptions]
    ) -> Callable[[Callable[P, T]], CachedFunction[P, T]]: ...
    def cached(self, target: Any = None, /, **options: Any) -> Any:
        """Cache what a function returns, by its arguments.

        Args:
            target: a key template such as ``"user:{id}"``, which shows every parameter but self and cls; without one
                the key is made from module, qualified name and bound arguments. ``@cache.cached`` may stand bare.
            **options: those of ``get_or_set``, per call: ``ttl``, ``l1_ttl``, ``negative_ttl``, ``tags`` (templates
                too), ``condition``, ``copy``, ``stale_while_revalidate``, ``stale_if_error``, ``early_refresh``,
                ``xfetch_beta``, ``loader_soft_timeout``, ``loader_hard_timeout``, ``wait_timeout``, ``lease``. And
                ``ignore``: names of parameters that make no difference; ``version``: part of the key, for a function
                whose meaning changed; ``grouped``: give all its values a tag of their own, for ``invalidate_all``.

        Returns:
            The function, with ``invalidate``, ``refresh``, ``peek``, ``key`` (with its arguments), ``invalidate_all``,
            ``__wrapped__``.

        Raises:
            ConfigError, TypeError: an option is wrong; or two calls could share a key, see docs/keys.md.

        >>> cache = NearCache.from_url("memory://")
        >>> @cache.cached("square:{n}", ttl=60)
        ... def square(n: int) -> int:
        ...     return n * n
        >>> square(7), square.peek(7), square.key(7)
        (49, 49, 'square:7')
        """
        from nearcache.functions.cached import cached_sync  # noqa: PLC0415  # not every program decorates

        return cached_sync(self, target, **options)
