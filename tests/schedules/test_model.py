"""The model server of the schedules answers as real servers do: the same steps, the same answers and messages."""

from __future__ import annotations

import random
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from nearcache.engine.ports import TooLate
from nearcache.protocol import messages
from nearcache.protocol.answers import (
    Ask,
    Beat,
    Busy,
    Counted,
    Deleted,
    Granted,
    Greeting,
    Item,
    Reading,
    Written,
)
from nearcache.protocol.names import Names
from nearcache.protocol.records import HEAD_BYTES, pack_tail
from nearcache.runtime.run_sync import run_sync
from nearcache.settings import Settings
from nearcache.testing.model import Server
from nearcache.testing.state import Line
from nearcache.transport.client import RedisRemote
from nearcache.transport.embedded import EmbeddedServer
from nearcache.transport.endpoint import Endpoint
from nearcache.transport.sync_transport import SyncBus, SyncTransport
from tests.support.stepper.ports import ModelRemote

KEYS, TAGS, TOKENS = ("x", "y"), ("t", "u"), (b"1" * 16, b"2" * 16)
STEPS = 120
KINDS = [
    "set",
    "add",
    "add",
    "touch",
    "incr",
    "incr",
    "late",
    "existing",
    "delete",
    "held",
    "stale",
    "early",
    "lease",
    "lease",
    "lease",
    "fill",
    "fill",
    "abort",
    "clear",
    "tags",
    "stale tags",
    "read",
]
FOREVER = 1 << 52
"""A time (µs) that no server's clock has reached."""


class Side:
    """One server, real or model: its answers with numbers counted from its first one."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.grants: dict[tuple[str, bytes, int], Granted] = {}

    def ask(self, script: str, *args: Any, **options: Any) -> Any:
        """Run a script."""
        raise NotImplementedError

    def step(self, dice: random.Random) -> object:
        """One step that the dice choose; its answer."""
        key, lease_id, tags = dice.choice(KEYS), dice.choice(TOKENS), TAGS[: dice.randrange(3)]
        item = Item(key, pack_tail(bytes([dice.randrange(100)])), 60_000)
        place = key, lease_id, len(tags)
        kind, was = dice.choice(KINDS), dice.choice((None, 5))
        aware = dice.random() < 0.5
        raw = self.ask("read", [key], with_bounds=False).records[0]
        head = raw[:HEAD_BYTES] if raw and aware else b""
        if kind == "lease":
            answer = self.ask("lease", key, lease_id, head, 60_000, tags, FOREVER)
            if isinstance(answer, Granted):
                self.grants[place] = answer
            return self.plain(answer)
        if kind == "fill":
            grant = self.grants.get(place, Granted(0, 0, (0,) * len(tags)))
            if aware:  # of tags that the loader has added
                grant = grant._replace(tag_floors=(0,) * len(tags))
            return self.plain(self.ask("fill", item, lease_id, grant, tags))
        simple: dict[str, tuple[Any, ...]] = {
            "set": ("set", [item], tags, FOREVER),
            "late": dice.choice(
                (
                    ("set", [item], tags, 1),
                    ("add", item, b"", tags, 1),
                    ("touch", key, head, 60_000, tags, 1),
                    ("incr", key, 1, 0, 60_000, b"", 1),
                )
            ),
            "add": ("add", item, head, tags, FOREVER),
            "touch": ("touch", key, head, 60_000, tags, FOREVER),
            "incr": ("incr", key, dice.choice((1, 7, -7, 1 << 52)), dice.choice((None, 3)), 60_000, head, FOREVER, was),
            "existing": ("delete_existing", key),
            "delete": ("delete", KEYS if aware else [key]),
            "stale": ("mark_stale", KEYS if aware else [key]),
            "abort": ("abort", key, lease_id),
            "clear": ("clear",),
            "tags": ("invalidate_tags", tags or TAGS),
            "read": ("tag_floors", TAGS),
        }
        if kind in ("held", "early"):
            options = {"hold_ms": 60_000} if kind == "held" else {"not_before": FOREVER}
            return self.plain(self.ask("delete", [key], **options))
        if kind == "stale tags":
            return self.plain(self.ask("invalidate_tags", tags or TAGS, stale=True))
        try:
            return self.plain(self.ask(*simple[kind]))
        except TooLate:
            return "late"

    def plain(self, answer: object) -> object:
        """An answer without times, its numbers counted from the first."""
        if isinstance(answer, Written):
            return "written", answer.number - self.first
        if isinstance(answer, Counted):
            return answer.total, self.plain(answer.written)
        if isinstance(answer, Deleted):
            return answer.head[:1], self.plain(answer.written)
        if isinstance(answer, Granted):
            return "granted", *(number - self.first for number in (answer.number, answer.floor, *answer.tag_floors))
        if isinstance(answer, list):
            return [None if floor is None else tuple(number - self.first for number in floor) for floor in answer]
        return "busy" if isinstance(answer, Busy) else answer

    def state(self) -> object:
        """Both values, and the floor."""
        reading: Reading = self.ask("read", KEYS, with_bounds=True)
        assert reading.bounds is not None
        tails = [
            None if raw is None else (int.from_bytes(raw[1:9]) - self.first, raw[HEAD_BYTES:])
            for raw in reading.records
        ]
        return tails, reading.bounds.floor - self.first

    def told(self, data: bytes) -> object:
        """A message with its number counted from the first."""
        message = messages.unpack(data)
        return message.kind, message.number and message.number - self.first, list(message.names)


class Model(Side):
    """The model."""

    def __init__(self) -> None:
        self.server = Server(lambda: time.time_ns() // 1000)
        self.line = Line()
        self.server.subscribe(self.line)
        super().__init__(self.server.counters()[0])

    def ask(self, script: str, *args: Any, **options: Any) -> Any:
        """At once."""
        return getattr(self.server, script)(*args, **options)

    def messages(self) -> list[object]:
        """All that were published."""
        return [self.told(data) for data in self.line.items if isinstance(data, bytes)]


class Real(Side):
    """A real server."""

    def __init__(self, server: EmbeddedServer, namespace: str) -> None:
        connection = Endpoint.from_url(server.url, Settings(), asynchronous=False)
        names = Names(namespace)
        self.remote = RedisRemote(SyncTransport(connection, 5.0, 1), names, retries=0, redis_timeout=5.0)
        self.bus = SyncBus(connection, 5.0, names)
        self.run(self.bus.open())
        self.run(self.bus.ask_greeting())
        (greeting,) = self.run(self.bus.receive(5.0))
        assert isinstance(greeting, Greeting)
        super().__init__(greeting.number)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Over ports that never suspend."""
        return run_sync(work)

    def ask(self, script: str, *args: Any, **options: Any) -> Any:
        """Over the wire."""
        if script not in ModelRemote.PIPELINED:
            return self.run(getattr(self.remote, script)(*args, **options))
        one, rest = (Ask(*args[:3]), args[3:]) if script == "lease" else (args, ())
        return self.run(getattr(self.remote, script)([one], *rest))[0]

    def messages(self) -> list[object]:
        """All that were published."""
        self.run(self.bus.ask_beat())
        told: list[object] = []
        while True:
            for item in self.run(self.bus.receive(5.0)):
                if isinstance(item, Beat):
                    return told
                told.append(self.told(item))

    def close(self) -> None:
        """Close both connections."""
        self.run(self.bus.close())
        self.run(self.remote.close())


@pytest.mark.parametrize("seed", range(6))
def test_the_model_answers_as_a_server_does(server: EmbeddedServer, namespace: str, seed: int) -> None:
    """Random steps: the same answer to each, the same values and floor after it, and the same messages in all."""
    real, model = Real(server, namespace), Model()
    try:
        for step in range(STEPS):
            answers = [side.step(random.Random(seed * STEPS + step)) for side in (real, model)]
            assert answers[0] == answers[1]
            assert real.state() == model.state()
        assert real.messages() == model.messages()
    finally:
        real.close()
