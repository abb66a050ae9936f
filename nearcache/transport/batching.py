"""Reads of single keys that are asked at the same time go to Redis as one; once for threads, once for tasks.

Contract: ``read_one`` is Remote's. A read joins others only before they are sent, since its caller took a snapshot
just before it asked: what was sent earlier may have run before a write that the snapshot says is known
(docs/protocol.md, H). Each batch is one request, and its failure reaches everybody in it, but is reported to the
breaker once. The caller that asks for a batch also calls everybody's ``take``, one after the other: that is much
quicker than if each had its turn for it. A caller that gives up (a cancellation, a KeyboardInterrupt) harms none of the
others.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Sequence
from threading import get_ident
from typing import Any, Protocol, TypeVar

from nearcache.engine.ports import NotSent, RemoteFailed
from nearcache.protocol.answers import BATCH, Reading, Take

T = TypeVar("T")

FEW = 2
"""So many threads read each for itself. When there are more, one reads for all: others would only wait for the GIL."""


class Read(Protocol):
    """Remote's ``read``."""

    async def __call__(self, keys: Sequence[str], *, with_floor: bool) -> Reading:
        """The records of some keys; with the floor, read after them, when asked."""
        ...


class Reads(Protocol):
    """Reads that may go as one."""

    async def read_one(self, key: str, *, with_floor: bool, take: Take[T]) -> T:
        """See Remote."""
        ...


class LoneReads:
    """Every read goes by itself."""

    def __init__(self, read: Read) -> None:
        self._read = read

    async def read_one(self, key: str, *, with_floor: bool, take: Take[T]) -> T:
        """See Remote."""
        (record,), floor = await self._read((key,), with_floor=with_floor)
        return take(record, floor)


class TaskReads(LoneReads):
    """The reads of one turn of the loop go as one, when it ends; one that is alone goes as it is.

    Whoever comes first waits for the end of the turn. If others have come meanwhile, a task asks for all of them: no
    caller's own, so that none takes the others along when it is cancelled.
    """

    def __init__(self, read: Read) -> None:
        super().__init__(read)
        self._gathering: list[_Asked] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def read_one(self, key: str, *, with_floor: bool, take: Take[T]) -> T:
        """See Remote."""
        others = self._gathering
        if others is None:
            others = self._gathering = []
            try:
                await asyncio.sleep(0)
                if not others:
                    self._gathering = None
                    return await super().read_one(key, with_floor=with_floor, take=take)
                asked = _Asked(key, with_floor, take)
                others.append(asked)
            finally:
                self._close(others)
        else:
            asked = _Asked(key, with_floor, take)
            others.append(asked)
            if len(others) == BATCH - 1:  # and the first one
                self._gathering = None
        taken: T = await asked.answer
        return taken

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
        for asked, record in zip(batch, reading.records, strict=True):
            if not asked.answer.done():
                try:
                    asked.answer.set_result(asked.take(record, reading.floor))
                except Exception as error:  # noqa: BLE001  # its own caller's, and nobody else's
                    asked.answer.set_exception(error)


class _Asked:
    """One task's read."""

    __slots__ = ("answer", "key", "take", "with_floor")

    def __init__(self, key: str, with_floor: bool, take: Take[Any]) -> None:
        self.key = key
        self.with_floor = with_floor
        self.take = take
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


class ThreadReads(LoneReads):
    """A few threads read each for itself; of more, one reads for all who wait.

    A thread that comes into a crowd which has a leader waits, at a lock of its own. Else it leads: it reads what waits
    along with its own key, and then wakes the next leader and the first of those whom it has read for. Each of them
    wakes the next: all at once they would only wait once more, for the GIL. Nobody leads twice for one read.

    The lock here is held for a few lines, never over I/O. An interrupt may take a leader away between any two of them,
    so nobody waits without end: who has waited for ``patience`` in vain gives up, and forgets whoever seems to lead.
    A signal handler or a finaliser may read on a thread that is in the middle of its own read: that one goes alone,
    and waits for nothing here.

    Args:
        read: how a batch is read.
        few: so many threads are no crowd.
        patience: seconds that a read may take.
    """

    def __init__(self, read: Read, *, few: int = FEW, patience: float = 60.0) -> None:
        super().__init__(read)
        self._few = few
        self._patience = patience
        self._lock = threading.Lock()
        self._inside: set[int] = set()
        """The threads that read now."""
        self._leader: _Reader | None = None
        self._waiting: deque[_Reader] = deque()

    async def read_one(self, key: str, *, with_floor: bool, take: Take[T]) -> T:
        """See Remote; never suspends."""
        thread, inside = get_ident(), self._inside
        if thread in inside:
            return await super().read_one(key, with_floor=with_floor, take=take)
        try:
            inside.add(thread)
            if len(inside) > self._few:
                taken: T = await self._read_in_a_crowd(_Reader(key, with_floor, take))
                return taken
            (record,), floor = await self._read((key,), with_floor=with_floor)
            return take(record, floor)
        finally:
            inside.discard(thread)

    async def _read_in_a_crowd(self, me: _Reader) -> Any:
        try:
            if self._enter(me) or self._wait(me):
                await self._lead(me)
        finally:
            self._leave(me)
        if me.error is not None:
            raise me.error
        return me.taken

    def _enter(self, me: _Reader) -> bool:
        """Take the lead, or a place in the queue; whether it leads."""
        with self._lock:
            if self._leader is None:
                self._leader = me
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
                self._leader = None
                if not me.done:
                    me.end(NotSent("who read for this one did not come back in time"))
        if me.done:
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
        try:
            reading = await self._read([one.key for one in batch], with_floor=any(one.with_floor for one in batch))
        except RemoteFailed as failure:
            me.failed = True
            me.end(failure)
            for one in me.led:
                one.end(failure.again())
            return
        for one, record in zip(batch, reading.records, strict=True):
            try:
                one.taken = one.take(record, reading.floor)
            except Exception as error:  # noqa: BLE001  # its own caller's, and nobody else's
                one.error = error
            one.done = True

    def _leave(self, me: _Reader) -> None:
        """Hand over: wake the next leader first, then who was led. What an interrupt left undone is the next one's."""
        with self._lock:
            me.gone = True
            leader, first = None, me.next
            if me.led or not me.done or self._leader in (me, None):
                leader, first = self._hand_over(me)
        if leader is not None:
            leader.wake.release()
        if first is not None:
            first.wake.release()

    def _hand_over(self, me: _Reader) -> tuple[_Reader | None, _Reader | None]:
        """The next leader, and the first of those who are to be woken one by the other."""
        if me in self._waiting:
            self._waiting.remove(me)
        ended = [one for one in me.led if one.done and not one.gone]
        self._waiting.extendleft(
            [one for one in reversed(me.led) if not (one.done or one.gone or one in self._waiting)]
        )
        if me.failed:  # what made this one wait in vain would do so to the others, one after the other
            for one in self._waiting:
                one.end(NotSent("the read before this one failed"))
            ended += self._waiting
            self._waiting.clear()
        following = me.next
        for one in reversed(ended):
            one.next, following = following, one
        if self._leader is not me and self._leader is not None:
            return None, following
        self._leader = self._waiting.popleft() if self._waiting else None
        return self._leader, following


class _Reader:
    """One thread's read."""

    wake: threading.Lock
    """Locked while there is nothing to do; only those who wait have one."""
    taken: Any = None
    error: BaseException | None = None
    done = False
    """Whether ``taken`` or ``error`` says how it ended."""
    failed = False
    """Whether it led, and Redis did not answer."""
    gone = False
    """Whether its thread waits no more: nobody else is woken by it."""
    led: deque[_Reader] | tuple[()] = ()
    """Whom it reads for."""
    next: _Reader | None = None
    """Whom it wakes when it was read for."""

    def __init__(self, key: str, with_floor: bool, take: Take[Any]) -> None:
        self.key = key
        self.with_floor = with_floor
        self.take = take

    def end(self, failure: RemoteFailed) -> None:
        """It failed."""
        self.error = failure
        self.done = True
