"""Which values are copied at a hit in place of being decoded, and that a copy shares nothing that can be changed."""

from __future__ import annotations

import threading
from typing import Any

from hypothesis import given

from nearcache import NearCache
from nearcache.local.store import Entry, Opener
from nearcache.protocol.copying import copies_of
from tests.api.test_registered_types import spoil
from tests.support.cases import each
from tests.support.models import TYPED, Color, Item, Key, Point, User, registered, shape

COPIED: list[Any] = [
    {"a": 1, "b": (2, 3)},
    {Color.RED: Key(1)},
    {},
    [1, "a", Color.RED],
    {1, (2, 3)},
    bytearray(b"x"),
    [{"id": 1}, {"id": 2, "name": "x"}],
    Item(1, "a"),
    [Item(1, ()), Item(2, "b")],
]
DECODED: list[Any] = [
    {"a": [1]},
    [[1], [2]],
    [{"a": []}],
    [{"a": 1}, 2],
    {"a": {"b": 1}},
    ([1],),
    Item(1),
    Item([1], "a"),
    [Item(1, "a"), {"a": 1}],
    Point([], 1),
    Key([]),
    User(id=1),
    [(1, [])],
]


@each("value", COPIED)
def test_flat_values_and_rows_are_copied(value: object) -> None:
    """Equal, of the same types, and new."""
    copy = copies_of(value, TYPED.types)
    assert copy is not None
    made = copy[0](copy[1])
    assert shape(made) == shape(value)
    assert made is not value
    spoil(made)
    assert shape(copy[0](copy[1])) == shape(value)


@each("value", DECODED)
def test_all_else_is_decoded_again(value: object) -> None:
    """What holds something that can be changed."""
    assert copies_of(value, TYPED.types) is None


@given(registered)
def test_copies_share_nothing_that_can_be_changed(value: Any) -> None:
    """Whatever is done to one, the next is as the first was."""
    own = TYPED.decode(TYPED.encode(value))
    copy = None if TYPED.types.is_immutable(own) else copies_of(own, TYPED.types)
    for _ in range(2 if copy else 0):
        made = copy[0](copy[1])  # type: ignore[index]  # there is one
        assert shape(made) == shape(value)
        spoil(made)


def test_a_value_is_decoded_once_and_copied_then() -> None:
    """At the first hit; until then its bytes are kept, and so they are if copying is no quicker."""
    with NearCache.from_url("memory://") as cache:
        for value, copied in (([1], True), ([[1]], False)):
            cache.set("a", value)
            entry = cache._tier.entries["a"]
            kept: Any = entry.value
            assert type(kept) is bytes
            assert type(entry.decode) is Opener
            for _ in range(3):
                got = cache.get("a")
                assert got == value
                got.append(1)
            assert (type(entry.value) is tuple, type(entry.decode) is Opener) == (copied, copied)
            assert cache.peek("a") == value
        cache.set("a", [1], copy="serialized")
        assert cache.get("a") == cache.get("a") == [1]
        assert type(cache._tier.entries["a"].value) is bytes


def test_a_reader_that_is_overtaken_by_the_first_hit_of_another_gets_the_value() -> None:
    """It has looked at the entry's opener, and then sees what took the place of the bytes; or the other way round."""
    codec_read: list[object] = []

    def decode(data: Any) -> Any:
        codec_read.append(data)
        return TYPED.decode(data)

    opener = Opener(decode, lambda value: copies_of(value, TYPED.types))
    for value in ([1], [[1]]):
        entry = Entry(TYPED.encode(value), 0.0, 0, (), 0, 0.0, opener)
        before = entry.decode, entry.value
        threads = [threading.Thread(target=opener.first, args=(entry, entry.value)) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert before[0] is opener
        assert opener(before[1]) == opener(entry.value) == value
        assert entry.decode is not None
        assert entry.decode(entry.value) == value
    assert all(type(data) is bytes for data in codec_read)
