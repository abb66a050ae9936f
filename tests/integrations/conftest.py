"""One real server for all tests of integrations, as the applications have it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from nearcache import NearCache
from nearcache.transport.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def valkey() -> Iterator[EmbeddedServer]:
    """Shared by all: use a namespace, and neither kill nor pause it."""
    with EmbeddedServer() as server:
        yield server


@pytest.fixture
def cache(valkey: EmbeddedServer, namespace: str) -> Iterator[NearCache]:
    """A cache of the test's own."""
    with NearCache.from_url(valkey.url, namespace=namespace, ttl=60) as own:
        yield own
