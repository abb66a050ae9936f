"""Failovers by Sentinel, of which no client is told but by the Sentinels."""

from __future__ import annotations

from nearcache.transport.embedded import HOST, EmbeddedServer
from tests.support.waiting import wait_until
from tests.torture.book import Window, now
from tests.torture.faults import REST, Stage, Steps
from tests.torture.histories import LAG
from tests.torture.worker import MAX_STALENESS

NOTICED = MAX_STALENESS / 2
"""Seconds after all Sentinels have named the new primary, until which some still write to the old one."""
BETWEEN = 2.0
"""Seconds of two primaries in which everything is promised."""
LEAST = 6.0
"""Seconds in which two failovers are begun."""


def by_hand_and_by_crash(stage: Stage) -> Steps:
    """SENTINEL FAILOVER, which leaves the old primary writable; then it follows, and the new one is killed."""
    first = stage.group.primary
    begin = now() - LAG
    stage.group.fail_over()
    second = _took_over(stage, begin)
    stage.notes.append(f"by hand: all Sentinels agreed after {(now() - begin - LAG) / 1e9:.2f} s")
    yield NOTICED + BETWEEN  # from here on everything is promised, though the old primary takes writes
    with stage.client(first.port) as client:
        role = client.role()[0].decode()
        stage.notes.append(f"the old primary was a {role} then")
        client.replicaof(HOST, second.port)  # as the Sentinels do some seconds later
        wait_until(lambda: client.info("replication")["master_link_status"] == "up")

    begin = now() - LAG
    second.kill()
    stage.group.wait_for_another(second)
    _took_over(stage, begin)
    stage.notes.append(f"by kill -9: all Sentinels agreed after {(now() - begin - LAG) / 1e9:.2f} s")
    yield REST


def _took_over(stage: Stage, begin: int) -> EmbeddedServer:
    """All Sentinels name another primary; what was written since ``begin`` may be lost."""
    primary = stage.group.primary
    stage.looker.port = primary.port
    earlier = stage.window if stage.window.begin != Window().begin else None
    stage.window = Window(begin, now() + int(NOTICED * 1e9), earlier)
    return primary
