"""Which events are logged, at which level, as which line."""

from __future__ import annotations

import logging

import pytest

from nearcache import events
from nearcache.explanation import Explanation
from nearcache.log import _LEVELS, Log

EXPLAINED = Explanation(key="a", would="serve from L1", why="it is fresh", tier="l1")
LINES: list[tuple[events.Event, int, str]] = [
    (events.Connected(3), logging.INFO, "nearcache: event='connected' namespace='shop' kept=3"),
    (events.Disconnected("gone"), logging.WARNING, "nearcache: event='disconnected' namespace='shop' reason='gone'"),
    (events.Flushed("a gap", 7), logging.INFO, "nearcache: event='flushed' namespace='shop' reason='a gap' entries=7"),
    (events.Drained(3, 1), logging.INFO, "nearcache: event='drained' namespace='shop' replayed=3 left=1"),
    (events.BreakerOpened("late"), logging.WARNING, "nearcache: event='breaker opened' namespace='shop' reason='late'"),
    (events.BreakerClosed(), logging.INFO, "nearcache: event='breaker closed' namespace='shop'"),
    (
        events.CorruptValue("user:7", "short"),
        logging.WARNING,
        "nearcache: event='corrupt value' namespace='shop' key='user:7' reason='short'",
    ),
    (
        events.UnknownType("k", "shop.User", "why"),
        logging.WARNING,
        "nearcache: event='unknown type' namespace='shop' key='k' type='shop.User' reason='why'",
    ),
    (
        events.LoadFailed("k", "why"),
        logging.WARNING,
        "nearcache: event='load failed' namespace='shop' key='k' reason='why'",
    ),
    (
        events.Refused("set", "OOM"),
        logging.WARNING,
        "nearcache: event='refused' namespace='shop' operation='set' reason='OOM'",
    ),
    (events.Accepted(), logging.INFO, "nearcache: event='accepted' namespace='shop'"),
    (
        events.Journalled(2, "away"),
        logging.WARNING,
        "nearcache: event='journalled' namespace='shop' keys=2 reason='away'",
    ),
    (
        events.StaleFound("a", "older", 3.0, EXPLAINED),
        logging.ERROR,
        f"nearcache: event='stale found' namespace='shop' key='a' reason='older' age=3.0 explanation={EXPLAINED!r}",
    ),
    (events.CoherenceFailed("no"), logging.ERROR, "nearcache: event='coherence failed' namespace='shop' reason='no'"),
]


@pytest.mark.parametrize(("event", "level", "line"), LINES)
def test_an_event_is_one_line(event: events.Event, level: int, line: str, caplog: pytest.LogCaptureFixture) -> None:
    """Words, namespace and facts, on the logger "nearcache"."""
    caplog.set_level(logging.DEBUG, "nearcache")
    Log("shop")(event)
    (record,) = caplog.records
    assert (record.name, record.levelno, record.getMessage()) == ("nearcache", level, line)


def test_of_the_writes_of_an_outage_the_first_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """An outage is not a line per write; the next outage has its own."""
    caplog.set_level(logging.DEBUG, "nearcache")
    log = Log("shop")
    for _ in range(2):
        for event in (events.Journalled(1, "away"), events.Journalled(7, "late"), events.Drained(3, 5)):
            log(event)
        log(events.Journalled(2, "late"))
        log(events.Drained(5, 0))
    lines = [record.getMessage().partition(" namespace")[0] for record in caplog.records]
    assert lines == 2 * ["nearcache: event='journalled'", *2 * ["nearcache: event='drained'"]]


def test_every_event_is_on_one_of_the_lists() -> None:
    """A new event would be found."""
    known = {type(event) for event, _, _ in LINES}
    assert known == {
        kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)
    } - {events.Event}
    assert {type(event) for event, _, _ in LINES} == set(_LEVELS)


def test_a_value_with_a_line_break_stays_on_one_line(caplog: pytest.LogCaptureFixture) -> None:
    """A key can't forge a line of the log."""
    caplog.set_level(logging.DEBUG, "nearcache")
    Log("shop")(events.CorruptValue("a\nERROR root: forged", "short"))
    (record,) = caplog.records
    assert "\n" not in record.getMessage()


def test_below_its_level_nothing_is_made(caplog: pytest.LogCaptureFixture) -> None:
    """The application's level counts."""
    caplog.set_level(logging.ERROR, "nearcache")
    Log("shop")(events.Disconnected("gone"))
    Log("shop")(events.CoherenceFailed("no"))
    assert [record.levelname for record in caplog.records] == ["ERROR"]
