"""What every test may ask for: servers, a namespace of its own, a proxy, caches of both classes, a loop.

A test that is a coroutine function runs on the fixture ``runner``; fixtures that need the same loop ask for it too.
"""

from __future__ import annotations

import asyncio
import inspect
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from typing import cast

import hypothesis
import pytest

from nearcache.testing import FakeServer, FaultProxy, ManualClock
from nearcache.transport.embedded import EmbeddedServer
from tests.support import monitoring, servers
from tests.support.report import SUMMARY
from tests.support.twins import MODES, MakeCache, Twin, twin_of, twin_on

PATIENCE = 2.0
"""Seconds that threads and tasks have to end after a test."""

# How long an example takes depends on who else computes on the machine.
hypothesis.settings.register_profile("nearcache", deadline=None, print_blob=True)
hypothesis.settings.load_profile("nearcache")


# A shell starts what it puts in the background with SIGINT ignored, and every child would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", params=servers.KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server of each kind that many tests share: use a namespace, and neither kill nor pause it."""
    with servers.make(request.param) as shared:
        yield shared


@pytest.fixture(params=servers.KINDS)
def fresh_server(request: pytest.FixtureRequest) -> Iterator[EmbeddedServer]:
    """A server of each kind for this test alone, to kill, pause, restart or fill."""
    with servers.make(request.param) as own:
        yield own


@pytest.fixture
def namespace() -> str:
    """A name that no other test uses."""
    return f"t-{uuid.uuid4().hex[:16]}"


@pytest.fixture
def proxy(server: EmbeddedServer) -> Iterator[FaultProxy]:
    """A proxy in front of the shared server of one kind, for outages that are this test's alone."""
    with FaultProxy(server.port) as own:
        yield own


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    """The loop of this test and its fixtures; a task left behind fails the test."""
    with asyncio.Runner() as own:
        yield own
        left = own.run(_unfinished_tasks())
    assert not left, f"tasks left behind: {left}"


async def _unfinished_tasks() -> list[str]:
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    if tasks:
        _, tasks = await asyncio.wait(tasks, timeout=PATIENCE)
    return [repr(task) for task in tasks]


@pytest.fixture(params=MODES)
def make_cache(
    request: pytest.FixtureRequest, server: EmbeddedServer, namespace: str, runner: asyncio.Runner
) -> Iterator[MakeCache]:
    """Makes caches of the class under test, all in one namespace of the shared server, and closes them.

    ``make_cache(url=None, **settings)`` returns a Twin, to be used as if it were an AsyncNearCache.
    """
    made: list[Twin] = []

    def make(url: str | None = None, **settings: object) -> Twin:
        made.append(twin_of(request.param, url or server.url, runner, **{"namespace": namespace, **settings}))
        return made[-1]

    yield make
    for cache in made:
        runner.run(cache.close())


@pytest.fixture
def fake() -> FakeServer:
    """A fake server of this test alone."""
    return FakeServer()


@pytest.fixture
def clock() -> Iterator[ManualClock]:
    """The time of this process; entered before the caches of a test are made, and left after they are closed."""
    with ManualClock() as manual:
        yield manual


@pytest.fixture
def eager_switches() -> Iterator[None]:
    """Threads hand over at nearly every chance."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(params=MODES)
def make_fake(request: pytest.FixtureRequest, fake: FakeServer, runner: asyncio.Runner) -> Iterator[MakeCache]:
    """As ``make_cache``, on the fake server; there is no URL."""
    made: list[Twin] = []

    def make(url: str | None = None, **settings: object) -> Twin:
        assert url is None
        made.append(twin_on(fake, request.param, runner, **settings))
        return made[-1]

    yield make
    for cache in made:
        runner.run(cache.close())


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + PATIENCE
    ours = [one for one in threading.enumerate() if one.name.startswith("nearcache") and one not in before]
    for thread in ours:
        thread.join(max(0.0, deadline - time.monotonic()))
    left = [thread.name for thread in ours if thread.is_alive()]
    assert not left, f"threads left behind: {left}"


def pytest_configure(config: pytest.Config) -> None:
    """Name the mark that tests here use."""
    config.addinivalue_line("markers", "one_server: the shared server is of one kind, since the test is not about it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each coroutine function the loop, and leave out kinds of servers that add nothing.

    ``make_cache`` asks for the shared server even where a test brings its own: each kind once, not each pair of kinds.
    The faults of a proxy are those of the way to the server: one kind is behind it. A test that is marked
    ``one_server`` is about something else than the server.
    """
    items[:] = [item for item in items if not _adds_nothing(item)]
    for item in items:
        if not isinstance(item, pytest.Function) or not inspect.iscoroutinefunction(item.obj):
            continue
        if "runner" not in item.fixturenames:
            item.fixturenames.append("runner")


def _adds_nothing(item: pytest.Item) -> bool:
    if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
        return False
    kinds = {item.callspec.params[name] for name in ("server", "fresh_server") if name in item.callspec.params}
    one = "proxy" in item.fixturenames or item.get_closest_marker("one_server")
    return kinds - {servers.KINDS[0]} != set() if one else len(kinds) > 1


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run a test that is a coroutine function."""
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    arguments = {name: pyfuncitem.funcargs[name] for name in pyfuncitem._fixtureinfo.argnames}
    loop = cast("asyncio.Runner", pyfuncitem.funcargs["runner"])
    loop.run(pyfuncitem.obj(**arguments))
    return True


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Tell what tests have to tell beside green, and name what was left out: green says no more than was run."""
    for report in [one for every in terminalreporter.stats.values() for one in every]:
        if getattr(report, "when", None) == "call":
            for told in [told for name, told in report.user_properties if name == SUMMARY]:
                terminalreporter.write_line(str(told))
    for left_out in filter(None, (servers.NOT_RUN, monitoring.NOT_RUN)):
        terminalreporter.write_line(f"NOT RUN: {left_out}", yellow=True)
