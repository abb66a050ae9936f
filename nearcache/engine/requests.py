"""Requests to Redis: each needs the permission of the breaker, which is notified of the result."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import ParamSpec, TypeVar

from nearcache.counters import Counters
from nearcache.engine.breaker import Breaker
from nearcache.engine.ports import Bus, NotSent, Remote, RemoteFailed, RemoteTimeout, Runtime
from nearcache.events import Accepted, BreakerClosed, BreakerOpened, Event, Refused
from nearcache.local.invalidation import Invalidation
from nearcache.local.tier import Tier
from nearcache.protocol.answers import Granted, Written
from nearcache.settings import Settings

P = ParamSpec("P")
T = TypeVar("T")


class Operation(Enum):
    """An operation on Redis. Its value is the public word of the call that needs it, which events and health show."""

    GET = "get"
    LEASE = "get_or_set (lease)"
    FILL = "get_or_set (fill)"
    ABORT = "get_or_set (abort)"
    SET = "set"
    ADD = "add"
    TOUCH = "touch"
    INCR = "incr"
    DELETE = "delete"
    MARK_STALE = "mark_stale"
    INVALIDATE_TAGS = "invalidate_tags"
    CLEAR = "clear"
    PROBE = "probe"


_STORING = frozenset({Operation.FILL, Operation.SET, Operation.ADD})
"""Operations whose acknowledgement says that a value was stored."""


@dataclass(slots=True, eq=False)
class Requests:
    """Sends the requests of one cache, but none while the breaker is open or another protocol keeps the namespace."""

    settings: Settings
    runtime: Runtime
    remote: Remote
    tier: Tier
    invalidation: Invalidation
    breaker: Breaker
    counters: Counters
    emit: Callable[[Event], None]
    bus: Bus | None = None
    """The subscribed connection, or the last one there was."""
    bypassed: bool = False
    """Whether Redis is not asked, and L1 not filled: the namespace is kept by another protocol, or this is a copy that
    a fork left behind. Only a proof ends it; a close does not, or the journal would be replayed into that namespace."""

    denied: str | None = None
    """Which right the user lacks: then nothing is written."""
    batch_timeouts: int = 0
    """Timeouts of requests for several keys."""
    batch_size: int = 0
    """How many keys the last one of these had."""
    greeting_due: bool = False
    """Whether a record was found above the counter, which has to begin anew above it."""

    _longest: int = field(init=False)
    """µs that a request may take."""

    def __post_init__(self) -> None:
        self._longest = int((self.settings.redis_timeout + self.settings.redis_connect_timeout) * 1e6)
        self.remote.may_repeat = lambda: self.breaker.sends

    async def ask(
        self, operation: Operation, method: Callable[P, Awaitable[T]], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Ask Redis, unless the breaker is open.

        Raises:
            RemoteFailed: it was not asked (NotSent), or did not answer as it should.
        """
        breaker = self.breaker
        if self.bypassed or not breaker.sends:
            self.permit()
        try:
            answer = await method(*args, **kwargs)
        except RemoteFailed as failure:
            self.failed(failure, operation, len(args[0]) if args and isinstance(args[0], list) else 1)
            raise
        if breaker.failures or breaker.refused or not breaker.sends:
            self.answered(operation, answer)
        return answer

    def permit(self) -> None:
        """Raise NotSent if Redis is not to be asked now: the breaker is open, and this is no try, or ``bypassed``."""
        if self.bypassed:
            raise NotSent("the namespace is kept by another protocol")
        if not self.breaker.permit(self.runtime.monotonic()):
            raise NotSent("Redis is left alone for a while after failures")

    def answered(self, operation: Operation, answer: object) -> None:
        """Redis answered: the breaker may close, and a refused operation may be accepted again."""
        if self.breaker.ok():
            self.emit(BreakerClosed())
        if self.breaker.refused:
            self._accepted(operation, answer)

    def failed(self, failure: RemoteFailed, operation: Operation, keys: int = 1) -> None:
        """Count a failure, and open the breaker when it is one too many; an error reply is a refusal."""
        timeout = isinstance(failure, RemoteTimeout)
        if timeout and keys > 1:
            self.batch_timeouts += 1
            self.batch_size = keys
        if failure.counted:
            return
        self.counters.failed(failure.code or ("timeout" if timeout else "connection"))
        if failure.answered:
            if self.breaker.ok():
                self.emit(BreakerClosed())
            self.refuse(operation, failure)
        elif self.breaker.failed(timeout=timeout, now=self.runtime.monotonic()):
            self.breaker.reason = str(failure)
            self.emit(BreakerOpened(str(failure)))

    def refuse(self, operation: Operation, failure: RemoteFailed) -> None:
        """Redis refuses an operation: report it once, until it refuses none."""
        if self.breaker.refuse(operation.value, failure.code):
            self.emit(Refused(operation.value, str(failure)))
        if failure.code == "READONLY":  # no primary any more: connecting anew finds out where the new one is
            self.remote.discard_idle()
            if self.bus is not None:
                self.bus.interrupt()

    def _accepted(self, operation: Operation, answer: object) -> None:
        answers = answer if isinstance(answer, list) else [answer]
        written = [one for one in answers if isinstance(one, Written)]
        wrote = bool(written)
        stored = any(isinstance(one, Granted) for one in answers) or (wrote and operation in _STORING)
        name = operation.value
        if not all(one.stored for one in written):  # memory is full: a set became a delete
            name, stored = "", False
        elif operation is Operation.LEASE and not stored:  # a lease that is not given writes nothing
            return
        if self.breaker.accept(name, wrote=wrote, stored=stored):
            self.emit(Accepted())

    # -------------------------------------------------------------------------------------------- the server's clock

    def server_now(self) -> int:
        """The server's time in µs, by the bus while it is synced, else by the newest command connection."""
        if self.tier.synced:
            return int((self.runtime.monotonic() + self.invalidation.server_offset) * 1e6)
        return self.remote.now()

    def offset(self, now: float) -> float:
        """The server's clock minus ours in seconds, by the same clock as ``server_now``; ``now``: monotonic seconds."""
        return self.invalidation.server_offset if self.tier.synced else self.remote.now() / 1e6 - now

    def earliest_now(self) -> int:
        """The server's time in µs, by the clock that is behind.

        Each estimate is at most too large. A write of unknown outcome is replayed once its deadline has passed by this
        clock; each heartbeat measures it anew, so that a server whose clock was set back does not delay the replay.
        """
        told = self.remote.now()
        if not self.tier.synced:
            return told
        heard = int((self.runtime.monotonic() + self.invalidation.server_offset) * 1e6)
        return min(heard, told or heard)

    def deadline(self) -> int:
        """Server time (µs) after which the server must refuse a set, or a lease, that is sent now (E)."""
        now = self.remote.now()
        if self.tier.synced:  # as ``earliest_now``, a call less
            heard = int((self.runtime.monotonic() + self.invalidation.server_offset) * 1e6)
            now = min(heard, now or heard)
        return now + self._longest

    def wrote(self, written: Written) -> None:
        """A write was acknowledged: the bus has to bring its message, too."""
        self.counters.invalidations_sent += 1
        self.invalidation.expect(written, self.runtime.monotonic())
