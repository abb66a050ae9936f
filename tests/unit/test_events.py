"""Events: frozen, and compared, matched, copied and pickled by what they say."""

import copy
import pickle

import pytest

import nearcache
from nearcache import BreakerClosed, Connected, Event, Flushed, LoadFailed


@pytest.mark.parametrize("event", [BreakerClosed(), Connected(3), Flushed("a gap", 2), LoadFailed("user:7", "late")])
def test_events_are_values(event: Event) -> None:
    """A copy is equal to the event, and is shown alike."""
    for other in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
        assert other == event
        assert hash(other) == hash(event)
        assert repr(other) == repr(event)
    assert event != Connected(4)


def test_an_event_is_frozen() -> None:
    """The error names the attribute."""
    event = Flushed("a gap", entries=2)
    with pytest.raises(AttributeError, match="Flushed is frozen: entries can't be assigned"):
        event.entries = 3
    with pytest.raises(AttributeError, match="Flushed is frozen: entries can't be deleted"):
        del event.entries
    assert repr(event) == "Flushed(reason='a gap', entries=2)"


def test_an_event_matches_by_position_as_by_name() -> None:
    """As those of a dataclass do."""
    assert Flushed.__match_args__ == ("reason", "entries")
    assert BreakerClosed.__match_args__ == ()
    assert LoadFailed("user:7", "late").error is None


def test_rarely_named_classes_are_imported_when_they_are_asked_for() -> None:
    """They are listed all the same, and no other name is found."""
    assert {"Explanation", "Health", "Stats"} <= set(dir(nearcache))
    assert nearcache.Stats().loads == 0
    with pytest.raises(AttributeError, match="module 'nearcache' has no attribute 'Cash'"):
        nearcache.Cash  # type: ignore[attr-defined]  # noqa: B018
