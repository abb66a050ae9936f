"""Fixtures for pytest: name it in `pytest_plugins` of the conftest.py at the root (docs/testing.md)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nearcache.testing import EmbeddedServer, FakeServer, ManualClock


@pytest.fixture
def nearcache_fake() -> FakeServer:
    """A fake server of the test's own, to be put behind the application's cache."""
    return FakeServer()


@pytest.fixture
def nearcache_clock() -> Iterator[ManualClock]:
    """The time of every cache, which stands; a fixture that puts a server behind a cache asks for it as well."""
    with ManualClock() as clock:
        yield clock


@pytest.fixture(scope="session")
def nearcache_server() -> Iterator[EmbeddedServer]:
    """A real Valkey for all tests of the session, from the extra ``embedded``; each test takes its own namespace."""
    with EmbeddedServer() as server:
        yield server
