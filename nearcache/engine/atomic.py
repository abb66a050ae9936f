"""add, touch, incr: operations whose answer depends on what is there, decided by one script each.

They are neither repeated nor journalled, and each carries a deadline: a replay as a delete would give a lock away a
second time, and lose what others have counted (docs/protocol.md, AA). Whether a value is alive is judged here, as for a
load, since the floors of its tags are known here; the script compares the head of the record that was judged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from nearcache.engine import alone
from nearcache.engine.alone import not_a_counter, out_of_range
from nearcache.engine.core import Core
from nearcache.engine.plain import Read
from nearcache.engine.ports import NotSent, RemoteFailed
from nearcache.engine.read import fetch
from nearcache.engine.requests import Operation
from nearcache.errors import CodecError, RemoteUnavailable, ValueTooLarge
from nearcache.policy import Policy
from nearcache.protocol.answers import Absent, OutOfRange, Present, Written
from nearcache.protocol.records import COUNTER, NUMBER_MAX, fresh_until_of

T = TypeVar("T")

TRIES = 5
"""How often a record is judged, while others replace it."""


async def add(core: Core, key: str, value: object, policy: Policy) -> bool:
    """Store a value unless a living one, or a hold, is there; whether it was stored.

    Raises:
        CodecError, ValueTooLarge: nothing was stored.
        RemoteUnavailable: Redis did not answer, with ``on_unavailable="raise"``.
    """
    if core.parts:
        core = core.of(key)
    encoded = core.entries.encode(key, value, policy)
    if encoded is None:
        return False
    if core.alone:
        return await alone.add(core, encoded, policy)

    async def send(found: Read) -> bool | None:
        dead = judged_dead(core, found)
        answer = await _once(core, key, Operation.ADD, partial(core.remote.add, encoded, dead, policy.tags))
        if not isinstance(answer, Written):  # a value that seems to have ended here, and not there, is alive
            return None if isinstance(answer, Present) and dead == found.head else False
        core.requests.wrote(answer)
        core.tier.put(key, core.entries.of_write(encoded, answer, policy), found.snapshot, own=True)
        return True

    # At first the key is taken for absent, which it is for a lock that is free.
    added = await _decide(core, key, lambda found: False if found.alive else None, send, Read(key, core.policy))
    return _acknowledged(core, added)


def judged_dead(core: Core, found: Read) -> bytes:
    """The head of a record that is dead for another reason than its end, which the script judges by its own clock.

    A's estimate of the server's clock is ahead · B has a lock for one millisecond more · A judges it dead, adds: both
    have it.
    """
    ends = fresh_until_of(found.head)
    return b"" if 0 < ends <= core.requests.server_now() else found.head


async def touch(core: Core, key: str, policy: Policy) -> bool:
    """Give a living value a new ttl everywhere; whether there was one, and Redis acknowledged.

    Raises:
        ConfigError: ``ttl`` is a function that raises, or gives no ttl for this value.
        RemoteUnavailable: Redis did not answer, with ``on_unavailable="raise"``.
    """
    if core.parts:
        core = core.of(key)
    if core.alone:
        return alone.touch(core, key, policy)

    async def send(found: Read) -> bool | None:
        ttl_ms = core.entries.ttl_ms(key, found.value, policy)
        if found.entry is None or ttl_ms is None:  # negative_ttl: what would not be stored is not kept longer either
            return False
        ask = partial(core.remote.touch, key, found.head, ttl_ms, found.entry.tags)
        answer = await _once(core, key, Operation.TOUCH, ask)
        if isinstance(answer, Present):
            return None
        core.requests.wrote(answer)
        core.tier.wrote(key, answer.version, found.snapshot.epoch)
        return True

    touched = await _decide(core, key, lambda found: None if found.alive else False, send)
    return _acknowledged(core, touched)


async def incr(core: Core, key: str, delta: int, initial: int | None, policy: Policy) -> int:
    """Add to a counter everywhere, and return its new number.

    Raises:
        KeyError: there is none, and no initial number.
        CodecError: the key has a living value that is no counter, and no number without tags that was set.
        ConfigError: ``ttl`` is a function that raises, or gives no ttl for the initial number.
        RemoteUnavailable: Redis did not answer; whether it counted is unknown.
        ValueTooLarge: the number would leave the range.
    """
    core = core.of(key)
    ttl_ms = 1 if initial is None else core.entries.ttl_ms(key, initial + delta, policy)
    assert ttl_ms is not None  # noqa: S101  # neither a condition nor None turns it down
    if core.alone:
        return await alone.incr(core, key, delta, initial, ttl_ms)

    async def send(found: Read) -> int | Absent | OutOfRange | None:
        was = found.value if found.alive and found.head[0] != COUNTER else None
        ask = partial(core.remote.incr, key, delta, initial, ttl_ms, found.head, was=was)
        answer = await _once(core, key, Operation.INCR, ask)
        if isinstance(answer, Present):
            return None
        if isinstance(answer, Absent | OutOfRange):
            return answer
        core.requests.wrote(answer.written)
        core.tier.wrote(key, answer.written.version, found.snapshot.epoch)
        return answer.total

    def judge(found: Read) -> OutOfRange | None:
        if not found.alive or found.head[0] == COUNTER:
            return None
        if type(found.value) is not int or found.entry is None or found.entry.tags:
            raise CodecError(not_a_counter(key))
        return OutOfRange() if abs(found.value) >= NUMBER_MAX else None

    count = await _decide(core, key, judge, send, Read(key, core.policy))
    if isinstance(count, RemoteFailed):
        raise RemoteUnavailable(f"{key!r} was not counted: {count}; {_outcome(count)}")
    if isinstance(count, int):
        return count
    raise KeyError(key) if isinstance(count, Absent) else ValueTooLarge(out_of_range(key, delta))


async def _decide(
    core: Core,
    key: str,
    judge: Callable[[Read], T | None],
    send: Callable[[Read], Awaitable[T | None]],
    found: Read | None = None,
) -> T | RemoteFailed:
    """Judge what L2 has of a key, and send; again if another record has come between.

    Args:
        core: the cache.
        key: the key.
        judge: from what was found to the answer, if that is known already; None: send.
        send: sends, and gives the answer; None: there is another record.
        found: what the first try takes for granted; None: it reads.

    Returns:
        The answer, or why there is none.
    """
    if core.requests.denied is not None:
        return NotSent(core.requests.denied)
    try:
        for _ in range(TRIES):
            decided = None
            if found is None:
                found = await fetch(core, key, core.policy)
                if found.failure is not None:
                    return found.failure
                decided = judge(found)
            else:
                found.snapshot = core.tier.snapshot(key)
            if not found.snapshot.trusted:  # its replay would delete what is written now, and a lock be given twice
                raise NotSent("an earlier write of the key has still to be replayed")
            if decided is not None:
                return decided
            answer = await send(found)
            if answer is not None:
                return answer
            found = None
        raise NotSent(f"others have replaced the value {TRIES} times meanwhile")
    except RemoteFailed as failure:
        return failure


async def _once(core: Core, key: str, operation: Operation, ask: Callable[[int], Awaitable[T]]) -> T:
    """Ask Redis for something that is not repeated. When its outcome is unknown, L1 forgets the key.

    Args:
        core: the cache.
        key: the key.
        operation: what is asked.
        ask: sends it with a deadline, in the server's time.

    Raises:
        RemoteFailed: there is no answer.
    """

    async def send() -> T:
        if not core.remote.now():
            await core.remote.connect()
        return await ask(core.requests.deadline())

    try:
        return await core.requests.ask(operation, send)
    except NotSent:
        raise
    except BaseException:
        core.tier.unknown(key)
        raise


def _acknowledged(core: Core, answer: bool | RemoteFailed) -> bool:
    if not isinstance(answer, RemoteFailed):
        return answer
    if core.settings.on_unavailable == "raise":
        raise RemoteUnavailable(f"not acknowledged: {answer}; {_outcome(answer)}")
    return False


def _outcome(failure: RemoteFailed) -> str:
    return "nothing was sent" if isinstance(failure, NotSent) else "Redis may have done it, and it is not repeated"
