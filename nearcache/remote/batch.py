"""Reads of single keys that are asked at the same time go to Redis as one; once for threads, once for tasks.

Contract: ``read`` is Remote's. A read joins others only before they are sent, since its caller took a token just before
it asked: what was sent earlier may have run before a write that the token says is known (PROTOCOL.md, H). Each batch is
one request, and its failure reaches everybody in it, but is told to the breaker once. Whoever gives up (a cancellation,
a KeyboardInterrupt) harms none of the others.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Collection, Sequence
from typing import Protocol

from nearcache.ports import BATCH, NotSent, Reading, RemoteFailed

LEADERS = 4
"""Threads that fetch at the same time while hardly anybody waits."""
CROWD = 3
"""When so many threads wait, one fetches for all: more would only take the GIL from each other."""


class Read(Protocol):
    """Remote's ``read``."""

    async def __call__(self, keys: Sequence[str], *, with_floor: bool) -> Reading:
        """The records of some keys; with the floor, read after them, when asked."""
        ...


class Reads(Protocol):
    """Reads that may go as one."""

    async def read(self, keys: Sequence[str], *, with_floor: bool) -> Reading:
        """See Remote."""
        ...


class TaskReads:
    """The reads of one turn of the loop go as one, when it ends; one that is alone goes as it is.

    Whoever comes first waits for the end of the turn. If others have come meanwhile, a task asks for all of them: no
    caller's own, so that none takes the others along when it is cancelled.
    """

    def __init__(self, read: Read) -> None:
        self._read = read
        self._gathering: list[_Asked] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def read(self, keys: Sequence[str], *, with_floor: bool) -> Reading:
        """See Remote."""
        if len(keys) != 1:
            return await self._read(keys, with_floor=with_floor)
        others = self._gathering
        if others is None:
            others = self._gathering = []
            try:
                await asyncio.sleep(0)
                if not others:
                    self._gathering = None
                    return await self._read(keys, with_floor=with_floor)
                asked = _Asked(keys[0], with_floor)
                others.append(asked)
            finally:
                self._close(others)
        else:
            asked = _Asked(keys[0], with_floor)
            others.append(asked)
            if len(others) == BATCH - 1:  # and the first one
                self._gathering = None
        return await asked.answer

    def _close(self, batch: list[_Asked]) -> None:
        """Nobody joins any more; send it, if anybody waits for it."""
        if self._gathering is batch:
            self._gathering = None
        if batch:
            task = asyncio.get_running_loop().create_task(self._send(batch), name="nearcache-read")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _send(self, batch: list[_Asked]) -> None:
        batch = [asked for asked in batch if not asked.answer.done()]  # cancelled before it was sent
        if not batch:
            return
        with_floor = any(asked.with_floor for asked in batch)
        try:
            reading = await self._read([asked.key for asked in batch], with_floor=with_floor)
        except BaseException as failure:
            # Nobody cancels this task but the end of the loop.
            told = failure if isinstance(failure, RemoteFailed) else NotSent(f"not read: {type(failure).__name__}")
            for asked in batch:
                if not asked.answer.done():
                    asked.answer.set_exception(told)
                    told = told.again()
            if not isinstance(failure, RemoteFailed):
                raise
            return
        floor = reading.floor
        for asked, record in zip(batch, reading.records, strict=True):
            if not asked.answer.done():
                asked.answer.set_result(Reading((record,), floor))


class _Asked:
    """One task's read."""

    __slots__ = ("answer", "key", "with_floor")

    def __init__(self, key: str, with_floor: bool) -> None:
        self.key = key
        self.with_floor = with_floor
        self.answer: asyncio.Future[Reading] = asyncio.get_running_loop().create_future()


class ThreadReads:
    """Threads that fetch take along what others wait for.

    A thread that comes while few fetch leads: it fetches what waits, its own key first, and then wakes the next leader
    before those it has fetched for. The others wait, each at a lock of its own. Nobody leads twice for one read.

    The lock here is held for a few lines, never over I/O. An interrupt may take a leader away between any two of them,
    so nobody waits without end: who has waited for ``patience`` in vain gives up, and forgets whoever seems to lead.

    Args:
        read: how a batch is read.
        leaders: how many may fetch at the same time.
        patience: seconds that a read may take.
    """

    def __init__(self, read: Read, *, leaders: int = LEADERS, patience: float = 60.0) -> None:
        self._read = read
        self._seats = leaders
        self._patience = patience
        self._lock = threading.Lock()
        self._leaders: set[_Reader] = set()
        self._waiting: deque[_Reader] = deque()

    async def read(self, keys: Sequence[str], *, with_floor: bool) -> Reading:
        """See Remote; never suspends."""
        if len(keys) != 1:
            return await self._read(keys, with_floor=with_floor)
        me = _Reader(keys[0], with_floor)
        try:
            leads = self._enter(me) or self._wait(me)
            if leads and not me.led:  # as most are
                me.outcome = await self._read(keys, with_floor=with_floor)
            elif leads:
                await self._lead(me)
        except RemoteFailed:
            me.failed = True
            raise
        finally:
            self._leave(me)
        outcome = me.outcome
        if isinstance(outcome, Reading):
            return outcome
        assert outcome is not None  # noqa: S101  # whoever leaves has one
        raise outcome

    def _enter(self, me: _Reader) -> bool:
        """Take a leader's seat, or a place in the queue; whether it leads."""
        with self._lock:
            if len(self._leaders) < (self._seats if len(self._waiting) < CROWD else 1):
                self._leaders.add(me)
                if self._waiting:
                    self._take_along(me)
                return True
            me.wake = threading.Lock()
            me.wake.acquire()
            self._waiting.append(me)
            return False

    def _wait(self, me: _Reader) -> bool:
        """Wait for an answer, or for the lead; whether it leads."""
        if not me.wake.acquire(timeout=self._patience):
            with self._lock:
                self._leaders.clear()
                me.outcome = me.outcome or NotSent("who read for this one did not come back in time")
        if me.outcome is not None:
            return False
        with self._lock:
            self._take_along(me)
        return True

    def _take_along(self, me: _Reader) -> None:
        """Everybody who waits now is read for by this one; from here on nobody joins."""
        me.led = led = self._waiting
        self._waiting = deque()
        while len(led) > BATCH - 1:
            self._waiting.appendleft(led.pop())

    async def _lead(self, me: _Reader) -> None:
        """Read for all."""
        batch = (me, *me.led)
        with_floor = any(one.with_floor for one in batch)
        try:
            reading = await self._read([one.key for one in batch], with_floor=with_floor)
        except RemoteFailed as failure:
            for one in me.led:
                one.outcome = failure.again()
            raise
        floor = reading.floor
        for one, record in zip(batch, reading.records, strict=True):
            one.outcome = Reading((record,), floor)

    def _leave(self, me: _Reader) -> None:
        """Hand over: wake the next leader first, then who was led. What an interrupt left undone is the next one's."""
        with self._lock:
            self._leaders.discard(me)
            if me.outcome is not None and not (me.led or self._waiting):  # as for most
                return
            if me.outcome is None:
                me.outcome = NotSent("it failed, or was interrupted")  # nobody waits for it any more
            if me in self._waiting:
                self._waiting.remove(me)
            ended = [one for one in me.led if one.outcome is not None]
            self._waiting.extendleft([one for one in reversed([*me.led]) if one.outcome is None])
            if me.failed:  # what made this one wait in vain would do so to the others, one after the other
                for one in self._waiting:
                    one.outcome = NotSent("the read before this one failed")
                ended += self._waiting
                self._waiting.clear()
            leader = None
            if self._waiting and len(self._leaders) < (self._seats if len(self._waiting) < CROWD else 1):
                leader = self._waiting.popleft()
                self._leaders.add(leader)
        if leader is not None:
            leader.wake.release()
        for one in ended:
            one.wake.release()


class _Reader:
    """One thread's read."""

    wake: threading.Lock
    """Locked while there is nothing to do; only those who wait have one."""
    outcome: Reading | RemoteFailed | None = None
    led: Collection[_Reader] = ()
    """Whom it reads for."""
    failed = False

    def __init__(self, key: str, with_floor: bool) -> None:
        self.key = key
        self.with_floor = with_floor
