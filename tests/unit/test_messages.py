"""Messages of the bus: taken apart as the scripts make them, and nothing else is taken for one."""

from __future__ import annotations

import contextlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nearcache.protocol import messages
from nearcache.protocol.messages import BadMessage, Message, unpack
from nearcache.protocol.records import pack_names

NAMES = st.lists(st.text(max_size=20).filter(lambda text: text.isprintable()), max_size=5)


def message(kind: bytes, number: int, names: list[str]) -> bytes:
    """A message as the scripts make it."""
    return struct.pack(">BcQ", messages.VERSION, kind, number) + pack_names(names)


@pytest.mark.parametrize("kind", [b"I", b"C", b"T"])
@given(number=st.integers(1, 2**53), names=NAMES)
def test_a_numbered_message_comes_apart_as_it_was_made(kind: bytes, number: int, names: list[str]) -> None:
    """Kind, number and names survive, for any number below 2^53 and any names."""
    assert unpack(message(kind, number, names)) == Message(kind[0], number, names)


@given(names=NAMES)
def test_a_fill_has_no_number(names: list[str]) -> None:
    """F carries names alone."""
    assert unpack(b"\x01F" + pack_names(names)) == Message(messages.FILLED, 0, names)


def test_a_probe_has_a_nonce_and_no_number() -> None:
    """It asks whether messages arrive at all; its sender knows it by the nonce."""
    assert unpack(messages.pack_probe("nonce")) == Message(messages.PROBE, 0, ["nonce"])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x01",
        b"\x02I" + bytes(8),
        b"\x01X" + bytes(8),
        b"\x01I\0\0\0",
        b"hello, world",
        b"\x01I" + bytes(8) + b"\0",
        b"\x01I" + bytes(8) + b"\0\x09short",
        b"\x01F\0\x02\xff\xff",
    ],
    ids=["empty", "cut", "version", "kind", "number", "foreign", "length", "overrun", "utf-8"],
)
def test_what_does_not_parse_is_a_bad_message(data: bytes) -> None:
    """Another version, an unknown kind, cut or foreign bytes: one error, so that L1 is flushed."""
    with pytest.raises(BadMessage):
        unpack(data)


@given(st.binary(max_size=40))
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Whatever comes is a message or a BadMessage."""
    with contextlib.suppress(BadMessage):
        assert isinstance(unpack(data), Message)
