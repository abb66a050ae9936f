"""What a value may cost: time and memory are bounded before they are spent, when it is stored and when it is read."""

from __future__ import annotations

import shutil
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import partial
from ipaddress import ip_address
from itertools import product
from pathlib import Path
from time import process_time
from typing import Any
from uuid import UUID
from zoneinfo import TZPATH, ZoneInfo, reset_tzpath

import pytest

from nearcache.errors import CodecError, ValueTooLarge
from nearcache.protocol import types
from nearcache.protocol.codec import MsgpackCodec
from nearcache.protocol.hashing import Hashing
from nearcache.protocol.registry import Types
from nearcache.protocol.types import Damaged
from tests.support.cases import each
from tests.support.hostile import HOSTILE, P, marked
from tests.support.values import CODEC, through

MIB = 1024 * 1024
LIMITED = MsgpackCodec(8 * MIB)


def cost_of(action: Callable[[], object], error: type[Exception]) -> tuple[float, float]:
    """Seconds of the processor, and MiB, that an action takes until it raises."""
    began = process_time()
    with pytest.raises(error):
        action()
    seconds = process_time() - began
    tracemalloc.start()  # makes it several times slower
    try:
        with pytest.raises(error):
            action()
        return seconds, tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


# ------------------------------------------------------------------------------------------------------------ decoding


@each("name", HOSTILE)
def test_hostile_bytes_are_refused_cheaply(name: str) -> None:
    """Bytes that are made to cost much more than their size are refused at a cost near their size."""
    data = HOSTILE[name]()
    seconds, mib = cost_of(partial(CODEC.decode, data), CodecError)
    assert seconds < 2
    assert mib < 36


def test_a_table_that_takes_too_long_is_given_up() -> None:
    """Keys of different hashes can be chosen to pass each other's places: the time to fill a table has an end."""
    hashing = Hashing(1000, Types())
    assert len(hashing.dict_of([(number, None) for number in range(100_000)])) == 100_000
    hashing.seconds = 0.0
    with pytest.raises(Damaged, match="collide in their table"):
        hashing.dict_of([(number, None) for number in range(1000)])
    with pytest.raises(Damaged, match="collide in their table"):
        hashing.set_of(list(range(1000)))
    assert len(hashing.dict_of([(str(number), None) for number in range(100)])) == 100


@each(
    "value",
    [
        {-1: "a", -2: "b", -1.5: "c"},
        set(product(range(-2, 3), repeat=5)),
        {frozenset({(0, -1), (0, y)}) for y in (-2, 1, 2)} | {frozenset({(0, -2), (0, y)}) for y in (-1, 1, 2)},
        {2.0**power for power in range(-1074, 1024)},
        {frozenset({-1}), frozenset({-2})},
        {P * number: number for number in range(-4, 9)},
        dict.fromkeys(range(200_000)),
        {UUID(int=number * P) for number in range(50)},
    ],
)
def test_keys_that_collide_as_they_do_in_life_are_carried(value: object) -> None:
    """-1 and -2 have one hash, and so have many tuples of them; they are no attack."""
    through(value)


def test_the_largest_numbers_and_names_come_back() -> None:
    """What is just within the bounds is carried, and what is beyond is refused when it is stored."""
    numbers: list[object] = [2**65_000, -(10**10_000), Fraction(3**20_000, 2**65_000), Decimal("7" * 65_536)]
    for value in numbers:
        assert CODEC.decode(CODEC.encode(value)) == value
    beyond: list[tuple[object, str]] = [
        ([2**70_000], r"value\[0\] is an int of 8751 bytes, at most 8193: cache it in another form"),
        (Decimal("7" * 65_537), "value is a text of 65537 characters, at most 65536"),
        ({"a": ip_address("fe80::1%" + "x" * 300)}, r"value\['a'\] is a text of 308 characters"),
    ]
    for large, words in beyond:
        with pytest.raises(CodecError, match=words):
            CODEC.encode(large)


def test_honest_large_values_are_carried() -> None:
    """8 MiB of rows, of pairs of floats, of text in any language."""
    rows = [{"id": number, "name": f"n{number}", "tags": ["a", "b"], "at": 1.5} for number in range(100_000)]
    for value in (
        rows,
        [[number / 3, 2.5] for number in range(400_000)],
        "\u4e2d\u6587" * MIB,
        [b"\x90\xdd" * 1000] * 4000,
    ):
        assert LIMITED.decode(LIMITED.encode(value)) == value


def test_what_is_stored_can_be_read_whatever_its_containers() -> None:
    """A value of more containers than are made of bytes is refused when it is stored."""
    with pytest.raises(CodecError, match="the value has over 140447 lists, dicts and sets: store it in parts"):
        CODEC.encode([[]] * 150_000)
    for count in range(139_804, 139_812):
        value: list[list[int]] = [[]] * count
        try:
            data = CODEC.encode(value)
        except CodecError:
            continue
        assert CODEC.decode(data) == value
    assert CODEC.decode(CODEC.encode([[]] * 139_000)) == [[]] * 139_000


# ------------------------------------------------------------------------------------------------------------ encoding


def shared(wrap: Callable[[Any], Any], core: Any, depth: int = 28) -> Any:
    """A value that doubles with each level."""
    for _ in range(depth):
        core = wrap(core)
    return core


LARGE: dict[str, Callable[[], Any]] = {
    "lists": lambda: shared(lambda item: [item, item], "x"),
    "tuples": lambda: shared(lambda item: (item, item), 1),
    "dicts": lambda: shared(lambda item: {"a": item, "b": item}, None),
    "dicts by number": lambda: shared(lambda item: {1: item, 2: item}, None),
    "frozensets": lambda: shared(lambda item: (frozenset({item}), item), 1),
    "with a bytearray": lambda: shared(lambda item: [item, item], bytearray(b"x")),
    "one of two deep": lambda: shared(lambda item: [item[1], [item[0], item[1]]], [1, 2], 60),
    "beside other rows": lambda: [*({"id": n} for n in range(9000)), shared(lambda item: [item, item], "x")],
    "texts": lambda: ["x" * MIB] * 1000,
    "bytes": lambda: {"a": (b"x" * MIB,) * 1000},
    "keys": lambda: [{"x" * MIB: 1}] * 1000,
    "keys among others": lambda: [{1: 1}, *[{"x" * MIB: 1}] * 1000],
    "large ints": lambda: [2**65_000] * 100_000,
    "large fractions": lambda: [Fraction(1, 2**65_000)] * 100_000,
    "decimals": lambda: [Decimal("7" * 60_000)] * 10_000,
    "one text": lambda: "x" * 9 * MIB,
    "one bytearray": lambda: [bytearray(9 * MIB)],
}


@each("name", LARGE)
def test_a_value_that_would_be_too_large_is_measured_before_it_is_packed(name: str) -> None:
    """Shared parts are packed once for each place: a small value may have gigabytes of bytes."""
    seconds, mib = cost_of(partial(LIMITED.encode, LARGE[name]()), ValueTooLarge)
    assert seconds < 2
    assert mib < 30


def test_shared_parts_are_carried_while_they_are_few() -> None:
    """A part that occurs at many places is no reason to refuse a value that fits."""
    row = {"id": 1, "name": "Ada", "tags": ("a", "b")}
    for value in (
        [row] * 10_000,
        [[row, row], [row] * 9000],
        [()] * 50_000,
        shared(lambda item: [item, item], "x", 14),
    ):
        assert LIMITED.decode(LIMITED.encode(value)) == value


def test_a_refused_type_is_found_in_a_value_with_shared_parts() -> None:
    """The search for the reason looks into each part once."""
    with pytest.raises(CodecError, match=r"value\[0\]\[0\].*\[0\] is a object"):
        CODEC.encode(shared(lambda item: [item, item], object()))
    sound = shared(lambda item: [item, item], "x", 26)
    with pytest.raises(CodecError, match=r"value\[1\] is a object"):
        CODEC.encode([sound, object()])


def test_the_path_to_what_is_refused_is_short() -> None:
    """However deep it sits, and however long the keys are."""
    value: Any = object()
    for _ in range(300):
        value = {"key" * 100: value}
    with pytest.raises(CodecError) as caught:
        CODEC.encode(value)
    assert len(str(caught.value)) < 400


# ---------------------------------------------------------------------------------------------------------- time zones


@pytest.fixture
def tzdata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A system that has its zones in the package tzdata alone."""
    package = tmp_path / "tzdata"
    berlin = next(path for path in (Path(root, "Europe/Berlin") for root in TZPATH) if path.exists())
    for name in ("Made", "evil"):
        folder = package / "zoneinfo" / name
        folder.mkdir(parents=True)
        shutil.copy(berlin, folder / "Up")
        (folder / "__init__.py").write_text("")
    for folder in (package, package / "zoneinfo"):
        (folder / "__init__.py").write_text("")
    (package / "zones").write_text("Made/Up\nOther/Zone\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(types, "_zone_keys", set())
    types._listed.cache_clear()
    reset_tzpath([])
    yield package
    reset_tzpath()
    types._listed.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "tzdata"]:
        del sys.modules[name]


def test_the_key_of_a_time_zone_imports_nothing(tzdata: Path) -> None:
    """A key that no list has is not looked up among packages, of which it would import those that it names."""
    for key in ("evil/Up", "evil", "Made/Down"):
        with pytest.raises(CodecError, match="no time zone that this system knows"):
            CODEC.decode(marked(15, key))
    assert "tzdata.zoneinfo.evil" not in sys.modules
    assert tzdata.exists()


def test_zones_of_the_package_tzdata_are_carried(tzdata: Path) -> None:
    """Where the system has no zones of its own, those that tzdata lists come back as the same objects."""
    assert tzdata.exists()
    assert through(ZoneInfo("Made/Up")) is ZoneInfo("Made/Up")
