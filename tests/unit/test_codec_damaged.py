"""Bytes that no codec wrote give a value or a refusal, and nothing worse."""

from __future__ import annotations

import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache.errors import CodecError
from tests.support.cases import each
from tests.support.values import CODEC, ONE_OF_EACH, values

MARK = b"\xc7\x00"


def marked(code: int, *fields: object) -> bytes:
    """The bytes of a marked array with any fields."""
    packed = b"".join(CODEC.encode(field)[1:] for field in fields)
    return b"\xc1" + bytes([0x90 + len(fields) + 1]) + packed + MARK + bytes([code])


DAMAGED = [
    (b"", "0 bytes"),
    (b"\x91", "incomplete"),
    (b"\xc1", "incomplete"),
    (b"\x01", "begins with 0x01"),
    (b"\x80\x04K\x01.", "begins with 0x80"),
    (b'{"a": 1}', "begins with 0x7b"),
    (b"\x91\x01\x01", "ExtraData"),
    (b"\xc1\x01\x01", "ExtraData"),
    (b"\x91\xc1", "FormatError"),
    (b"\x91\xa1\xff", "UnicodeDecodeError"),
    (b"\x91\xdd\xff\xff\xff\xff", "max_array_len"),
    (b"\x91\xc6\xff\xff\xff\xff", "ValueError"),
    (b"\x91" + b"\x91" * 2000 + b"\xc0", "StackError"),
    (b"\x91\x81\x90\x01", "unhashable"),
    (b"\x91\x92\x01" + MARK + b"\x01", "extension 1 where there should be none"),
    (b"\x91\xd6\xff\x00\x00\x00\x01", "max_ext_len"),
    (b"\xc1\xd6\xff\x00\x00\x00\x01", "max_ext_len"),
    (b"\xc1\xc7\x0c\xff" + bytes(12), "max_ext_len"),
    (b"\xc1\xc7\x00\xff", "ValueError"),
    (b"\xc1\xd4\x01\x00", "max_ext_len"),
    (b"\xc1" + MARK + b"\x01", "a mark outside the end of an array"),
    (b"\xc1\x92" + MARK + b"\x01\x01", "a mark outside the end of an array"),
    (b"\xc1\x92" + (MARK + b"\x01") * 2, "a mark outside the end of an array"),
    (b"\xc1\x81" + MARK + b"\x01\x01", "a mark outside the end of an array"),
    (b"\xc1\x81\x01" + MARK + b"\x01", "a mark outside the end of an array"),
    (marked(0), "only a newer release may know"),
    (marked(23), "only a newer release may know"),
    (marked(127, 1), "only a newer release may know"),
    (marked(2, []), "unhashable"),
    (marked(3, {}), "unhashable"),
    (marked(4, "1"), "TypeError"),
    (marked(4), "0 fields for a int"),
    (marked(5, 10**12), "TypeError"),
    (marked(5, "a"), "TypeError"),
    (marked(6, "1"), "1 fields for a complex"),
    (marked(6, "1", 1), "TypeError"),
    (marked(7, "junk"), "InvalidOperation"),
    (marked(8, 1, 0), "ZeroDivisionError"),
    (marked(8, "1/3"), "1 fields for a Fraction"),
    (marked(9, 0, 1, 0), "ValueError"),
    (marked(10, 2024, 13, 1), "month must be in 1..12"),
    (marked(10, b"\x07\xe8\x01\xff"), "1 fields for a date"),
    (marked(11, b"\xff\xff\xff\x00\x00\x00"), "1 fields for a time"),
    (marked(11, 25, 0, 0, 0, 0, None), "hour must be in 0..23"),
    (marked(11, 1, 0, 0, 0, 0, "UTC"), "tzinfo"),
    (marked(12, b"\x07\xe8\x01\x01\xff\xff\xff\x00\x00\x00"), "1 fields for a datetime"),
    (marked(12, 2024, 2, 30, 0, 0, 0, 0, 0, None), "day is out of range for month"),
    (marked(12, 2024, 2, 1, 0, 0, 0, 0, 2, None), "fold"),
    (marked(13, 10**10, 0, 0), "OverflowError"),
    (marked(14, 86400 * 10**6, None), "timedelta"),
    (marked(14, 0, b"x"), "TypeError"),
    (marked(15, "No/Such"), "ZoneInfoNotFoundError"),
    (marked(15, "../../../etc/passwd"), "ValueError"),
    (marked(15, "/etc/passwd"), "ValueError"),
    (marked(15, "Europe"), "Error"),
    (marked(15, 1), "Error"),
    (marked(16, b"short"), "16-char"),
    (marked(16, "x" * 16), "Error"),
    (marked(17, "999.1.1.1"), "AddressValueError"),
    (marked(18, "10.0.0.1/8"), "has host bits set"),
    (marked(22, "::/129"), "NetmaskValueError"),
]


@each("data, words", DAMAGED)
def test_damaged_and_foreign_bytes_are_refused(data: bytes, words: str) -> None:
    """Every way in which bytes can be wrong is a CodecError that says how."""
    with pytest.raises(CodecError) as caught:
        CODEC.decode(data)
    assert words in str(caught.value)
    assert "not a value of this codec, or damaged" in str(caught.value)


def decode_or_refuse(data: bytes) -> None:
    """A value that can be encoded again, or CodecError; never anything else."""
    try:
        value = CODEC.decode(data)
    except CodecError:
        return
    CODEC.encode(value)


@given(st.sampled_from([b"", b"\x91", b"\xc1"]), st.binary(max_size=60))
@settings(max_examples=500, deadline=None)
def test_random_bytes_give_a_value_or_a_refusal(start: bytes, rest: bytes) -> None:
    """No bytes make decode raise anything but CodecError, or give a value that is not one of ours."""
    decode_or_refuse(start + rest)


def test_every_truncation_is_refused() -> None:
    """A value cut short is never taken for a shorter value."""
    for value, _ in ONE_OF_EACH:
        data = CODEC.encode([value, (value, "x")])
        for size in range(len(data)):
            with pytest.raises(CodecError):
                CODEC.decode(data[:size])


def test_flipped_bits_give_a_value_or_a_refusal() -> None:
    """Each single flipped bit, and random heavier damage, gives a value or CodecError."""
    dice = random.Random(7)
    whole = CODEC.encode([value for value, _ in ONE_OF_EACH])
    for bit in range(len(whole) * 8):
        data = bytearray(whole)
        data[bit // 8] ^= 1 << bit % 8
        decode_or_refuse(bytes(data))
        for _ in range(3):
            data[dice.randrange(len(data))] = dice.choice([dice.randrange(256), 0xC7, 0xC1, 0x91, 0xDC])
        decode_or_refuse(bytes(data))


@given(st.integers(0, 30), st.lists(values, max_size=9))
@settings(max_examples=150, deadline=None)
def test_marks_with_wrong_fields_give_a_value_or_a_refusal(code: int, fields: list[object]) -> None:
    """Fields of any type and number under any mark give a value of ours or CodecError."""
    decode_or_refuse(marked(code, *fields))


def test_a_header_that_promises_too_much_allocates_nothing() -> None:
    """Lengths beyond the data are refused before memory is taken for them."""
    for header in (b"\xdb", b"\xc6", b"\xc9", b"\xdd", b"\xdf"):
        with pytest.raises(CodecError):
            CODEC.decode(b"\x91" + header + struct.pack(">I", 2**32 - 1) + b"\x00" * 8)
