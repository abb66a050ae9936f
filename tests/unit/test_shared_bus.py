"""Heartbeats of the buckets on one connection: role and time are asked once, and each bucket has its own answer."""

from __future__ import annotations

import struct
from types import SimpleNamespace
from typing import Any, cast

import pytest

from nearcache.engine.ports import RemoteFailed
from nearcache.protocol.answers import Beat, Greeting
from nearcache.protocol.names import Names
from nearcache.transport import resp
from nearcache.transport.claims import Claims
from nearcache.transport.client import RedisRemote
from nearcache.transport.shared_bus import Channel, SharedProtocol

HELLO = {b"role": b"master"}
TIME = [b"7", b"5"]


@pytest.fixture
def protocol() -> SharedProtocol:
    """Of a connection to a cluster's node."""
    return SharedProtocol()


@pytest.fixture
def channels(protocol: SharedProtocol) -> list[Channel]:
    """Those of two buckets, which are subscribed."""
    made = []
    for bucket in range(2):
        names = Names("n", 0, bucket, 16, sharded=True)
        remote = cast("RedisRemote", SimpleNamespace(names=names, seen=lambda: 0, claims=Claims(2)))
        channel = Channel(remote, protocol, lambda: None)
        protocol.join(channel)
        push = resp.Decoder().feed(b">3\r\n+ssubscribe\r\n$%d\r\n%b\r\n:1\r\n" % (len(names.channel), names.channel))
        assert protocol.parse(push) == []
        made.append(channel)
    return made


def message(channel: Channel, text: bytes) -> Any:
    """A message that the server sends to the channel."""
    name = channel.names.channel
    (push,) = resp.Decoder().feed(b">3\r\n+smessage\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(name), name, len(text), text))
    return push


def ask(channel: Channel) -> None:
    """Ask for a heartbeat."""
    with pytest.raises(StopIteration):
        channel.ask_beat().send(None)


def test_role_and_time_are_asked_once(protocol: SharedProtocol, channels: list[Channel]) -> None:
    """Two buckets are four commands, and no more are asked before the next heartbeats."""
    for channel in channels:
        ask(channel)
    names = [parts[0] for parts in resp._parts_of(protocol.questions())]
    assert names == [b"HELLO", b"TIME", b"HMGET", b"HMGET"]
    assert protocol.questions() == b""


def test_greetings_ask_who_the_server_is_once(protocol: SharedProtocol, channels: list[Channel]) -> None:
    """INFO has kilobytes; each bucket is greeted by its own counters, and heartbeats may be asked with them."""
    for channel in channels:
        with pytest.raises(StopIteration):
            channel.ask_greeting().send(None)
    ask(channels[0])
    names = [parts[0] for parts in resp._parts_of(protocol.questions())]
    assert names == [b"HELLO", b"INFO", b"INFO", *(b"EVAL", b"HMGET") * 2, b"HELLO", b"TIME", b"HMGET"]
    who = [HELLO, b"run_id:a\r\n", b"master_replid:b\r\n"]
    own = [[struct.pack(">QQQB", number, 1, 7_000_000, 1) + b"i 2/16", [b"0.5"]] for number in (5, 9)]
    news = dict(
        protocol.parse([*who, *own[0], message(channels[0], b"six"), *own[1], HELLO, TIME, [b"6", b"1", b"i", None]])
    )
    greeting = Greeting("a/b/0", 5, 1, 7_000_000, True, "i", True, l1_share=0.5)
    beat = Beat(6, 1, 7_000_005, True, "i", 1.0)
    assert news == {channels[0]: [greeting, b"six", beat], channels[1]: [greeting._replace(number=9)]}


def test_a_beat_stands_before_the_messages_behind_its_answer(protocol: SharedProtocol, channels: list[Channel]) -> None:
    """Behind them, its number would look as if the counter had gone back."""
    first, second = channels
    for channel in channels:
        ask(channel)
    protocol.questions()
    replies = [HELLO, TIME, [b"5", b"1", b"i", None], message(first, b"six"), [b"9", b"2", b"i", None]]
    news = dict(protocol.parse(replies))
    beat = Beat(5, 1, 7_000_005, True, "i", 1.0)
    assert news == {first: [beat, b"six"], second: [beat._replace(number=9, floor=2)]}


@pytest.mark.parametrize("split", range(1, 4))
def test_an_answer_in_two_parts(protocol: SharedProtocol, channels: list[Channel], split: int) -> None:
    """The next heartbeats have a role and a time of their own."""
    for number in range(2):
        for channel in channels:
            ask(channel)
        protocol.questions()
        replies: list[Any] = [HELLO, [b"%d" % number, b"0"], *([b"5", b"1", b"i", None] for _ in channels)]
        news = [*protocol.parse(replies[:split]), *protocol.parse(replies[split:])]
        beats = [beat for _, some in news for beat in cast("list[Beat]", some)]
        assert [beat.server_time for beat in beats] == [number * 1_000_000] * 2


def test_a_bucket_that_is_elsewhere_is_lost_alone(protocol: SharedProtocol, channels: list[Channel]) -> None:
    """The other one is proven by its own answer."""
    for channel in channels:
        ask(channel)
    protocol.questions()
    moved = resp.ServerError("MOVED 1 127.0.0.1:2")
    news = dict(protocol.parse([HELLO, TIME, moved, [b"9", b"2", b"i", None]]))
    assert news[channels[0]] == [moved]
    assert cast("Beat", news[channels[1]][0]).number == 9


def test_a_server_that_gives_no_role(protocol: SharedProtocol, channels: list[Channel]) -> None:
    """No bucket is proven by it."""
    for channel in channels:
        ask(channel)
    protocol.questions()
    counters = [b"9", b"2", b"i", None]
    news = dict(protocol.parse([resp.ServerError("ERR no"), TIME, counters, counters]))
    assert all(isinstance(one, RemoteFailed) for some in news.values() for one in some)
