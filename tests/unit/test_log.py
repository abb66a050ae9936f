"""Which events are logged, at which level, as which line."""

from __future__ import annotations

import logging

import pytest

from nearcache import events
from nearcache.log import _LEVELS, log

LINES: list[tuple[events.Event, int, str]] = [
    (events.Connected(3), logging.INFO, "event='connected' namespace='shop' kept=3"),
    (events.Disconnected("gone"), logging.WARNING, "event='disconnected' namespace='shop' reason='gone'"),
    (events.Flushed("a gap", 7), logging.INFO, "event='flushed' namespace='shop' reason='a gap' entries=7"),
    (events.Drained(3, 1), logging.INFO, "event='drained' namespace='shop' replayed=3 left=1"),
    (events.BreakerOpened("late"), logging.WARNING, "event='breaker opened' namespace='shop' reason='late'"),
    (events.BreakerClosed(), logging.INFO, "event='breaker closed' namespace='shop'"),
    (
        events.CorruptValue("user:7", "short"),
        logging.WARNING,
        "event='corrupt value' namespace='shop' key='user:7' reason='short'",
    ),
    (events.LoadFailed("k", "why"), logging.WARNING, "event='load failed' namespace='shop' key='k' reason='why'"),
    (
        events.Refused("set", "OOM"),
        logging.WARNING,
        "event='refused' namespace='shop' operation='set' reason='OOM'",
    ),
    (events.Accepted(), logging.INFO, "event='accepted' namespace='shop'"),
    (events.CoherenceFailed("no"), logging.ERROR, "event='coherence failed' namespace='shop' reason='no'"),
]

SILENT: list[events.Event] = [events.Journalled(1, "away")]
"""One per call, perhaps: no change of state. They are events only."""


@pytest.mark.parametrize(("event", "level", "line"), LINES)
def test_an_event_is_one_line(event: events.Event, level: int, line: str, caplog: pytest.LogCaptureFixture) -> None:
    """Words, namespace and facts, on the logger "nearcache"."""
    caplog.set_level(logging.DEBUG, "nearcache")
    log("shop", event)
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("nearcache", level, line)


@pytest.mark.parametrize("event", SILENT)
def test_what_may_come_with_every_call_is_not_logged(event: events.Event, caplog: pytest.LogCaptureFixture) -> None:
    """An outage is not a line per write."""
    caplog.set_level(logging.DEBUG, "nearcache")
    log("shop", event)
    assert not caplog.records


def test_every_event_is_on_one_of_the_lists() -> None:
    """A new event would be found."""
    known = {type(event) for event in SILENT} | {type(event) for event, _, _ in LINES}
    assert known == {
        kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)
    } - {events.Event}
    assert {type(event) for event, _, _ in LINES} == set(_LEVELS)


def test_a_value_with_a_line_break_stays_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A key can't forge a line of the log."""
    caplog.set_level(logging.DEBUG, "nearcache")
    log("shop", events.CorruptValue("a\nERROR root: forged", "short"))
    (record,) = caplog.records
    assert "\n" not in record.getMessage()


def test_below_its_level_nothing_is_made(caplog: pytest.LogCaptureFixture) -> None:
    """The application's level counts."""
    caplog.set_level(logging.ERROR, "nearcache")
    log("shop", events.Disconnected("gone"))
    log("shop", events.CoherenceFailed("no"))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
