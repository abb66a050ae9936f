"""Bytes that no codec wrote give a value or a refusal, and nothing worse."""

from __future__ import annotations

import random
import struct
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nearcache.errors import CodecError
from nearcache.protocol.types import EXTENSIONS, MARKS, Extension
from tests.support.cases import each
from tests.support.hostile import MARK, marked
from tests.support.values import CODEC, ONE_OF_EACH, values

DAMAGED = [
    (b"", "0 bytes"),
    (b"\x91", "ValueError"),
    (b"\xc1", "ValueError"),
    (b"\x01", "begins with 0x01"),
    (b"\x80\x04K\x01.", "begins with 0x80"),
    (b'{"a": 1}', "begins with 0x7b"),
    (b"\x91\x01\x01", "ExtraData"),
    (b"\xc1\x01\x01", "ExtraData"),
    (b"\x91\xc1", "FormatError"),
    (b"\x91\xa1\xff", "UnicodeDecodeError"),
    (b"\x91\xdd\xff\xff\xff\xff", "ValueError"),
    (b"\x91\xc6\xff\xff\xff\xff", "ValueError"),
    (b"\x91" + b"\x91" * 2000 + b"\xc0", "StackError"),
    (b"\x91\x81\x90\x01", "TypeError"),
    (b"\x91\x92\x01" + MARK + b"\x01", "extension 1 where there should be none"),
    (b"\x91\xd6\xff\x00\x00\x00\x01", "ValueError"),
    (b"\xc1\xd6\xff\x00\x00\x00\x01", "ValueError"),
    (b"\xc1\xc7\x0c\xff" + bytes(12), "ValueError"),
    (b"\xc1\xc7\x00\xff", "ValueError"),
    (b"\xc1\xd4\x01\x00", "ValueError"),
    (b"\xc1" + MARK + b"\x01", "a mark outside the end of an array"),
    (b"\xc1\x92" + MARK + b"\x01\x01", "a mark outside the end of an array"),
    (b"\xc1\x92" + (MARK + b"\x01") * 2, "a mark outside the end of an array"),
    (b"\xc1\x81" + MARK + b"\x01\x01", "a mark outside the end of an array"),
    (b"\xc1\x81\x01" + MARK + b"\x01", "a mark outside the end of an array"),
    (marked(0), "only a newer release may know"),
    (marked(31), "only a newer release may know"),
    (marked(127, 1), "only a newer release may know"),
    (marked(2, []), "TypeError"),
    (marked(3, {}), "TypeError"),
    (marked(4, "1"), "fields that no int has"),
    (marked(4), "fields that no int has"),
    (marked(4, b"\x7f" * 8), "an int of 8 bytes"),
    (marked(4, b"\x7f" * 9000), "an int of 9000 bytes"),
    (marked(5, 10**12), "fields that no bytearray has"),
    (marked(5, "a"), "fields that no bytearray has"),
    (marked(6, "1"), "fields that no complex has"),
    (marked(6, "1", 1), "fields that no complex has"),
    (marked(7, "junk"), "InvalidOperation"),
    (marked(7, "9" * 70_000), "a text of 70000 characters"),
    (marked(7, 2**70), "fields that no Decimal has"),
    (marked(8, "1e1000000000", None), "fields that no Fraction has"),
    (marked(8, 1.5, None), "fields that no Fraction has"),
    (marked(8, Decimal(1), 2), "fields that no Fraction has"),
    (marked(8, 1, 0), "a denominator below 1"),
    (marked(8, "1/3"), "fields that no Fraction has"),
    (marked(9, 0, 1, 0), "ValueError"),
    (marked(10, 2024, 13, 1), "ValueError"),
    (marked(10, b"\x07\xe8\x01\xff"), "fields that no date has"),
    (marked(11, b"\xff\xff\xff\x00\x00\x00"), "fields that no time has"),
    (marked(11, 25, 0, 0, 0, 0, None), "ValueError"),
    (marked(11, 1, 0, 0, 0, 0, "UTC"), "fields that no time has"),
    (marked(12, b"\x07\xe8\x01\x01\xff\xff\xff\x00\x00\x00"), "fields that no datetime has"),
    (marked(12, 2024, 2, 30, 0, 0, 0, 0, 0, None), "ValueError"),
    (marked(12, 2024, 2, 1, 0, 0, 0, 0, 2, None), "ValueError"),
    (marked(13, 10**10, 0, 0), "OverflowError"),
    (marked(14, 86400 * 10**6, None), "ValueError"),
    (marked(14, 0, b"x"), "fields that no timezone has"),
    (marked(15, "No/Such"), "no time zone that this system knows"),
    (marked(14, 0, "x" * 300), "a text of 300 characters"),
    (marked(15, "x" * 300), "a text of 300 characters"),
    (marked(15, "Europe/.."), "no key of a time zone"),
    (marked(15, "../../../etc/passwd"), "no key of a time zone"),
    (marked(15, "/etc/passwd"), "no key of a time zone"),
    (marked(15, "Europe"), "no time zone that this system knows"),
    (marked(15, 1), "fields that no ZoneInfo has"),
    (marked(16, b"short"), "ValueError"),
    (marked(16, "x" * 16), "fields that no UUID has"),
    (marked(17, "999.1.1.1"), "AddressValueError"),
    (marked(17, 1), "fields that no IPv4Address has"),
    (marked(17, "1." * 200), "a text of 400 characters"),
    (marked(18, "10.0.0.1/8"), "ValueError"),
    (marked(22, "::/129"), "NetmaskValueError"),
]


@each("data, words", DAMAGED)
def test_damaged_and_foreign_bytes_are_refused(data: bytes, words: str) -> None:
    """Every way in which bytes can be wrong is a CodecError that says how."""
    with pytest.raises(CodecError) as caught:
        CODEC.decode(data)
    assert words in str(caught.value)
    assert "not a value of this codec, or damaged" in str(caught.value)


@each("kind", [kind for kind in EXTENSIONS if kind.fields is not None])
def test_no_constructor_gets_a_field_of_another_type(kind: Extension, monkeypatch: pytest.MonkeyPatch) -> None:
    """A value of every type in the place of every field: constructors get only the types that encode gives."""
    assert kind.fields is not None

    def unpack(*given: object) -> object:
        assert tuple(map(type, given)) in kind.fields  # type: ignore[operator]  # seen above
        return kind.unpack(*given)

    monkeypatch.setitem(MARKS, kind.code, kind._replace(unpack=unpack))
    good = next(item for item, _ in ONE_OF_EACH if type(item) is kind.type and (kind.code, item) != (4, 7))
    fields = [*kind.pack(good)]
    for at in range(len(fields)):
        for other, _ in ONE_OF_EACH:
            changed = [*fields[:at], other, *fields[at + 1 :]]
            if tuple(map(type, changed)) not in kind.fields:
                with pytest.raises(CodecError, match=f"fields that no {kind.type.__name__} has"):
                    CODEC.decode(marked(kind.code, *changed))
    for wrong in ([], fields[:-1], [*fields, 0]):
        with pytest.raises(CodecError, match="fields that no"):
            CODEC.decode(marked(kind.code, *wrong))


def test_what_a_damaged_value_holds_is_not_quoted() -> None:
    """The reason goes into events and logs; it has no part of the value, and is short."""
    secret = "my-secret"
    for data in (
        marked(7, secret),
        marked(10, 2024, 13, 98_765_431),
        marked(15, secret),
        marked(17, secret),
        marked(20, secret * 20),
        marked(2, [secret]),
        b"\x91\x81\x90\xa9" + secret.encode(),
        b"\x91\xa9my-sec\xff\xff\xff",
        CODEC.encode([secret]) + secret.encode() * 1000,
    ):
        with pytest.raises(CodecError) as caught:
            CODEC.decode(data)
        assert "secret" not in str(caught.value)
        assert "98765431" not in str(caught.value)
        assert caught.value.__context__ is None
        assert len(str(caught.value)) < 200


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
@settings(max_examples=80, deadline=None)
def test_marks_with_wrong_fields_give_a_value_or_a_refusal(code: int, fields: list[object]) -> None:
    """Fields of any type and number under any mark give a value of ours or CodecError."""
    decode_or_refuse(marked(code, *fields))


def test_a_header_that_promises_too_much_allocates_nothing() -> None:
    """Lengths beyond the data are refused before memory is taken for them."""
    for header in (b"\xdb", b"\xc6", b"\xc9", b"\xdd", b"\xdf"):
        with pytest.raises(CodecError):
            CODEC.decode(b"\x91" + header + struct.pack(">I", 2**32 - 1) + b"\x00" * 8)
