"""Looks into Redis from beside the caches: what is alive there, read in one step with its floors."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import Any, Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from nearcache import MsgpackCodec
from nearcache.protocol import records
from nearcache.protocol.answers import TagFloor
from nearcache.protocol.names import Names
from nearcache.protocol.versions import number_of
from tests.torture.book import KEYS, WRITERS, name, now
from tests.torture.judge import Read
from tests.torture.worker import NAMESPACE

PAUSE = 0.025
"""Seconds between two looks."""


class Looker:
    """A thread that looks again and again, past every proxy.

    Args:
        port: of the server that counts.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self.seen: list[Read] = []
        self._names = Names(NAMESPACE)
        self._decode = MsgpackCodec().decode
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="torture-looker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._ended.set()
        self._thread.join()

    def look(self) -> dict[int, int]:
        """The versions that are alive in Redis now, by key.

        Raises:
            redis.RedisError: the server does not answer.
        """
        with closing(redis.Redis(port=self.port, socket_timeout=5)) as client:
            return self._check_open(client)

    def _run(self) -> None:
        while not self._ended.is_set():
            port = self.port
            client = redis.Redis(port=port, socket_timeout=0.5, retry=Retry(NoBackoff(), 0))
            with closing(client):
                while self.port == port and not self._ended.wait(PAUSE):
                    start = now()
                    try:
                        found = self._check_open(client)
                    except (redis.RedisError, OSError):  # it is away
                        continue
                    end = now()
                    if self.port == port:
                        self.seen.extend(Read(key, start, end, version) for key, version in found.items())

    def _check_open(self, client: Any) -> dict[int, int]:
        tag_names = [f"tag:{number}" for number in range(WRITERS)]
        whole = client.pipeline(transaction=True)
        whole.mget([self._names.value(name(key)) for key in range(KEYS)])
        whole.hmget(self._names.counters, "s", "f")
        whole.mget(self._names.tags(tag_names))
        values, (highest, floor), tag_floors = whole.execute()
        parsed = zip(tag_names, map(TagFloor.parse, tag_floors), strict=True)
        floors = {tag: floor.number for tag, floor in parsed if floor is not None}
        alive: dict[int, int] = {}
        for key, raw in enumerate(values):
            if raw is None or floor is None or highest is None:
                continue
            record = records.unpack(raw)
            number = number_of(record.version)
            if not record.fresh_until or not int(floor) <= number <= int(highest):
                continue
            if all(number >= floors.get(tag, number + 1) for tag in record.tags):
                alive[key] = self._decode(record.payload)
        return alive
