"""What only the tests of servers and connections ask for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from nearcache.transport.embedded import EmbeddedServer
from tests.support.connections import Make
from tests.support.rig import Rig, close, make_rig


@pytest.fixture
def rig(server: EmbeddedServer, namespace: str) -> Iterator[Rig]:
    """A namespace of the shared server."""
    made = make_rig(server, namespace)
    yield made
    close(made)


@pytest.fixture
def fresh_rig(fresh_server: EmbeddedServer, namespace: str) -> Iterator[Rig]:
    """A namespace of a server that may be hurt."""
    made = make_rig(fresh_server, namespace)
    yield made
    close(made)


@pytest.fixture(params=["sync", "aio"])
def make(request: pytest.FixtureRequest, namespace: str, runner: asyncio.Runner) -> Iterator[Make]:
    """Both kinds, one after the other."""
    maker = Make(request.param, namespace)
    yield maker
    for one in maker.made:
        runner.run(one.close())
