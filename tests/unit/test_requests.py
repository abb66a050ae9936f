"""The deadline of a set is made of the clock that is behind: that of the bus, or that of the command connections."""

from __future__ import annotations

import pytest

from nearcache.testing import FakeServer, ManualClock


@pytest.mark.parametrize("ahead", [-5_000_000, 5_000_000])
def test_the_clock_that_is_behind_counts(ahead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each may be too large: by the way of a heartbeat, or by what the server's clock was set back since."""
    server = FakeServer()
    with ManualClock(), server.cache(redis_timeout=1, redis_connect_timeout=2) as cache:
        assert cache.wait_healthy(5)
        requests = cache._core.requests
        heard = requests.server_now()
        told = heard + ahead
        monkeypatch.setattr(cache._core.remote, "now", lambda: told)
        behind = min(heard, told)
        assert requests.earliest_now() == behind
        assert requests.deadline() == behind + 3_000_000
        monkeypatch.setattr(cache._core.remote, "now", lambda: 0)
        assert requests.deadline() == heard + 3_000_000
        cache._core.tier.synced = False
        assert requests.deadline() == 3_000_000
