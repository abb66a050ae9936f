"""The parts of nearcache.testing, and that there is no second copy of them anywhere."""

from __future__ import annotations

import ast
import inspect
import re
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

import nearcache.testing
from nearcache.engine.ports import Remote, RemoteFailed, RemoteTimeout
from nearcache.protocol.answers import Ask, Beat, Fill, Granted, Item
from nearcache.runtime.latches import ThreadLatch
from nearcache.runtime.run_sync import run_sync
from nearcache.testing import OPERATIONS, ManualClock
from nearcache.testing.fake_network import Client, Fault, Kind, Network
from nearcache.testing.fake_transport import FakeBus, FakeRemote
from tests.support.cases import each

ROOT = Path(__file__).parents[2]
OURS = [path for folder in ("tests", "benchmarks") for path in sorted((ROOT / folder).rglob("*.py"))]

USERS = {
    "FaultProxy": ("tests/conftest.py", "tests/torture/run.py", "tests/torture/scenarios/away.py"),
    "FakeServer": ("tests/conftest.py",),
    "ManualClock": ("tests/api/test_manual_clock.py", "tests/api/test_fake_faults.py"),
    "Server": ("tests/support/stepper/world.py", "tests/schedules/test_model.py"),
}
"""Who has to use what is public here, instead of something of their own."""


def imported(path: Path) -> set[str]:
    """The names that a file imports from nearcache.testing."""
    return {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("nearcache.testing")
        for alias in node.names
    }


@pytest.mark.parametrize("name", USERS)
def test_our_own_tests_use_it(name: str) -> None:
    """What users get is what holds the library itself."""
    for user in USERS[name]:
        assert name in imported(ROOT / user), user


def test_there_is_no_second_copy() -> None:
    """No other proxy, server model or clock in tests, torture and benchmarks; a port with TLS is none."""
    second = re.compile(r"asyncio\.start_server\((?!.*ssl=)|class \w*(Proxy|ManualClock|FakeServer)\b|class Server\b")
    here = Path(__file__)
    assert [path for path in OURS if path != here and second.search(path.read_text())] == []


def remote_on(network: Network, timeout: float = 30.0) -> FakeRemote:
    """A remote that has not connected."""
    return FakeRemote(network, "ns", ThreadLatch, timeout, Client(object()))


def bus_on(network: Network) -> FakeBus:
    """A bus that has not connected."""
    return FakeBus(network, Client(object()), "ns", ThreadLatch, 0.001)


ASKED: dict[str, Callable[[FakeRemote], Coroutine[Any, Any, object]]] = {
    "read": lambda remote: remote.read(["a"], with_bounds=True),
    "tag_floors": lambda remote: remote.tag_floors(["t"]),
    "set": lambda remote: remote.set([Item("a", b"\0x", 1000)], [], 1 << 60),
    "add": lambda remote: remote.add(Item("a", b"\0x", 1000), b"", [], 1 << 60),
    "touch": lambda remote: remote.touch("a", b"head", 1000, [], 1 << 60),
    "incr": lambda remote: remote.incr("n", 1, 0, 1000, b"", 1 << 60),
    "delete_existing": lambda remote: remote.delete_existing("a"),
    "delete": lambda remote: remote.delete(["a"]),
    "mark_stale": lambda remote: remote.mark_stale(["a"]),
    "lease": lambda remote: remote.lease([Ask("a", b"1" * 16, b"")], 1000, [], 1 << 60),
    "fill": lambda remote: remote.fill([Fill(Item("a", b"\0x", 1000), b"1" * 16, Granted(1, 1, ()), [])]),
    "abort": lambda remote: remote.abort([("a", b"1" * 16)]),
    "claim": lambda remote: remote.claim("a"),
    "greet": lambda remote: remote.greet(),
    "l1_share": lambda remote: remote.l1_share(),
    "limit_l1": lambda remote: remote.limit_l1(0.5),
    "announce": lambda remote: remote.announce(0, b"me", b"me {}", 1000),
    "announced": lambda remote: remote.announced(),
    "clear": lambda remote: remote.clear(),
    "invalidate_tags": lambda remote: remote.invalidate_tags(["t"]),
    "probe": lambda remote: remote.probe("nonce"),
}


def test_every_operation_of_the_protocol_is_known() -> None:
    """Else no fault could be for it alone."""
    asked = {
        name
        for name, method in vars(Remote).items()
        if name[0] != "_"
        and (inspect.iscoroutinefunction(method) or "Coroutine" in str(getattr(method, "__annotations__", "")))
    } - {"connect", "close"}
    assert asked == OPERATIONS == set(ASKED)


@each("operation", sorted(ASKED))
@each("kind", [Kind.AWAY, Kind.HUNG, Kind.LOST_REPLIES, Kind.DELAY])
def test_a_fault_is_for_its_operation_alone(kind: Kind, operation: str) -> None:
    """The others are answered; afterwards all are."""
    network = Network()
    remote = remote_on(network, timeout=0.001)
    run_sync(remote.connect())
    with Fault(network, kind, {operation}, None, 0.001):
        for other, ask in ASKED.items():
            if other == operation:
                with pytest.raises(RemoteFailed) as failure:
                    run_sync(ask(remote))
                assert failure.value.sent is (kind is not Kind.AWAY)
            else:
                run_sync(ask(remote))
    run_sync(ASKED[operation](remote))


def test_nothing_was_sent_over_a_connection_that_was_not_made() -> None:
    """Refused, or not accepted by who was met: the outcome is known."""
    network = Network()
    remote = remote_on(network)
    assert remote.now() == 0
    with Fault(network, Kind.AWAY), pytest.raises(RemoteFailed, match="refused") as failure:
        run_sync(remote.connect())
    assert failure.value.sent is False

    def refuse(_met: object) -> None:
        raise RemoteFailed("not this one")

    remote.on_connected = refuse
    with pytest.raises(RemoteFailed, match="not this one") as failure:
        run_sync(remote.probe("nonce"))
    assert failure.value.sent is False
    remote.on_connected = lambda _: None
    run_sync(remote.probe("nonce"))
    assert remote.now() > 0
    run_sync(remote.close())
    with pytest.raises(RemoteFailed) as failure:
        run_sync(remote.probe("nonce"))
    assert failure.value.sent is False


def test_who_answers_is_told_once_per_connection() -> None:
    """And it is another one after a restart."""
    network = Network()
    remote = remote_on(network)
    met: list[object] = []
    remote.on_connected = met.append
    for _ in range(2):
        run_sync(remote.probe("nonce"))
    with Fault(network, Kind.AWAY):
        pass
    run_sync(remote.probe("nonce"))
    network.restart()
    run_sync(remote.probe("nonce"))
    assert len(met) == 3
    assert met[0] == met[1] != met[2]


def test_a_bus_that_is_closed_before_it_is_open_never_subscribes() -> None:
    """As when a cache is closed while it connects."""
    network = Network()
    bus = FakeBus(network, Client(object()), "ns", ThreadLatch, 30)
    bus.interrupt()
    with pytest.raises(RemoteFailed, match="closed"):
        run_sync(bus.open())
    for ask in (bus.ask_beat, bus.ask_greeting):
        with pytest.raises(RemoteFailed):
            run_sync(ask())
    with pytest.raises(RemoteFailed):
        run_sync(bus.receive(30))
    assert not network.server("ns").lines


def test_a_bus_that_is_closed_leaves_nothing_at_the_server() -> None:
    """Else it would be sent to for ever."""
    network = Network()
    bus = bus_on(network)
    run_sync(bus.open())
    assert network.server("ns").lines
    run_sync(bus.close())
    assert not network.server("ns").lines


@pytest.mark.parametrize("kind", [Kind.HUNG, Kind.BUS_HELD])
def test_nobody_subscribes_while_nothing_comes(kind: Kind) -> None:
    """The subscription is not confirmed in time."""
    network = Network()
    bus = bus_on(network)
    with Fault(network, kind), pytest.raises(RemoteTimeout, match="not confirmed"):
        run_sync(bus.open())


def test_nobody_connects_to_what_hangs() -> None:
    """Nothing was sent then."""
    network = Network()
    with Fault(network, Kind.HUNG), pytest.raises(RemoteTimeout) as failure:
        run_sync(remote_on(network, 0.001).connect())
    assert failure.value.sent is False


def test_what_a_hung_server_has_taken_is_lost_in_a_crash() -> None:
    """It is not executed by the one that comes after it."""
    network = Network()
    remote = remote_on(network, 0.001)
    run_sync(remote.connect())
    with Fault(network, Kind.HUNG) as hung:
        with pytest.raises(RemoteTimeout):
            run_sync(ASKED["set"](remote))
        assert len(hung.late) == 1
        network.restart()
    assert not network.server("ns").values


def test_a_hung_server_answers_a_heartbeat_when_it_goes_on() -> None:
    """By its clock of then."""
    network = Network()
    bus = bus_on(network)
    run_sync(bus.open())
    with ManualClock() as clock:
        with Fault(network, Kind.HUNG):
            run_sync(bus.ask_beat())
            assert run_sync(bus.receive(0)) == []
            clock.advance(5)
        (beat,) = run_sync(bus.receive(0))
        assert isinstance(beat, Beat)
        assert beat.server_time == network.micros()


def test_a_cut_for_one_leaves_the_others() -> None:
    """Their connections stay."""
    network = Network()
    here, there = bus_on(network), bus_on(network)
    run_sync(here.open())
    run_sync(there.open())
    with Fault(network, Kind.BUS_CUT, cache=here.client.cache):
        assert (here.closed, there.closed) == (True, False)


def waiting(bus: FakeBus) -> tuple[threading.Thread, list[object]]:
    """A thread that receives, and what comes of it."""
    came: list[object] = []

    def receive() -> None:
        try:
            came.append(run_sync(bus.receive(600)))
        except RemoteFailed as failure:
            came.append(failure)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    while not bus.at_rest:
        time.sleep(0.001)
    return thread, came


def test_who_receives_is_woken() -> None:
    """By a message, by the end of a fault that held one back, by time that was moved, and by a cut."""
    network = Network()
    bus = bus_on(network)
    run_sync(bus.open())
    server = network.server("ns")
    thread, came = waiting(bus)
    server.publish(b"one")
    thread.join(10)
    assert came == [[b"one"]]
    with Fault(network, Kind.BUS_HELD):
        server.publish(b"two")
        thread, came = waiting(bus)
        assert came == []
    thread.join(10)
    assert came == [[b"two"]]
    thread, came = waiting(bus)
    bus.time_moved()
    thread.join(10)
    assert came == [[]]
    thread, came = waiting(bus)
    bus.interrupt()
    thread.join(10)
    assert isinstance(came[0], RemoteFailed)


def test_time_that_is_moved_while_nobody_receives_is_not_missed() -> None:
    """The listener may have looked at the clock before, and would sleep by the old time."""
    bus = bus_on(Network())
    run_sync(bus.open())
    bus.time_moved()
    assert run_sync(bus.receive(600)) == []
    assert not bus.at_rest


def test_settled_is_who_is_at_rest_or_kept_away_or_closed() -> None:
    """All others are waited for."""
    network = Network()
    remote = remote_on(network)
    bus = FakeBus(network, remote.client, "ns", ThreadLatch, 30)
    assert network.settled()
    run_sync(bus.open())
    assert not network.settled()
    for kind in (Kind.AWAY, Kind.HUNG, Kind.BUS_CUT, Kind.BUS_HELD):
        with Fault(network, kind, cache=remote.client.cache):
            assert network.settled()
        with Fault(network, kind, cache=object()):
            assert not network.settled()
    bus = FakeBus(network, remote.client, "ns", ThreadLatch, 30)
    run_sync(bus.open())
    thread, _ = waiting(bus)
    assert network.settled()
    network.server("ns").publish(b"message")
    thread.join(10)
    assert not network.settled()
    run_sync(remote.close())
    assert network.settled()


def test_the_public_names_are_there() -> None:
    """Each has a docstring with what it is for."""
    for name in nearcache.testing.__all__:
        found = getattr(nearcache.testing, name)
        if inspect.isclass(found) or inspect.isfunction(found):
            assert found.__doc__, name
