"""The codec keeps its promise: equal and of the same type, or refused; and it survives any bytes."""

from __future__ import annotations

import contextlib
import math
import sys
import threading
from collections import OrderedDict
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Context, Decimal, localcontext
from typing import Any
from uuid import uuid1

import msgpack  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings

from nearcache.errors import CodecError
from nearcache.protocol import packing as module
from nearcache.protocol.codec import MsgpackCodec
from nearcache.protocol.types import EXTENSIONS, PACKS
from tests.support.cases import each
from tests.support.values import BERLIN, CODEC, ONE_OF_EACH, form, plain, through, values


@given(values)
@settings(max_examples=100, deadline=None)
def test_a_value_comes_back_equal_and_of_its_type(value: object) -> None:
    """Whatever is carried comes back the same: at any depth, as a key, with bytearrays among it."""
    through(value)


@given(plain)
@settings(deadline=None)
def test_plain_values_are_plain_msgpack_after_one_byte(value: object) -> None:
    """What msgpack carries itself is stored as msgpack writes it."""
    assert CODEC.encode(value)[:1] == b"\x91"
    assert CODEC.encode(value)[1:] == msgpack.packb(value)
    through(value)


@each("value, golden", ONE_OF_EACH)
def test_the_bytes_of_each_type_stay_as_they_are(value: object, golden: str | None) -> None:
    """The encoding of each type is a wire format, shared with older and newer releases."""
    data = CODEC.encode(value)
    assert golden is None or data.hex() == golden
    assert CODEC.decode(data) == value
    assert through(value) is not value or type(value) not in {list, dict, set, bytearray}


def test_the_codes_of_the_types_stay_as_they_are() -> None:
    """A code belongs to one type for ever, and every type has an example above."""
    names = [kind.type.__name__ for kind in EXTENSIONS]
    assert " ".join(names) == (
        "tuple set frozenset int bytearray complex Decimal Fraction range date time datetime timedelta timezone "
        "ZoneInfo UUID IPv4Address IPv4Network IPv4Interface IPv6Address IPv6Network IPv6Interface OrderedDict "
        "PurePosixPath PureWindowsPath PosixPath"
    )
    assert [kind.code for kind in EXTENSIONS] == list(range(1, 27))
    assert {kind.type for kind in EXTENSIONS} <= {type(value) for value, _ in ONE_OF_EACH}


EDGES = [
    *(sign * 2**bits + step for bits in (7, 8, 31, 32, 63, 64, 65, 4096) for sign in (1, -1) for step in (-1, 0, 1)),
    10**5000,
    -0.0,
    math.inf,
    -math.inf,
    math.nan,
    complex(-0.0, math.nan),
    Decimal("-0"),
    Decimal("-0.000"),
    Decimal("1E+3"),
    Decimal("NaN123"),
    Decimal("-sNaN"),
    Decimal("-Infinity"),
    Decimal("9" * 5000),
    Decimal("1E+999999999999999999"),
    Decimal("1E-1999999999999999997"),
    "\x00",
    "\U0010ffff",
    b"",
    bytearray(),
    set(),
    frozenset(),
    {},
    [],
    [[], {}, (), set()],
    date.min,
    date.max,
    datetime.min,  # noqa: DTZ901 # naive ones are values too
    datetime.max,  # noqa: DTZ901
    timedelta.min,
    timedelta.max,
    timedelta.resolution,
    time.max,
    timezone.min,
    timezone.max,
    timezone(timedelta(0), "Zulu"),
    timezone(timedelta(microseconds=-1)),
    time(1, 2, tzinfo=BERLIN, fold=1),
    datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1),
    {(1, (2, frozenset({date.min}))): 1, 1: 2, "1": 3, b"1": 4, None: 5, math.nan: 6},
    [{"a": (bytearray(b"x"), [bytearray(b"y")])}, {1, (2, 3)}],
    {"type": "list", "last": [1, b"\xc7\x00\x01"]},
]


@each("value", EDGES)
def test_edges_come_back_as_they_were(value: object) -> None:
    """The ends of every range, signs of zero, NaN and its payload, exponents, empty containers, mixed keys."""
    through(value)


def test_True_and_1_and_1_0_stay_apart() -> None:  # noqa: N802 # they are the names
    """Equal values of different types are not confused, nested or as keys."""
    assert form(through([True, 1, 1.0, (True, 1, 1.0)])) == form([True, 1, 1.0, (True, 1, 1.0)])
    assert type(next(iter(through({1.0: "a"})))) is float
    assert type(next(iter(through({True: "a"})))) is bool
    assert through(Decimal("1.0")).as_tuple() != through(Decimal("1.00")).as_tuple()


def test_the_utc_object_and_zones_come_back_as_themselves() -> None:
    """timezone.utc and a ZoneInfo are the same objects again, so that comparisons in a fold still hold."""
    assert through(UTC) is UTC
    assert through(datetime(2024, 10, 27, 2, 30, tzinfo=BERLIN, fold=1)).tzinfo is BERLIN
    assert through(timezone(timedelta(hours=1), "CET")).tzname(None) == "CET"


def test_a_uuid_with_a_safety_flag_comes_back_equal() -> None:
    """Where a UUID came from is not part of it."""
    value = uuid1()
    assert CODEC.decode(CODEC.encode(value)) == value


def test_a_decimal_does_not_depend_on_the_application_s_context() -> None:
    """Neither precision, nor traps, nor capitals of the current context change a Decimal on its way."""
    value = [Decimal("1.23456789E+40"), Decimal("sNaN"), Decimal("1E-500")]
    with localcontext(Context(prec=2, Emax=5, Emin=-5, capitals=0, traps=[])):
        data = CODEC.encode(value)
        back = CODEC.decode(data)
        with pytest.raises(CodecError, match="InvalidOperation"):
            CODEC.decode(b"\xc1\x92\xa4junk\xc7\x00\x07")
    assert form(back) == form(value)
    assert form(CODEC.decode(data)) == form(value)


def test_a_decoded_value_shares_nothing_mutable() -> None:
    """Each decode makes a new value."""
    data = CODEC.encode([[1], {"a": (bytearray(b"x"),)}])
    first, second = CODEC.decode(data), CODEC.decode(data)
    assert first == second
    assert first[0] is not second[0]
    assert first[1]["a"][0] is not second[1]["a"][0]


def test_a_memoryview_of_the_bytes_will_do() -> None:
    """A payload can be decoded where it lies in a larger buffer."""
    for value in ([1, "a"], (1, 2)):
        assert CODEC.decode(memoryview(b"--" + CODEC.encode(value))[2:]) == value  # type: ignore[arg-type]


def test_the_codec_is_a_small_immutable_value() -> None:
    """It can be a default, a key, and is shown as it is written."""
    assert repr(CODEC) == "MsgpackCodec()"
    assert MsgpackCodec() == CODEC
    assert hash(MsgpackCodec()) == hash(CODEC)
    with pytest.raises((AttributeError, TypeError)):
        CODEC.anything = 1  # type: ignore[attr-defined]


def test_a_large_value_does_not_pin_its_buffer() -> None:
    """The packer of a large value is dropped, so that its buffer is freed."""
    module._idle.clear()
    CODEC.encode("x" * (module._KEPT_BYTES + 1))
    assert not module._idle
    CODEC.encode("x")
    assert len(module._idle) == 1


def test_encoding_in_the_middle_of_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A finalizer or signal handler that encodes, in a thread that is encoding, disturbs nothing."""
    inner: list[bytes] = []

    def pack(number: complex) -> Any:
        inner.append(CODEC.encode([number.real, "inner"]))
        return (number.real, number.imag)

    monkeypatch.setitem(PACKS, complex, (pack, PACKS[complex][1]))
    value = ["a", 1j, ("b", 2j), [1, 2]]
    assert CODEC.decode(CODEC.encode(value)) == value
    assert [CODEC.decode(data) for data in inner] == [[0.0, "inner"]] * 2


def test_many_threads_share_a_codec() -> None:
    """Threads that encode and decode at once, plain values, marked ones and refused ones, get their own."""
    wrong: list[object] = []
    start = threading.Barrier(6)

    def work(number: int) -> None:
        start.wait()
        for turn in range(300):
            value = [number, turn, *[(number, {"a": date.min}), bytearray(b"x")][: turn % 3]]
            if CODEC.decode(CODEC.encode(value)) != value:
                wrong.append(value)
            with contextlib.suppress(CodecError):
                wrong.append(CODEC.encode([(number,), object()]))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong


@each(
    "value, immutable",
    [
        *((value, type(value) not in {list, dict, set, bytearray, OrderedDict}) for value, _ in ONE_OF_EACH),
        ((1, ("a", frozenset({(2, b"c")}))), True),
        ((1, ("a", [2])), False),
        ((1, (bytearray(),)), False),
        (frozenset({(1, object)}), False),
        (object(), False),
        (type("Str", (str,), {})("a"), False),
    ],
)
def test_what_is_immutable(value: object, immutable: bool) -> None:
    """Values of exactly the types that are carried, without a list, dict, set or bytearray at any depth."""
    assert CODEC.types.is_immutable(value) == immutable


def test_a_tuple_that_is_shared_is_looked_into_once() -> None:
    """However often it occurs in itself."""
    value: Any = (1, "a")
    for _ in range(60):
        value = (value, value)
    assert CODEC.types.is_immutable(value)
    assert not CODEC.types.is_immutable((value, []))
