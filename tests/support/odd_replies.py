"""Replies that are well-formed, but seldom what was asked for: as bytes, as a transport, and as a server.

``python -m tests.support.odd_replies [COUNT] [SEED]`` gives COUNT of them to the remote, the handshake and the bus, and
prints the worst time of one; anything raised but a RemoteFailed ends it with the seed.
"""

from __future__ import annotations

import random
import select
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

import hiredis

from nearcache.engine.ports import RemoteFailed
from nearcache.protocol.answers import Ask, Busy, Counted, Deleted, Fill, Granted, Held, Item, Present, Reading, Written
from nearcache.protocol.names import Names
from nearcache.runtime.run_sync import run_sync
from nearcache.transport import resp
from nearcache.transport.client import RedisRemote
from nearcache.transport.embedded import HOST
from nearcache.transport.handshake import BusProtocol, Handshake
from nearcache.transport.port import Transport

TEXTS = (b"", b"0", b"12", b"OK", b"x" * 47, b"9" * 400, b"\0" * 16, b"\xff" * 24, b"V", b"D", b"B12", b"Bx", b"G")
NUMBERS = (b"0", b"-1", b"7", b"9223372036854775807")
ERRORS = (b"ERR odd", b"", b"NOSCRIPT no", b"OOM", b"BUSY", b"WRONGTYPE", b"READONLY x", b"MOVED 1 a:1", b"\xff\xfe")


def odd_reply(chance: random.Random, depth: int = 2) -> bytes:
    """One reply of any type."""
    text = chance.choice(TEXTS)
    makers: list[Callable[[], bytes]] = [
        lambda: b"$%d\r\n%b\r\n" % (len(text), text),
        lambda: b"$%d\r\n%b\r\n" % (len(text), text),
        lambda: b"+OK\r\n",
        lambda: b":%b\r\n" % chance.choice(NUMBERS),
        lambda: b"-%b\r\n" % chance.choice(ERRORS),
        lambda: chance.choice((b"$-1\r\n", b"*-1\r\n", b"_\r\n")),
        lambda: chance.choice((b"#t\r\n", b"#f\r\n", b",1.5\r\n", b",inf\r\n", b",nan\r\n")),
        lambda: b"(%b\r\n" % chance.choice((b"12", b"-" + b"9" * 300)),
        lambda: b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text),
    ]
    if depth:
        size = chance.choice((0, 1, 2, 3, 3, 5))
        parts = [odd_reply(chance, depth - 1) for _ in range(size)]
        pairs = [b"$1\r\n%d\r\n%b" % (number, part) for number, part in enumerate(parts[:9])]
        makers += [
            lambda: b"*%d\r\n%b" % (size, b"".join(parts)),
            lambda: b"*%d\r\n%b" % (size, b"".join(parts)),
            lambda: b"~%d\r\n%b" % (size, b"".join(parts)),
            lambda: b"%%%d\r\n%b" % (len(pairs), b"".join(pairs)),
            lambda: b">%d\r\n%b" % (size + 1, b"+odd\r\n" + b"".join(parts)),
        ]
    return chance.choice(makers)()


class OddTransport(Transport):
    """Gives one odd reply per command, right after it was sent."""

    handshake: Handshake | None = None

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.discarded = 0

    def replies(self, count: int) -> list[Any]:
        """As a connection would decode them; bytes that hiredis refuses are no reply."""
        replies: list[Any] = []
        while len(replies) < count:
            with suppress(RemoteFailed):
                replies += resp.Decoder().feed(odd_reply(self.chance))[:1]
        return replies

    async def execute(
        self, packed: bytes, count: int = 1, *, repeatable: bool = False, waited: float = 0.0
    ) -> list[Any]:
        """See Transport."""
        del packed, repeatable, waited
        return self.replies(count)

    async def pause(self, seconds: float) -> None:
        """Do not wait."""

    async def connect(self) -> None:
        """There is nothing to connect to."""

    def discard_idle(self) -> None:
        """Count."""
        self.discarded += 1

    async def close(self) -> None:
        """There is nothing to close."""


def _right(answer: object) -> bool:
    """Whether an answer is of the types that the engine builds on."""
    match answer:
        case Reading(records, bounds):
            types = {int} if bounds is None else set(map(type, bounds))
            return all(type(one) is bytes or one is None for one in records) and types == {int}
        case Written(number, created, stored):
            return type(number) is type(created) is int and type(stored) is bool
        case Counted(written, total):
            return _right(written) and type(total) is int
        case Deleted(written, head):
            return _right(written) and type(head) is bytes
        case Granted(number, floor, tags):
            return type(number) is type(floor) is int and len(tags) == 2
        case list():
            return all(isinstance(one, int | Busy | Held | Present | None) or _right(one) for one in answer)
        case str() | bytes():
            return False
    return True


def attack(seed: int, count: int) -> tuple[float, int, int]:
    """Ask for every operation in turn, ``count`` replies in all.

    Returns:
        The worst time of one operation in seconds, how many operations failed, and how many were answered.
    """
    chance = random.Random(seed)
    transport = OddTransport(chance)
    names = Names("odd")
    remote = RedisRemote(transport, names, retries=1, redis_timeout=0.1)
    item, tags = Item("a", b"tail", 1000), ["s", "t"]
    handshake = transport.handshake
    assert handshake is not None

    def introduce() -> None:
        handshake.check(transport.replies(handshake.query.count), 0.0)

    def listen() -> None:
        bus = BusProtocol(names)
        bus.request(chance.choice((bus.greeting, bus.beat)))
        bus.parse(transport.replies(4))

    operations: Sequence[Callable[[], Any]] = (
        introduce,
        listen,
        lambda: run_sync(remote.read(["a"], with_bounds=False)),
        lambda: run_sync(remote.read(["a", "b", "c"], with_bounds=True)),
        lambda: [
            Reading(one)
            for one in run_sync(remote.read_each([(remote, ["a", "b"]), (remote, ["c"])]))
            if not isinstance(one, RemoteFailed)
        ],
        lambda: run_sync(remote.tag_floors(tags)),
        lambda: run_sync(remote.set([item], tags, 1)),
        lambda: run_sync(remote.delete(["a"])),
        lambda: run_sync(remote.mark_stale(["a"])),
        lambda: run_sync(remote.add(item, b"", tags, 1)),
        lambda: run_sync(remote.touch("a", b"head", 1000, tags, 1)),
        lambda: run_sync(remote.incr("n", 1, 0, 1000, b"", 1)),
        lambda: run_sync(remote.delete_existing("a")),
        lambda: run_sync(remote.lease([Ask("a", b"id", b""), Ask("b", b"id", b"")], 1000, tags, 1 << 52)),
        lambda: run_sync(remote.fill([Fill(item, b"id", Granted(1, 0, (0, 0)), tags)] * 2)),
        lambda: run_sync(remote.abort([("a", b"id")])),
        lambda: run_sync(remote.clear()),
        lambda: run_sync(remote.invalidate_tags(tags)),
        lambda: run_sync(remote.probe("nonce")),
    )
    worst, failed, answered = 0.0, 0, 0
    for number in range(count):
        operation = operations[number % len(operations)]
        began = time.perf_counter()
        try:
            answer = operation()
        except RemoteFailed:
            failed += 1
        else:
            answered += 1
            assert _right(answer), (seed, number, answer)
        worst = max(worst, time.perf_counter() - began)
    return worst, failed, answered


class OddServer:
    """A server in front of a real one that answers some commands oddly.

    Args:
        port: of the real server.
        seed: of the choice.
        share: of the commands that get an odd reply.
    """

    def __init__(self, port: int, seed: int, share: float) -> None:
        self._target = port
        self._chance = random.Random(seed)
        self.share = share
        self.odd = 0
        """How many odd replies were sent."""
        self._listener = socket.create_server((HOST, 0))
        self.url = f"redis://{HOST}:{self._listener.getsockname()[1]}/0"
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._accept, name="tests-odd")]

    def __enter__(self) -> Self:
        self._listener.settimeout(0.05)
        self._threads[0].start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._over.is_set():
            with suppress(TimeoutError):
                client, _ = self._listener.accept()
                self._threads.append(threading.Thread(target=self._serve, args=[client], name="tests-odd"))
                self._threads[-1].start()

    def _serve(self, client: socket.socket) -> None:
        # A client that finds no way in tries TLS, to say what is wrong: that is no command.
        gone = suppress(OSError, hiredis.ProtocolError)
        with client, socket.create_connection((HOST, self._target)) as server, gone:
            asked, answers = hiredis.Reader(), hiredis.Reader(notEnoughData=resp.NOTHING)
            odd: deque[bool] = deque()
            while not self._over.is_set():
                for ready in select.select([client, server], [], [], 0.05)[0]:
                    data = ready.recv(65536)
                    if not data:
                        return
                    if ready is client:
                        asked.feed(data)
                        while asked.gets() is not False:
                            odd.append(self._chance.random() < self.share)
                        server.sendall(data)
                        continue
                    answers.feed(data)
                    while (reply := answers.gets()) is not resp.NOTHING:
                        if isinstance(reply, resp.Push) or not odd.popleft():
                            client.sendall(encoded(reply))
                        else:
                            self.odd += 1
                            client.sendall(odd_reply(self._chance))


def encoded(reply: Any) -> bytes:
    """The bytes of a reply that hiredis has decoded."""
    match reply:
        case None:
            return b"_\r\n"
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case int():
            return b":%d\r\n" % reply
        case dict():
            return b"%%%d\r\n" % len(reply) + b"".join(encoded(one) for pair in reply.items() for one in pair)
        case resp.Push() | list():
            mark = b">" if isinstance(reply, resp.Push) else b"*"
            return mark + b"%d\r\n" % len(reply) + b"".join(map(encoded, reply))
        case Exception():
            return b"-%b\r\n" % str(reply).encode()
    raise TypeError(type(reply))


if __name__ == "__main__":
    how_many = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    chosen = int(sys.argv[2]) if len(sys.argv) > 2 else struct.unpack("I", random.randbytes(4))[0]
    slowest, failures, answers_ = attack(chosen, how_many)
    sys.stdout.write(
        f"seed {chosen}: {how_many} odd replies, {failures} RemoteFailed, {answers_} answers, "
        f"worst time {slowest * 1e3:.2f} ms\n"
    )
