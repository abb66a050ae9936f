"""What ``read_all`` leaves in reads that ask for the value alone: that of a plain record, or all that judging needs."""

from __future__ import annotations

from nearcache.engine.plain import Read, read_all
from nearcache.engine.ports import MISSING
from nearcache.engine.read import settle
from nearcache.runtime.run_sync import run_sync
from nearcache.testing import FakeServer
from nearcache.transport.batching import ThreadReads


def read_of(cache_policy: object, key: str) -> Read:
    """A read of a thread that waits for the value of a key."""
    read = ThreadReads.new(key, cache_policy)  # type: ignore[arg-type]  # of the core
    read.value_alone = True
    return read


def test_a_plain_value_comes_alone_and_another_with_its_record() -> None:
    """A tagged record is judged by the thread that asked; an absent one is a miss."""
    server = FakeServer()
    with server.cache() as cache:
        cache.set("plain", [1])
        cache.set("tagged", 2, tags=["t"])
        server.settle()
        cache.clear_local()
        core = cache._core
        plain, tagged, absent = (read_of(core.policy, key) for key in ("plain", "tagged", "absent"))
        run_sync(read_all(core, (plain, tagged, absent)))
        assert (plain.value, plain.raw, plain.judged) == ([1], None, False)
        assert (absent.value, absent.raw) == (MISSING, None)
        assert tagged.raw is not None
        assert not tagged.judged
        run_sync(settle(core, (tagged,)))
        assert tagged.value == 2
        assert "plain" in core.tier.entries


def test_a_failure_stands_in_each_of_them() -> None:
    """The leader of a crowd knows by it that those who wait would fail in the same way."""
    server = FakeServer()
    with server.cache(retries=0) as cache:
        cache.wait_healthy(5)
        core = cache._core
        reads = [read_of(core.policy, key) for key in ("a", "b")]
        with server.away():
            run_sync(read_all(core, reads))
        assert all(read.failure is not None and read.value is MISSING for read in reads)
