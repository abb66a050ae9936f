"""Filters between the codec and Redis: compression and encryption of a payload, bound to its namespace and key.

The first byte of what they give says what was done. The codec's own bytes stand as they are, unless they begin like one
of these:

    0xf5  the codec's bytes follow, which begin with 0xf5 to 0xff themselves
    0xf6  one zstd frame follows, whose header says its size; in it are the codec's bytes
    0xf7  AES-GCM: length of the key's id (1), the id, nonce (12), ciphertext and tag (16); in it is one of the above,
          or the codec's bytes. Bound as associated data: namespace, key, this byte and the id

0xf8 to 0xff are kept for later formats: this release refuses them. A value is compressed, then encrypted.
"""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache
from importlib import import_module
from os import urandom
from typing import Any, NamedTuple, Self

from nearcache.errors import CodecError, ConfigError
from nearcache.protocol.records import pack_names

PLAIN, ZSTD, AES_GCM = b"\xf5", b"\xf6", b"\xf7"
RESERVED = PLAIN
"""A payload of the codec that begins with a byte below this stands as it is."""
NONCE_BYTES = 12
TAG_BYTES = 16
ID_MAX = 64
OVERHEAD = 3 + ID_MAX + NONCE_BYTES + TAG_BYTES
"""Bytes that filters add at most."""
KEY_BYTES = (16, 24, 32)
SAVES = 8
"""Compression pays if it saves at least one byte in so many."""
_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)


class Zstd(NamedTuple):
    """The part of a zstd library that is used; each call makes a context, which serves one thread at a time."""

    compress: Callable[[bytes], bytes]
    size_of: Callable[[bytes], int | None]
    """What the header of a frame says that the frame holds."""
    expand: Callable[[bytes, int], bytes]
    """The content of exactly one frame, whose size is known."""
    error: type[Exception]


@cache
def zstd() -> Zstd | None:
    """The standard library's (Python 3.14), else `zstandard`; None: neither is there."""
    try:
        return _of_the_standard_library(import_module("compression.zstd"))
    except ImportError:
        pass
    try:
        return _of_zstandard(import_module("zstandard"))
    except ImportError:
        return None


def _of_the_standard_library(module: Any) -> Zstd:
    def expand(frame: bytes, size: int) -> bytes:
        decompressor = module.ZstdDecompressor()
        content: bytes = decompressor.decompress(frame, size + 1)  # the end of the frame is read with room left only
        if not decompressor.eof or decompressor.unused_data:
            raise module.ZstdError("not one whole frame")
        return content

    return Zstd(module.compress, lambda frame: module.get_frame_info(frame).decompressed_size, expand, module.ZstdError)


def _of_zstandard(module: Any) -> Zstd:
    def expand(frame: bytes, _: int) -> bytes:  # the library's buffer has the size that the header says, and no more
        content: bytes = module.ZstdDecompressor().decompress(frame, allow_extra_data=False)
        return content

    def size_of(frame: bytes) -> int | None:
        size: int = module.frame_content_size(frame)
        return None if size < 0 else size

    return Zstd(module.compress, size_of, expand, module.ZstdError)


class KeyRing:
    """Keys of AES-GCM by their ids: the first one encrypts, all decrypt.

    Args:
        keys: pairs of an id, which stands in Redis in clear, and a key of 16, 24 or 32 random bytes.

    Raises:
        ConfigError: an id or a key is none, an id stands twice, or `cryptography` is not installed. The text repeats
            nothing of what was given.

    The keys themselves are in no attribute, and a ring is neither pickled nor shown with them.

    >>> KeyRing([("2026-02", bytes(32)), ("2025-11", bytes(16))])
    <KeyRing 2026-02 2025-11>
    """

    __slots__ = ("_ciphers", "_damaged", "first")

    def __init__(self, keys: Iterable[tuple[str, bytes]]) -> None:
        pairs = _checked_pairs(keys)
        module = _cryptography()
        if module is None:
            raise ConfigError("encryption_keys need the package cryptography: pip install 'nearcache[encryption]'")
        aead, exceptions = module
        self._ciphers: dict[str, Any] = {name: aead.AESGCM(key) for name, key in pairs}
        self._damaged: type[Exception] = exceptions.InvalidTag
        self.first: str = pairs[0][0]

    def encrypt(self, content: bytes, bound: bytes) -> bytes:
        """The content, encrypted by the first key and bound to these bytes, behind its head."""
        head = _head(self.first)
        nonce = urandom(NONCE_BYTES)
        return b"".join((head, nonce, self._ciphers[self.first].encrypt(nonce, content, bound + head)))

    def decrypt(self, data: bytes, bound: bytes) -> bytes:
        """What was encrypted by one of the keys.

        Raises:
            CodecError: by another key, for another name, or it was changed.
        """
        start = 2 + (data[1] if len(data) > 1 else 0)
        if len(data) < start + NONCE_BYTES + TAG_BYTES:
            raise CodecError(f"{len(data)} bytes are no encrypted value; delete the key")
        name = data[2:start].decode("ascii", "replace")
        cipher = self._ciphers.get(name)
        if cipher is None:
            known = f"{name!r}, which is not in encryption_keys" if _ID.fullmatch(name) else "no id, so it is damaged"
            raise CodecError(f"encrypted by the key {known}")
        nonce, body = data[start : start + NONCE_BYTES], data[start + NONCE_BYTES :]
        content: bytes | None = None
        with suppress(self._damaged):
            content = cipher.decrypt(nonce, body, bound + data[:start])
        if content is None:  # raised here: the error of before would be its context
            raise CodecError(f"changed, of another key or namespace, or encrypted by another key called {name!r}")
        return content

    def __repr__(self) -> str:
        return f"<KeyRing {' '.join(self._ciphers)}>"

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _: object) -> Self:  # dataclasses.asdict copies
        return self

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("encryption keys are not pickled: make the settings anew in the other process")


def _head(name: str) -> bytes:
    return b"".join((AES_GCM, bytes((len(name),)), name.encode()))


@cache
def _cryptography() -> tuple[Any, Any] | None:
    try:
        return import_module("cryptography.hazmat.primitives.ciphers.aead"), import_module("cryptography.exceptions")
    except ImportError:
        return None


_FORM = "must be a list of pairs (id, key), the key that encrypts first, as in [('2026-02', os.urandom(32))]"


def _checked_pairs(keys: object) -> list[tuple[str, bytes]]:
    """The keys of a ring; an error says where, and never what: a key may stand where its id belongs."""
    if isinstance(keys, str | bytes | dict) or not isinstance(keys, Iterable):
        raise ConfigError(f"encryption_keys is a {type(keys).__name__}: {_FORM}")
    pairs: list[tuple[str, bytes]] = []
    names: dict[str, int] = {}
    for number, pair in enumerate(keys, 1):
        if not isinstance(pair, tuple | list) or len(pair) != 2:  # noqa: PLR2004  # a pair
            raise ConfigError(f"encryption_keys: item {number} is no pair: {_FORM}")
        name, key = pair
        if not isinstance(name, str) or not _ID.fullmatch(name):
            raise ConfigError(f"encryption_keys: the id of item {number}: must be 1 to 64 of A-Z a-z 0-9 _ . -")
        if not isinstance(key, bytes) or len(key) not in KEY_BYTES:
            what = f"{len(key)} bytes" if isinstance(key, bytes) else f"a {type(key).__name__}"
            raise ConfigError(f"encryption_keys: the key of item {number} is {what}: must be 16, 24 or 32 bytes")
        if names.setdefault(name, number) != number:
            raise ConfigError(f"encryption_keys: items {names[name]} and {number} have the same id: each needs its own")
        pairs.append((name, key))
    if not pairs:
        raise ConfigError(f"encryption_keys is empty: {_FORM}; None: not encrypted")
    return pairs


def keys_of(where: str, text: str) -> KeyRing:
    """The ring that a file says: a line for each key, its id and the key in base64; ``#`` begins a comment.

    Raises:
        ConfigError: it says none; the text names ``where`` and the line, and nothing that stands there.
    """
    pairs: list[tuple[str, bytes]] = []
    for number, line in enumerate(text.splitlines(), 1):
        name, _, rest = line.partition("#")[0].strip().partition(" ")
        if not name:
            continue
        key = b""
        with suppress(ValueError):
            key = b64decode(rest.strip(), validate=True)
        if len(key) not in KEY_BYTES or not _ID.fullmatch(name):
            raise ConfigError(
                f"{where}: line {number}: must be an id, a space, and 16, 24 or 32 bytes in base64, as `openssl rand "
                "-base64 32` prints them"
            )
        pairs.append((name, key))
    try:
        return KeyRing(pairs)
    except ConfigError as error:
        problem = str(error)
    raise ConfigError(f"{where}: {problem}")


class Filters:
    """The filters of one cache.

    Args:
        namespace: bound to what is encrypted.
        max_bytes: of a payload of the codec.
        compress_from: bytes from which a payload is compressed; None: none is. What others have compressed is read.
        keys: those of encryption; None: nothing is encrypted, and nothing encrypted can be read.
    """

    __slots__ = ("_compress_from", "_keys", "_max_bytes", "_namespace")

    def __init__(self, namespace: str, max_bytes: int, compress_from: int | None, keys: KeyRing | None) -> None:
        self._namespace = namespace
        self._max_bytes = max_bytes
        self._compress_from = compress_from
        self._keys = keys

    @property
    def active(self) -> bool:
        """Whether any of them does anything to what is stored."""
        return self._compress_from is not None or self._keys is not None

    def seal(self, key: str, payload: bytes) -> bytes:
        """A payload of the codec as it is stored under this key."""
        sealed = payload
        library = zstd() if self._compress_from is not None and len(payload) >= self._compress_from else None
        if library is not None:
            frame = library.compress(payload)
            if len(frame) < len(payload) - len(payload) // SAVES:
                sealed = ZSTD + frame
        if sealed is payload and payload[:1] >= RESERVED:
            sealed = PLAIN + payload
        return sealed if self._keys is None else self._keys.encrypt(sealed, self._bound(key))

    def open(self, key: str, data: bytes) -> bytes:
        """The payload of the codec in what is stored under this key, at most ``max_bytes``.

        Raises:
            CodecError: it can't be opened here, was made for another key or namespace, or is plain though there are
                keys.
        """
        if len(data) > self._max_bytes + OVERHEAD:
            raise CodecError(f"{len(data)} bytes, over max_value_bytes={self._max_bytes}")
        encrypted = data[:1] == AES_GCM
        if self._keys is not None:
            if not encrypted:
                raise CodecError("not encrypted, though encryption_keys is set")
            data = self._keys.decrypt(data, self._bound(key))
        elif encrypted:
            raise CodecError("encrypted, and encryption_keys is not set")
        form = data[:1]
        if form < RESERVED:
            return data
        if form == PLAIN:
            return data[1:]
        if form == ZSTD:
            return self._expand(data[1:])
        raise CodecError(f"of the format 0x{form.hex()}, which only a newer release may know")

    def _bound(self, key: str) -> bytes:
        return pack_names((self._namespace, key))

    def _expand(self, frame: bytes) -> bytes:
        """The content of a zstd frame: its size is looked at before anything is made of it."""
        library = zstd()
        if library is None:
            raise CodecError("compressed, and no zstd library is installed: pip install 'nearcache[zstd]'")
        problem = ""
        try:
            size = library.size_of(frame)
            if not size:
                problem = "a zstd frame that does not say its size"
            elif size > self._max_bytes:
                problem = f"compressed from {size} bytes, over max_value_bytes={self._max_bytes}"
            else:
                content = library.expand(frame, size)
                if len(content) == size:
                    return content
                problem = "a zstd frame of another size than it says"
        except library.error:
            problem = "no whole zstd frame, or damaged"
        raise CodecError(f"{problem}; delete the key")
