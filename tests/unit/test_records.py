"""Records: head and tail come apart as they were put together, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.protocol.records import HEAD_BYTES, MAGIC, Record, pack_names, pack_tail, unpack, unpack_names
from nearcache.protocol.versions import number_of, version_of

TAGS = st.lists(st.text(min_size=1, max_size=20).filter(str.isprintable), max_size=5, unique=True)
NUMBERS = st.integers(0, 2**53 - 1)


def head(number: int = 5, created: int = 6, fresh_until: int = 7, magic: int = MAGIC, load_ms: int = 0) -> bytes:
    """A head as the scripts write it."""
    return struct.pack(">BQQQI", magic, number, created, fresh_until, load_ms)


@given(
    number=NUMBERS,
    created=NUMBERS,
    fresh_until=NUMBERS,
    tags=TAGS.map(dict.fromkeys).map(list),
    payload=st.binary(max_size=100),
)
def test_a_record_comes_apart_as_it_was_put_together(
    number: int, created: int, fresh_until: int, tags: list[str], payload: bytes
) -> None:
    """The head's numbers, the tags and the payload survive."""
    record = unpack(head(number, created, fresh_until, load_ms=created & 0xFFFF) + pack_tail(payload, tags))
    assert record.began == created - (created & 0xFFFF) * 1000
    assert record == Record(version_of(number, created), fresh_until, tuple(tags), payload, created & 0xFFFF)
    assert number_of(record.version) == number


def test_a_version_orders_by_number_then_by_time() -> None:
    """Two loads under one number are ordered by the server's time (J)."""
    assert version_of(5, 9) < version_of(6, 0) < version_of(6, 1)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        head()[:-1],
        head(),
        head(magic=0xC1) + bytes(5),
        b"plain text, longer than a head is",
        head() + b"\x01",
        head() + b"\x01\0\x05ab",
        head() + b"\x01\0\x02\xff\xff",
        head() + b"\x02\0\x01a\0\x01a",
    ],
    ids=["empty", "cut", "no tail", "magic", "foreign", "no tag", "tag overrun", "utf-8", "tag twice"],
)
def test_what_is_no_record_is_a_value_error(data: bytes) -> None:
    """Foreign or damaged bytes are told, not guessed at."""
    with pytest.raises(ValueError, match=r"."):
        unpack(data)


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Whatever stands in Redis is a record or a ValueError."""
    with contextlib.suppress(ValueError):
        assert isinstance(unpack(data), Record)


def test_the_head_has_the_size_that_scripts_compare() -> None:
    """A lease compares how a dead record begins: magic, three numbers and the load time."""
    assert len(head()) == HEAD_BYTES == 29


@given(TAGS)
def test_names_come_apart_as_they_were_put_together(names: list[str]) -> None:
    """Each name behind its length."""
    packed = pack_names(names)
    assert unpack_names(packed, 0, len(packed)) == names


def test_a_tail_carries_at_most_255_tags() -> None:
    """The count is one byte; 255 fit."""
    tags = [str(number) for number in range(255)]
    assert unpack(head() + pack_tail(b"x", tags)).tags == tuple(tags)
