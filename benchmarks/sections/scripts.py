"""What each script costs the server: its own time per call, beside PING, GET and SET of one record in the same run.

How: RedisRemote makes the command as it does for a cache, and each is sent many times in a pipeline, behind plain
commands that bring its key to where it was. The server counts its own time per command (INFO commandstats), with what
a script calls in it and without parsing and the network. Rounds take all scripts in a new random order. Nobody is
subscribed, so PUBLISH costs least.
"""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any

import redis

from nearcache.protocol.answers import Ask, Busy, Counted, Fill, Granted, Item, Written
from nearcache.protocol.names import Names
from nearcache.protocol.records import HEAD_BYTES
from nearcache.transport import resp
from nearcache.transport.client import RedisRemote
from nearcache.transport.handshake import Handshake
from nearcache.transport.port import Transport
from tests.support import servers
from tests.support.report import Report
from tests.support.tables import Spread, Table

Command = tuple[bytes, ...]
NAMES = Names("scripts")
KEY, COUNT, TAGS = "user:7", "count:7", ("team:1", "team:2")
VALUE, LEASE = NAMES.value(KEY), NAMES.lease(KEY)
PAYLOAD = b"z" * 100
ITEM = Item(KEY, b"\0" + PAYLOAD, ttl_ms=600_000)
LATER = 1 << 52
"""A deadline that never passes."""
LEASE_MS, LEASE_ID = 30_000, b"i" * 16
CALLS = 1000
"""Of one script in one round."""
BATCH = 250
"""Calls that are sent before replies are read."""


class Recorder(Transport):
    """A transport that sends on one connection, and keeps the last command that it sent."""

    handshake: Handshake | None = None

    def __init__(self, port: int) -> None:
        self.sent = b""
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._decoder = resp.Decoder()

    def ask(self, packed: bytes, count: int) -> list[Any]:
        """Send, and wait for so many replies."""
        self._socket.sendall(packed)
        replies: list[Any] = []
        while len(replies) < count:
            replies += self._decoder.feed(self._socket.recv(resp.CHUNK))
        return replies

    async def execute(self, packed: bytes, count: int = 1, **_options: object) -> list[Any]:
        """Send and keep."""
        self.sent = packed
        return self.ask(packed, count)

    async def pause(self, seconds: float) -> None:
        """Nothing is repeated."""

    async def connect(self) -> None:
        """It is."""

    def discard_idle(self) -> None:
        """There is one."""

    async def close(self) -> None:
        """End the connection."""
        self._socket.close()


@dataclass(frozen=True)
class Case:
    """A script in a situation."""

    name: str
    call: Callable[[RedisRemote], Awaitable[object]]
    answers: type
    """What the call returns in this situation."""
    before: Sequence[Command] = ()
    """What brings the key to where it was."""


@dataclass(frozen=True)
class Loop:
    """Commands that are sent many times, and the one whose time is taken."""

    label: str
    counted: str
    """As INFO calls it."""
    packed: bytes
    replies: int


def show(report: Report) -> bool:
    """Measure on each server, print and keep; nothing is judged but the answers."""
    rounds = 5 if report.quick else 15
    kept: dict[str, dict[str, list[float]]] = {}
    for kind in servers.KINDS:
        with servers.make(kind) as server, _recorder(server.port) as recorder:
            loops = asyncio.run(_loops(recorder))
            with redis.Redis(port=server.port) as client:
                kept[kind] = _measure(loops, recorder, client, rounds)
    rows = []
    for label in kept[servers.KINDS[0]]:
        cells = [Spread.of(kept[kind][label]) for kind in servers.KINDS]
        rows.append([label, *(text for one in cells for text in (f"{one.median:.2f}", one.range()))])
    head = ["", *(text for kind in servers.KINDS for text in (f"{kind}, µs", "least–greatest"))]
    notes = [
        f"medians of {rounds} rounds of {CALLS:,} calls in pipelines; a record of {len(PAYLOAD)} bytes, no subscribers"
    ]
    if servers.NOT_RUN:
        notes.append(f"NOT RUN: {servers.NOT_RUN}")
    report.show(Table("Server time of a call", head, rows, notes))
    report.keep("scripts", kept)
    return True


@contextmanager
def _recorder(port: int) -> Iterator[Recorder]:
    recorder = Recorder(port)
    with closing(recorder._socket):
        yield recorder


async def _loops(recorder: Recorder) -> list[Loop]:
    """Each script called once, whose answer has to be the one that it is measured for; and the controls."""
    remote = RedisRemote(recorder, NAMES, retries=0, redis_timeout=5)
    await remote.greet()  # so that m is adopted
    await remote.set([ITEM], TAGS, LATER)
    (record,) = (await remote.read([KEY], with_bounds=False)).records
    assert record is not None
    loops = [
        Loop("PING", "ping", resp.pack((b"PING",)), 1),
        Loop("SET of the record", "set", resp.pack((b"SET", b"control", record, b"PX", b"600000")), 1),
        Loop("GET of the record", "get", resp.pack((b"GET", VALUE)), 1),
    ]
    for case in _cases(record):
        before = b"".join(map(resp.pack, case.before))
        for _ in range(2):  # the first one may have sent the script's text
            recorder.ask(before, len(case.before))
            answer = await case.call(remote)
        if not isinstance(answer, case.answers):
            raise TypeError(f"{case.name}: {answer!r}")
        loops.append(Loop(case.name, "evalsha", before + recorder.sent, len(case.before) + 1))
    return loops


def _cases(record: bytes) -> list[Case]:
    there: Command = (b"SET", VALUE, record, b"PX", b"600000")
    absent: Command = (b"DEL", VALUE)
    leased: Command = (b"SET", LEASE, b"L" + LEASE_ID, b"PX", b"%d" % LEASE_MS)
    free: Command = (b"DEL", LEASE)
    grant = Granted(LATER, LATER, (), LEASE_MS)
    return [
        Case("set", lambda remote: remote.set([ITEM], (), LATER), Written),
        Case("set, two tags", lambda remote: remote.set([ITEM], TAGS, LATER), Written),
        Case("add", lambda remote: remote.add(ITEM, b"", (), LATER), Written, [absent]),
        Case("touch", lambda remote: remote.touch(KEY, record[:HEAD_BYTES], 600_000, (), LATER), Written, [there]),
        Case("incr", lambda remote: remote.incr(COUNT, 1, 0, 600_000, b"", LATER), Counted),
        Case("delete", lambda remote: remote.delete([KEY]), Written, [there]),
        Case("delete, with hold", lambda remote: remote.delete([KEY], hold_ms=1000), Written, [there, free]),
        Case("mark_stale", lambda remote: remote.mark_stale([KEY]), Written, [there]),
        Case("lease, given", _lease, Granted, [absent, free]),
        Case("lease, busy", _lease, Busy, [absent, leased]),
        Case("fill", lambda remote: _only(remote.fill([Fill(ITEM, LEASE_ID, grant, ())])), Written, [leased]),
        Case("abort", lambda remote: _only(remote.abort([(KEY, LEASE_ID)])), bool, [leased]),
        Case("clear", lambda remote: remote.clear(), Written),
        Case("invalidate_tags, two", lambda remote: remote.invalidate_tags(TAGS), Written),
        Case("greet, nothing changed", lambda remote: remote.greet(), type(None)),
        Case("probe", lambda remote: remote.probe("0" * 32), type(None)),
    ]


def _lease(remote: RedisRemote) -> Awaitable[object]:
    return _only(remote.lease([Ask(KEY, LEASE_ID, b"")], LEASE_MS, (), LATER))


async def _only(asked: Awaitable[Sequence[object]]) -> object:
    """The answer for the only key that is asked for."""
    (answer,) = await asked
    return answer


def _measure(loops: Sequence[Loop], recorder: Recorder, client: Any, rounds: int) -> dict[str, list[float]]:
    """Per label, µs of the server's time per call in each round."""
    found: dict[str, list[float]] = {loop.label: [] for loop in loops}
    for _ in range(rounds):
        for loop in random.sample(loops, len(loops)):
            recorder.ask(resp.pack((b"DEL", LEASE)), 1)
            client.config_resetstat()
            for _ in range(CALLS // BATCH):
                replies = recorder.ask(loop.packed * BATCH, loop.replies * BATCH)
                wrong = [reply for reply in replies if isinstance(reply, resp.ServerError)]
                if wrong:
                    raise wrong[0]
            stats = client.info("commandstats")[f"cmdstat_{loop.counted}"]
            if stats["calls"] != CALLS:
                raise ValueError(f"{loop.label}: {stats['calls']} calls were counted")
            found[loop.label].append(stats["usec_per_call"])
    return found
