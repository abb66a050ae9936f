"""Compression and encryption: what comes back is what was stored, or the library's own error; no secret is shown."""

from __future__ import annotations

import copy
import dataclasses
import os
import pickle
import sys
from base64 import b64encode
from collections.abc import Iterator
from typing import Any

import pytest

from nearcache import CodecError, ConfigError, Settings
from nearcache.protocol import filters
from nearcache.protocol.filters import AES_GCM, OVERHEAD, PLAIN, ZSTD, Filters, KeyRing, keys_of
from tests.support.cases import each

OLD, NEW = ("2025-11", b"o" * 16), ("2026-02", b"n" * 32)
LONG = b"\x91" + b"the same words again, " * 100
LIMIT = 10_000


def ring(*keys: tuple[str, bytes]) -> KeyRing:
    """A ring of these, or of a new one."""
    return KeyRing(keys or [NEW])


def filters_of(
    namespace: str = "shop", compress_from: int | None = None, keys: KeyRing | None = None, most: int = LIMIT
) -> Filters:
    """Filters that do nothing, unless they are told."""
    return Filters(namespace, most, compress_from, keys)


@pytest.fixture(params=["compression.zstd", "zstandard"])
def library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The zstd of the standard library and the package, one after the other, on any Python."""
    if request.param == "zstandard":
        pytest.importorskip("zstandard")
        monkeypatch.setitem(sys.modules, "compression.zstd", None)
    elif sys.version_info < (3, 14):
        monkeypatch.setitem(sys.modules, "compression.zstd", pytest.importorskip("backports.zstd"))
    filters.zstd.cache_clear()
    yield request.param
    filters.zstd.cache_clear()


@each("compress_from", [None, 1, 1024])
@each("keys", [None, ring(), ring(NEW, OLD)])
@each("payload", [b"", b"\x91\x01", b"\xc1x", b"\xf5", b"\xf6x", b"\xf7" * 99, b"\xff", LONG, os.urandom(5000)])
def test_what_is_sealed_is_opened(payload: bytes, keys: KeyRing | None, compress_from: int | None) -> None:
    """Whatever byte a codec's bytes begin with."""
    both = filters_of(compress_from=compress_from, keys=keys)
    sealed = both.seal("user:7", payload)
    assert both.open("user:7", sealed) == payload
    assert len(sealed) <= len(payload) + OVERHEAD
    if keys is not None:
        assert sealed[:1] == AES_GCM
        assert payload not in sealed or len(payload) < 9


def test_bytes_of_the_codec_stand_as_they_are() -> None:
    """With nothing on, and when compression does not pay or the value is small."""
    for payload in (b"", b"\x91\x01", b"\xc1" + b"a" * 5000, b"\xf4"):
        assert filters_of().seal("a", payload) == payload
    for payload in (LONG[:1000], b"\x91" + os.urandom(5000)):
        assert filters_of(compress_from=1024).seal("a", payload) == payload
    assert filters_of().seal("a", b"\xf9x") == PLAIN + b"\xf9x"


def test_both_libraries_write_the_same_format(library: str) -> None:
    """What the one has written the other reads."""
    sealed = filters_of(compress_from=1024).seal("a", LONG)
    assert sealed[:1] == ZSTD, library
    assert len(sealed) < len(LONG) / 10
    assert filters_of().open("a", sealed) == LONG
    assert filters_of().open("a", ZSTD + bytes.fromhex("28b52ffd2003190000616263")) == b"abc"


def test_a_bomb_is_refused_by_its_header(library: str) -> None:
    """And one whose header says less, or nothing, by the limit of what is made of it."""
    bomb = filters_of(compress_from=1).seal("a", bytes(LIMIT + 1))
    assert len(bomb) < 100, library
    with pytest.raises(CodecError, match="compressed from 10001 bytes, over max_value_bytes=10000"):
        filters_of().open("a", bomb)
    assert filters_of(most=LIMIT + 1).open("a", bomb) == bytes(LIMIT + 1)
    small = bytearray(filters_of(compress_from=1).seal("a", bytes(300)))
    assert small[5] == 0x60  # one segment, and two bytes of size, 256 less than it is
    small[6] -= 1
    assert "zstd frame" in refusal(bytes(small))
    unsaid = ZSTD + bytes.fromhex("28b52ffd0058190000616263")
    assert refusal(unsaid) == "a zstd frame that does not say its size; delete the key"


def test_what_is_no_whole_frame_is_refused(library: str) -> None:
    """Cut, empty, longer, two of them, or one that may be left out."""
    sealed = filters_of(compress_from=1).seal("a", LONG)
    skippable = bytes.fromhex("502a4d1803000000616263")
    for damaged in (sealed[:-1], sealed[:9], ZSTD, sealed + b"x", sealed + sealed[1:], ZSTD + skippable, ZSTD + b"abc"):
        assert "zstd frame" in refusal(damaged), library


def refusal(data: bytes, opens: Filters | None = None) -> str:
    """What opening it says."""
    with pytest.raises(CodecError) as caught:
        (opens or filters_of()).open("a", data)
    assert caught.value.__context__ is None
    return str(caught.value)


def test_what_is_encrypted_is_bound_to_its_place() -> None:
    """Under another key, in another namespace, with another id or format it can't be opened."""
    mine = filters_of(keys=ring())
    sealed = mine.seal("a", LONG)
    for opens, key in ((mine, "b"), (filters_of("shop2", keys=ring()), "a"), (filters_of("shop\0\1", keys=ring()), "")):
        with pytest.raises(CodecError, match="changed, of another key or namespace"):
            opens.open(key, sealed)
    other = filters_of(keys=ring((OLD[0], NEW[1])))
    renamed = sealed.replace(NEW[0].encode(), OLD[0].encode())
    assert "changed" in refusal(renamed, other)


def test_each_changed_or_missing_byte_is_noticed() -> None:
    """Of the head, the nonce, the text and the tag."""
    mine = filters_of(keys=ring())
    sealed = mine.seal("a", b"\x91\x01")
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1
        refusal(bytes(changed), mine)
        refusal(sealed[:at], mine)
    refusal(sealed + b"\0", mine)


def test_each_value_has_a_nonce_of_its_own() -> None:
    """Two of the same value look different."""
    mine = filters_of(keys=ring())
    assert len({mine.seal("a", LONG) for _ in range(100)}) == 100


def test_old_keys_are_read_and_the_first_one_writes() -> None:
    """So keys are rotated: add the new one behind, then before the old one, then drop the old one."""
    old, both, after, new = (filters_of(keys=ring(*keys)) for keys in ([OLD], [OLD, NEW], [NEW, OLD], [NEW]))
    assert both.open("a", old.seal("a", LONG)) == after.open("a", old.seal("a", LONG)) == LONG
    assert both.open("a", after.seal("a", LONG)) == new.open("a", after.seal("a", LONG)) == LONG
    assert refusal(after.seal("a", LONG), old) == "encrypted by the key '2026-02', which is not in encryption_keys"
    assert "another key called '2025-11'" in refusal(old.seal("a", LONG), filters_of(keys=ring((OLD[0], b"x" * 16))))


def test_plain_bytes_are_refused_with_keys() -> None:
    """Who has no key can put nothing there; without keys what is encrypted is refused."""
    mine = filters_of(keys=ring())
    for plain in (b"", b"\x91\x01", PLAIN + b"\xf5", filters_of(compress_from=1).seal("a", LONG)):
        assert refusal(plain, mine) == "not encrypted, though encryption_keys is set"
    assert refusal(mine.seal("a", LONG)) == "encrypted, and encryption_keys is not set"


def test_formats_of_later_releases_are_refused() -> None:
    """Outside and inside."""
    assert "format 0xf8, which only a newer release" in refusal(b"\xf8x")
    keys = ring()
    twice = keys.encrypt(AES_GCM + b"x", b"\0\x04shop\0\x01a")
    assert "format 0xf7" in refusal(twice, filters_of(keys=keys))


def test_a_record_that_is_too_large_is_refused_before_the_work() -> None:
    """Its size is bounded by max_value_bytes, whatever the filters add."""
    assert "over max_value_bytes=10000" in refusal(b"\xf5" * (LIMIT + OVERHEAD + 1))


def test_without_the_libraries_there_is_a_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked for, it is a ConfigError; what others have compressed is a miss."""
    sealed = filters_of(compress_from=1).seal("a", LONG)
    for name in ("compression.zstd", "zstandard", "cryptography.hazmat.primitives.ciphers.aead"):
        monkeypatch.setitem(sys.modules, name, None)
    filters.zstd.cache_clear()
    filters._cryptography.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"compress='zstd' needs .*: pip install 'nearcache\[zstd\]'"):
            Settings(compress="zstd")
        with pytest.raises(ConfigError, match=r"cryptography: pip install 'nearcache\[encryption\]'"):
            Settings(encryption_keys=[NEW])
        assert "pip install 'nearcache[zstd]'" in refusal(sealed)
    finally:
        filters.zstd.cache_clear()
        filters._cryptography.cache_clear()


SECRET = b"s3cret-s3cret-s3cret-s3cret-s3cr"


@each(
    "keys, words",
    [
        (SECRET, "is a bytes: must be a list of pairs"),
        (SECRET.decode(), "is a str: must be a list of pairs"),
        ({"a": SECRET}, "is a dict: must be a list of pairs"),
        ([], "is empty"),
        (7, "is a int"),
        ([SECRET], "item 1 is no pair"),
        ([("a", SECRET, 1)], "item 1 is no pair"),
        ([("a", SECRET), (SECRET, "b")], "the id of item 2: must be 1 to 64"),
        ([("", SECRET)], "the id of item 1"),
        ([("x" * 65, SECRET)], "the id of item 1"),
        ([("ä", SECRET)], "the id of item 1"),
        ([("a", SECRET.decode())], "the key of item 1 is a str: must be 16, 24 or 32 bytes"),
        ([("a", SECRET[:31])], "the key of item 1 is 31 bytes: must be 16, 24 or 32 bytes"),
        ([("a", SECRET), ("b", SECRET), ("a", SECRET)], "items 1 and 3 have the same id"),
    ],
)
def test_keys_that_are_none(keys: Any, words: str) -> None:
    """The message says where, and repeats nothing: a key may stand where its id belongs."""
    with pytest.raises(ConfigError) as caught:
        Settings(encryption_keys=keys)
    assert words in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_ring_shows_no_key() -> None:
    """Neither in its repr, nor copied, as a dict, or pickled; it may be given again."""
    settings = Settings(encryption_keys=[("a", SECRET), ("b", b"x" * 16)])
    assert "encryption_keys=<KeyRing a b>" in repr(settings)
    fields = dataclasses.asdict(settings)
    assert fields["encryption_keys"] is settings.encryption_keys
    assert Settings(**{**fields, "codec": settings.codec}) == settings
    assert copy.copy(settings.encryption_keys) is copy.deepcopy(settings).encryption_keys is settings.encryption_keys
    assert "s3cret" not in repr(fields)
    for what in (settings, settings.encryption_keys):
        with pytest.raises(TypeError, match="encryption keys are not pickled"):
            pickle.dumps(what)
    kept = [getattr(settings.encryption_keys, name) for name in KeyRing.__slots__]
    assert "s3cret" not in repr(kept)


def test_keys_in_a_file() -> None:
    """A line each; comments and empty lines are left out."""
    of_february, of_november = b64encode(NEW[1]).decode(), b64encode(OLD[1]).decode()
    lines = f"# both\n2026-02 {of_february}\n\n  2025-11   {of_november} # old\n"
    sealed = filters_of(keys=ring(NEW, OLD)).seal("a", LONG)
    assert filters_of(keys=keys_of("F", lines)).open("a", sealed) == LONG
    assert repr(keys_of("F", lines)) == "<KeyRing 2026-02 2025-11>"


@each("line", ["czNjcmV0", "a czNjcmV0", "a s3cret!", "a", f"{SECRET.decode()}== a", "ä bm5ubm5ubm5ubm5ubm5ubg=="])
def test_a_file_that_says_no_key(line: str) -> None:
    """The error names the variable and the line, and repeats nothing."""
    with pytest.raises(ConfigError, match=r"^NEARCACHE_X: line 2: must be an id, a space, and 16, 24 or 32") as caught:
        keys_of("NEARCACHE_X", f"#\n{line}\n")
    assert "s3cret" not in str(caught.value)
    assert "czNj" not in str(caught.value)
    assert caught.value.__context__ is None
    with pytest.raises(ConfigError, match="NEARCACHE_X: encryption_keys is empty"):
        keys_of("NEARCACHE_X", "# none\n")
