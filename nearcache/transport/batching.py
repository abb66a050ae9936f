"""Batches of single reads: those that threads, or tasks, ask for at the same time are sent as one request.

Contract: ``read_one`` is the Core's. A read joins a batch only before the batch is sent; the snapshots of all are taken
then, and the caller that sends it judges and puts for all (H). A batch is one request, and so is its failure. A caller
that is interrupted, by a cancellation or a KeyboardInterrupt, does not harm the others.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Awaitable, Sequence
from itertools import pairwise
from threading import get_ident
from time import monotonic
from typing import Any, TypeAlias, cast

from nearcache.engine.core import Core
from nearcache.engine.plain import Batch, LoneReads, Read, ReadAll
from nearcache.engine.ports import MISSING, NotSent, RemoteFailed
from nearcache.engine.read import settle
from nearcache.local.interrupts import make_lock
from nearcache.policy import Policy
from nearcache.protocol.answers import BATCH

FEW = 2
"""Up to this number of threads, each reads for itself. Above it one reads for all: others would wait for the GIL."""

Asked: TypeAlias = "tuple[str, Policy, asyncio.Future[Any], Read | None]"
"""What one task asks for, what wakes it, and what gets the result; None: it is told the value."""


class TaskReads(LoneReads):
    """The reads of one turn of the loop are sent as one batch when the turn ends; a single read is sent as it is.

    The first caller waits for the end of the turn. If others have joined it, a task of its own sends the batch, so that
    the cancellation of one caller does not cancel the batch. When none has joined, the next one does not wait: to wait
    costs a lone reader a turn of the loop.
    """

    finds = True

    def __init__(self, core: Core) -> None:
        self._core = core
        self._gathering: list[Asked] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._crowded = False
        """Whether others joined the last caller that waited for them."""
        self._alone = False
        """Whether a read that did not wait is under way."""

    def enter(self) -> bool:
        if self._crowded or self._alone or self._gathering is not None:
            return False
        self._alone = True
        return True

    def leave(self) -> None:
        self._alone = False

    def read_one(self, read: Read) -> Awaitable[Any]:
        return self.find(read.key, read.policy, read)

    def find(self, key: str, policy: Policy, read: Read | None = None) -> Awaitable[Any]:
        batch = self._gathering
        if batch is None:
            return self._begin(key, policy, read, asyncio.get_running_loop())
        answer: asyncio.Future[Any] = self._loop.create_future()  # type: ignore[union-attr]  # set with the batch
        batch.append((key, policy, answer, read))
        if len(batch) == BATCH:
            self._gathering = None
        return answer

    async def _begin(self, key: str, policy: Policy, read: Read | None, loop: asyncio.AbstractEventLoop) -> Any:
        """Wait for the end of the turn, then do the read, or let it be done along with those that have come."""
        answer: asyncio.Future[Any] = loop.create_future()
        self._loop = loop
        self._gathering = batch = [(key, policy, answer, read)]
        try:
            await asyncio.sleep(0)
        except BaseException:
            answer.cancel()
            raise
        finally:
            if self._gathering is batch:
                self._gathering = None
            self._crowded = len(batch) > 1
            if self._crowded:
                task = loop.create_task(self._send(batch), name="nearcache-read")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        if not self._crowded:
            await self._send(batch)
        return await answer

    async def _send(self, asked: list[Asked]) -> None:
        asked = [one for one in asked if not one[2].done()]  # without those cancelled meanwhile
        if not asked:
            return
        keys, policies, answers, reads = zip(*asked, strict=True)
        batch = Batch(self._core, keys, policies)
        try:
            await batch.read()
            if None in batch.entries:
                await self._settle(batch, answers, reads)
        except BaseException as failure:  # as the cancellation at the end of the loop
            batch.fail(NotSent(f"not read: {type(failure).__name__}"))
            raise
        finally:
            for at, (answer, read, value) in enumerate(zip(answers, reads, batch.values, strict=True)):
                if not answer.done():
                    if read is not None:
                        batch.fill(at, read)
                    answer.set_result(value)

    async def _settle(self, batch: Batch, answers: Sequence[asyncio.Future[Any]], reads: Sequence[Read | None]) -> None:
        """Judge what is not plain for those that ask for values. The other tasks go on before."""
        left: dict[int, Read] = {}
        for at, (answer, read, value) in enumerate(zip(answers, reads, batch.values, strict=True)):
            if read is None and type(value) is Read:
                left[at] = value
            elif not answer.done():
                if read is not None:
                    batch.fill(at, read)
                self._core.counters.misses += value is MISSING and read is None
                answer.set_result(value)
        await settle(self._core, list(left.values()))
        for at, settled in left.items():
            batch.values[at] = settled.value
            self._core.counters.misses += settled.value is MISSING


class _Reader(Read):
    """The read of one thread."""

    # As those of Read, attributes of the class hold until they are set.
    wake: threading.Lock
    """Locked until the thread shall go on; only a thread that waits has one."""
    done = False
    """Whether the read has ended."""
    failed = False
    """Whether it led, and the request failed."""
    waited = 0.0
    """Seconds that it waited before it led."""
    gone = False
    """Whether its thread has left: it wakes no other."""
    led: deque[_Reader] | tuple[()] = ()
    """The reads that it does as a leader."""
    next: _Reader | None = None
    """The read whose thread it wakes."""

    def forget(self) -> None:
        """Forget what was read: its leader was interrupted, and it will be read again."""
        self.raw = self.bounds = self.entry = self.failure = None
        self.value, self.judged = MISSING, False

    def end(self, failure: RemoteFailed) -> None:
        """End the read with a failure."""
        self.failure = failure
        self.done = True


class ThreadReads(LoneReads):
    """A few threads read each for itself; with more, a leader reads for all that wait.

    A thread that finds a leader waits at a lock of its own. Otherwise it leads: it reads the keys of all that wait and
    its own, and then wakes the first of the threads that it has read for. Each of these wakes the next one: woken all
    at once, they would wait again, for the GIL. The last one is the leader meanwhile, and wakes the first of those that
    wait by then. So the threads that come back with their next keys go as one request again, and not one by one. No
    thread leads twice for one read.

    A thread waits for its turn for at most ``turn`` seconds. Then it leads, for all that wait, beside the leader before
    it: a slow server would else take the time of two requests for each read.

    The lock here is held for a few lines, never over I/O. An interrupt may end a thread between any two of them, and
    so break the chain: a thread looks every ``turn`` seconds whether its read is done, and gives up after ``patience``,
    which removes the present leader. A signal handler or a finaliser may read on a thread that is in the middle of its
    own read: that read is a request of its own and waits for no other.

    Args:
        read_all: reads a batch.
        few: the number of threads that read each for itself.
        turn: seconds that a read waits before it is sent.
        patience: seconds that a read may take.
    """

    new = _Reader

    def __init__(self, read_all: ReadAll, *, few: int = FEW, turn: float = 60.0, patience: float = 60.0) -> None:
        self._read_all = read_all
        self._few = few
        self._turn = turn
        self._patience = patience
        self._lock = make_lock()
        self._inside: set[int] = set()
        """The threads that are reading."""
        self._leader: _Reader | None = None
        """The newest leader, or the last of the chain that it has begun: it appoints the next one."""
        self._waiting: deque[_Reader] = deque()

    def enter(self) -> bool:
        thread, inside = get_ident(), self._inside
        if thread in inside or len(inside) >= self._few:
            return False
        inside.add(thread)
        return True

    def leave(self) -> None:
        self._inside.discard(get_ident())

    async def read_one(self, read: Read) -> None:
        thread, inside, me = get_ident(), self._inside, cast("_Reader", read)
        if thread in inside:
            await self._read_all((me,))
            return
        try:
            inside.add(thread)
            if len(inside) <= self._few:
                await self._read_all((me,))
                return
            try:
                with self._lock:
                    leads = self._leader is None
                    if leads:
                        self._leader = me
                        self._take_along(me)
                    else:
                        me.wake = threading.Lock()
                        me.wake.acquire()
                        self._waiting.append(me)
                if leads or self._wait(me):
                    batch = (me, *me.led)
                    await self._read_all(batch, me.waited)
                    for one in batch:
                        one.done = True
                    me.failed = me.failure is not None
            finally:
                if me.next is not None:  # it is done, and in the middle of its chain, which nobody else looks at
                    me.next.wake.release()
                else:
                    self._leave(me)
                # A load keeps its read for seconds · each read would keep the next one of its crowd, and that the next.
                me.next, me.led = None, ()
        finally:
            inside.discard(thread)

    def _wait(self, me: _Reader) -> bool:
        """Wait until a leader has read for it, or until it leads; whether it leads."""
        began = monotonic()
        if not (me.wake.acquire(timeout=self._turn) or self._take_turn(me)):
            while not me.done and not me.wake.acquire(timeout=self._turn):
                if monotonic() - began > self._patience:
                    with self._lock:
                        self._leader = None
                        if not me.done:
                            me.end(NotSent("the thread that read for this one did not come back in time"))
        if me.done:
            return False
        me.waited = monotonic() - began
        with self._lock:
            self._take_along(me)
        return True

    def _take_turn(self, me: _Reader) -> bool:
        """Lead beside the present leader, unless a leader reads for this thread already; whether it leads."""
        with self._lock:
            if me not in self._waiting:
                return False
            self._waiting.remove(me)
            self._leader = me
            return True

    def _take_along(self, me: _Reader) -> None:
        """Let this leader read for every thread that waits now; no other joins it."""
        me.led = led = self._waiting
        self._waiting = deque()
        while len(led) > BATCH - 1:
            self._waiting.appendleft(led.pop())

    def _leave(self, me: _Reader) -> None:
        """Wake the next thread of the chain, or the next leader."""
        with self._lock:
            me.gone = True
            if not me.done and me in self._waiting:
                self._waiting.remove(me)
            chain = self._chain(me) if me.led or me.failed else []
            if self._leader is me or self._leader is None:
                if not chain and self._waiting:
                    me.next = self._waiting[0]
                self._leader = chain[-1] if chain else self._waiting.popleft() if self._waiting else None
        if me.next is not None:
            me.next.wake.release()

    def _chain(self, me: _Reader) -> list[_Reader]:
        """The threads that it has read for, each of which wakes the next; what an interrupt left undone waits again."""
        undone = [one for one in me.led if not (one.done or one.gone or one in self._waiting)]
        for one in undone:
            one.forget()
        self._waiting.extendleft(reversed(undone))
        chain = [one for one in me.led if one.done and not one.gone]
        if me.failed:  # the others would fail in the same way, one timeout after the other
            for one in self._waiting:
                one.end(NotSent("the read before this one failed"))
            chain += self._waiting
            self._waiting.clear()
        for one, following in pairwise([me, *chain]):
            one.next = following
        return chain
