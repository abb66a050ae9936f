"""What the opinions of several Sentinels come to: which is believed, and when none ever will be."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from nearcache import Settings
from nearcache.engine.ports import RemoteFailed, RemoteMisconfigured
from nearcache.protocol.answers import Beat, Greeting
from nearcache.runtime.run_sync import run_sync
from nearcache.transport import resp
from nearcache.transport.endpoint import PROBES, Endpoint
from nearcache.transport.sentinel import SentinelEndpoint, from_url
from nearcache.transport.sentinel_search import Opinion, Search, Sentinels, UnknownService, name_of
from nearcache.transport.sentinel_watch import WatchedBus

A, B = ("10.0.0.1", 6379), ("10.0.0.2", 6379)


def made(count: int = 3) -> Sentinels:
    """So many Sentinels, none of which is there."""
    hosts = ",".join(f"s{number}" for number in range(count))
    return from_url(f"redis+sentinel://{hosts}/main", Settings(), asynchronous=False).sentinels


def opinion(place: Endpoint, address: tuple[str, int] = A, epoch: int = 0, **rest: Any) -> Opinion:
    """What one says."""
    return Opinion(place, address, epoch, **{"down": False, "others": 2, "no_quorum": None, **rest})


def test_the_first_that_is_not_behind_decides_and_is_asked_first_the_next_time() -> None:
    """One with a lower epoch than was seen stands behind a partition."""
    sentinels = made()
    first, second, _ = sentinels.places
    sentinels.epoch = 4
    search = Search(sentinels)
    assert search.take(opinion(first, A, 3)) is None
    decided = search.take(opinion(second, B, 4))
    assert decided is not None
    assert decided.address == B
    assert sentinels.places[0] is second
    assert sentinels.primary == "10.0.0.2:6379"


def test_all_that_are_behind_are_believed_again() -> None:
    """They were set up anew, and count from the beginning; the highest of them is right."""
    sentinels = made()
    sentinels.epoch = 9
    search = Search(sentinels)
    for place, epoch, address in zip(sentinels.places, (1, 2, 1), (A, B, A), strict=True):
        assert search.take(opinion(place, address, epoch)) is None
    assert search.end().address == B
    assert sentinels.epoch == 2


def test_which_failures_are_for_ever() -> None:
    """All that answer do not know the service, or every one is set up wrongly; anything else may pass."""
    silent, unknown = RemoteFailed("silent"), UnknownService("it watches no service")
    wrong = RemoteMisconfigured("password")
    for failures, final in (
        ((silent, silent, silent), False),
        ((wrong, wrong, silent), False),
        ((wrong, wrong, wrong), True),
        ((unknown, silent, silent), True),
        ((unknown, unknown, wrong), True),
    ):
        sentinels = made()
        search = Search(sentinels)
        for place, failure in zip(sentinels.places, failures, strict=True):
            search.failed(place, failure)
        with pytest.raises(RemoteFailed, match="no Sentinel names a primary of 'main': s0:26379") as caught:
            search.end()
        assert isinstance(caught.value, RemoteMisconfigured) is final
    sentinels = made(2)
    search = Search(sentinels)
    search.failed(sentinels.places[0], unknown)
    assert search.take(opinion(sentinels.places[1], down=True)) is None  # that one knows it
    with pytest.raises(RemoteFailed, match="has not replaced it yet") as caught:
        search.end()
    assert not isinstance(caught.value, RemoteMisconfigured)


def replies(flags: bytes, named: Sequence[bytes], *, resp3: bool) -> list[Any]:
    """Of a Sentinel that watches one service."""
    state = {
        b"name": b"main",
        b"ip": b"10.0.0.1",
        b"port": b"6379",
        b"flags": flags,
        b"config-epoch": b"7",
        b"num-other-sentinels": b"2",
    }
    told: Any = state if resp3 else [part for pair in state.items() for part in pair]
    return [list(named), [told], resp.ServerError("NOQUORUM 1 usable Sentinels")]


@pytest.mark.parametrize("resp3", [True, False])
def test_a_promoted_server_counts_before_all_others_follow_it(resp3: bool) -> None:
    """Meanwhile the state is that of the old one, which may be down."""
    sentinels = made(1)
    (place,) = sentinels.places
    down = b"master,s_down,o_down"
    old = sentinels._opinion(place, replies(down, (b"10.0.0.1", b"6379"), resp3=resp3))
    assert (old.address, old.epoch, old.down, old.others) == (A, 7, True, 2)
    assert "1 usable Sentinels" in str(old.no_quorum)
    promoted = sentinels._opinion(place, replies(down, (b"10.0.0.2", b"6379"), resp3=resp3))
    assert (promoted.address, promoted.down) == (B, False)


@pytest.mark.parametrize("answer", [[b"x", [], None], [None, [], None], [[b"h"], [b"x"], None], [1, 2, 3]])
def test_odd_replies_are_failures(answer: list[Any]) -> None:
    """None of them ends the bus for good."""
    sentinels = made(1)
    with pytest.raises(RemoteFailed):
        sentinels._opinion(sentinels.places[0], answer)


class StillBus:
    """A bus on which nothing fails."""

    ended = False

    async def open(self) -> None:
        """Nothing."""

    async def ask_beat(self) -> None:
        """Nothing."""

    ask_greeting = close = ask_beat

    async def receive(self, timeout: float) -> Any:
        """Fails once it has been ended."""
        if self.ended:
            raise RemoteFailed("closed")
        return [Greeting("id", 1, 1, 1, False, None, True)] if timeout else [Beat(1, 1, 1, True, None)]

    def interrupt(self) -> None:
        """End it."""
        self.ended = True


def watched() -> tuple[StillBus, WatchedBus, SentinelEndpoint]:
    """A bus on A, which was named at epoch 4."""
    endpoint = from_url("redis+sentinel://s0,s1/main", Settings(), asynchronous=False)
    bus = StillBus()
    own: Any = endpoint.watched(lambda _: bus)
    own._endpoint.opinion = opinion(endpoint.sentinels.places[0], A, 4)
    return bus, own, endpoint


def test_a_port_is_asked_a_few_times_for_all_buses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt has a bus of its own, and a server that is away for long is not asked at each."""
    asked: list[tuple[str, int]] = []

    def hang(host: str, port: int, **_: object) -> None:
        asked.append((host, port))
        raise TimeoutError

    monkeypatch.setattr("nearcache.transport.endpoint.problem_of_scheme", hang)
    endpoint = from_url("redis+sentinel://s0,s1/main", Settings(), asynchronous=False)
    for _ in range(PROBES + 2):
        own: Any = endpoint.watched(lambda _: StillBus())
        own._endpoint.opinion = opinion(endpoint.sentinels.places[0], A)
        assert str(own._endpoint.explain(RemoteFailed("away"))) == "away"
    assert asked == [A] * PROBES


def test_a_bus_ends_at_a_newer_opinion_alone() -> None:
    """A Sentinel that is behind names an older primary: believed, it would end each bus on the new one."""
    bus, own, endpoint = watched()
    place = endpoint.sentinels.places[1]
    for one in (opinion(place, A, 4), opinion(place, B, 3), opinion(place, B, 4), opinion(place, A, 5)):
        own._compare(one)
        assert not bus.ended
    own._compare(opinion(place, B, 5))
    assert bus.ended
    assert endpoint.sentinels.epoch == 5  # so that the ones that are behind are not believed next
    with pytest.raises(RemoteFailed, match=r"the Sentinels name another primary: 10\.0\.0\.2:6379"):
        run_sync(own.receive(0.0))


def test_a_replica_that_is_named_is_refused_and_another_sentinel_asked_first() -> None:
    """The reason names both."""
    _, own, endpoint = watched()
    assert run_sync(own.receive(0.0))
    with pytest.raises(RemoteFailed, match=r"the Sentinel s0:26379 names 10\.0\.0\.1:6379, which is no primary"):
        run_sync(own.receive(1.0))
    assert name_of(endpoint.sentinels.places[0]) == "s1:26379"


def test_the_sentinels_are_asked_in_turn_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A heartbeat whose question still waits asks none, and a failure is no end."""
    _, own, _ = watched()
    asked: list[Any] = []
    monkeypatch.setattr(
        "nearcache.transport.sentinel_watch._thread.start_new_thread", lambda look, args: asked.append(args)
    )
    run_sync(own.ask_beat())
    run_sync(own.ask_beat())
    assert [name_of(place) for (place,) in asked] == ["s0:26379"]

    def refuse(self: object, place: Endpoint, links: object) -> Opinion:
        raise RemoteFailed("no answer in time")

    monkeypatch.setattr(Sentinels, "ask", refuse)
    own._look(*asked[0])
    run_sync(own.ask_beat())
    assert [name_of(place) for (place,) in asked] == ["s0:26379", "s1:26379"]

    def none(look: object, args: object) -> None:
        raise RuntimeError("can't start new thread")

    own._look(*asked[1])
    monkeypatch.setattr("nearcache.transport.sentinel_watch._thread.start_new_thread", none)
    run_sync(own.ask_beat())
    assert not own._asking


async def test_closing_a_bus_of_asyncio_ends_its_question() -> None:
    """A Sentinel that hangs would keep a task."""
    endpoint = from_url("redis+sentinel://s0/main", Settings(), asynchronous=True)
    own: Any = endpoint.watched(lambda _: StillBus())
    began = asyncio.Event()

    async def hang(place: Endpoint) -> None:
        began.set()
        await asyncio.Event().wait()

    own._look_on_loop = hang
    await own.ask_beat()
    await began.wait()
    await own.close()
    assert own._asking.cancelled()
