"""redis-py and hiredis: GET and unpack, pack and SET, client-side caching, PubSub, and the bare parser."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import hiredis
import msgpack  # type: ignore[import-untyped]
import redis
from redis.cluster import RedisCluster

from benchmarks.rivals.base import (
    TTL,
    VALUE,
    WIRE_GET,
    WIRE_LOAD,
    WIRE_SET,
    Cases,
    Rival,
    Stage,
    case,
    load,
    new_keys,
)


def getting(client: Any) -> Callable[[str], Any]:
    """GET and unpack, with a client of redis-py."""
    return lambda key: msgpack.unpackb(client.execute_command("GET", key))


def getting_async(client: Any) -> Callable[[str], Awaitable[Any]]:
    """The same with a client of redis.asyncio."""

    async def get(key: str) -> Any:
        return msgpack.unpackb(await client.execute_command("GET", key))

    return get


def getting_many(client: Any) -> Callable[[Sequence[str]], list[Any]]:
    """MGET, or what a client of a cluster has in its stead, and unpack each value."""
    if isinstance(client, RedisCluster):
        return lambda keys: [msgpack.unpackb(packed) for packed in client.mget_nonatomic(keys)]
    return lambda keys: [msgpack.unpackb(packed) for packed in client.execute_command("MGET", *keys)]


def setting(client: Any) -> Callable[[str, Any], Any]:
    """Pack, and SET with a ttl."""
    return lambda key, value: client.set(key, msgpack.packb(value), px=TTL * 1000)


def receiving(pubsub: Any, count: int) -> Callable[[], None]:
    """Take so many messages from a PubSub that is subscribed, and do nothing with them."""

    def take_in() -> None:
        for _ in range(count):
            if pubsub.get_message(timeout=5.0) is None:
                raise RuntimeError("redis-py did not get every message")

    return take_in


def parse(pieces: Sequence[bytes]) -> None:
    """Parse what came from a socket with hiredis alone: the floor of every client."""
    reader = hiredis.Reader(notEnoughData=None)
    for piece in pieces:
        reader.feed(piece)
        replies = []
        while (reply := reader.gets()) is not None:
            replies.append(reply)


@asynccontextmanager
async def cases(stage: Stage) -> AsyncIterator[Cases]:
    """GET and unpack, pack and SET; a load is GET, load, SET, without any guard."""
    with redis.Redis(port=stage.server.port) as client:
        get, put = getting(client), setting(client)
        for key, value in stage.values.items():
            put(key, value)

        def get_or_load(key: str) -> Any:
            packed: Any = client.execute_command("GET", key)
            if packed is not None:
                return msgpack.unpackb(packed)
            value = load(key)
            put(key, value)
            return value

        yield {
            WIRE_GET: case("redis-py GET and unpack", "get(key)", get=get),
            WIRE_LOAD: case("redis-py GET, load, SET", "do(fresh())", do=get_or_load, fresh=new_keys()),
            WIRE_SET: case("redis-py SET", "put(key, VALUE)", put=put, VALUE=VALUE),
        }


RIVAL = Rival("redis-py", "redis", cases)
