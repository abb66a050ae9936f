"""A short form of the checker: a few of its phases on Valkey, and one without a guard, so that it is seen to fail."""

from __future__ import annotations

import pytest

from tests.torture.phases import PHASES
from tests.torture.run import Options, run_phase
from tests.torture.show import line

OPTIONS = Options(seconds=3.5, seed=1, judge_speed=False)


@pytest.mark.parametrize(
    "phase",
    ["kill pubsub", "bus held back", "failover, bus first", "sentinel failover", "live copy", "no channel right"],
)
def test_a_phase_holds(phase: str) -> None:
    """No read is too stale or goes back, all agree in the end, and L1 is warm again."""
    result = run_phase(PHASES[phase], "valkey", OPTIONS)
    assert not result.failures, line(result)
    assert result.reads > 500
    if phase == "sentinel failover":
        assert any(note.startswith("by kill -9") for note in result.notes), result.notes


def test_every_write_reaches_every_process() -> None:
    """Each acknowledged write is dropped from each L1 by its message, while nothing happens to the bus."""
    result = run_phase(PHASES["steady"], "valkey", OPTIONS)
    assert not result.failures, line(result)
    assert result.unheard == 0


def test_without_the_heartbeats_deadline_reads_are_too_stale() -> None:
    """An L1 that needs no proof is found out when the bus says nothing."""
    options = Options(seconds=OPTIONS.seconds, seed=1, judge_speed=False, without="heartbeat-deadline")
    result = run_phase(PHASES["bus held back"], "valkey", options)
    assert "stale" in result.failures, line(result)
