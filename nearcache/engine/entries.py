"""Values become what is stored: records for Redis, entries for L1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from nearcache.engine.ports import Runtime
from nearcache.errors import CodecError, ConfigError, ValueTooLarge
from nearcache.local.interrupts import from_signal_handler
from nearcache.local.invalidation import Invalidation
from nearcache.local.store import NO_PROOF, Entry, Opener
from nearcache.local.tier import Tier
from nearcache.policy import Policy
from nearcache.protocol.answers import Item, Written
from nearcache.protocol.codec import Codec, MsgpackCodec
from nearcache.protocol.copying import copies_of
from nearcache.protocol.filters import RESERVED, Filters
from nearcache.protocol.packing import PLAIN
from nearcache.protocol.records import Record, pack_tail
from nearcache.protocol.registry import NO_TYPES, Types
from nearcache.protocol.types import IMMUTABLE
from nearcache.protocol.versions import CREATED_BITS, Version, created_of
from nearcache.settings import Settings

_new = object.__new__
MUTABLE = frozenset({dict, list, set})
MEASURED = 64 * 1024
"""A value that is too large by no more is packed all the same, so that the error says its size."""


@dataclass(slots=True)
class Encoded(Item):
    """A value that may be stored: as Redis gets it, as given, and as bytes."""

    value: Any = None
    payload: bytes = b""
    load_ms: int = 0


@dataclass(slots=True, eq=False)
class Entries:
    """Makes records and entries for one cache."""

    settings: Settings
    runtime: Runtime
    tier: Tier
    invalidation: Invalidation
    codec: Codec = field(init=False)
    """The codec of the settings; ours stops while it packs what is far too large."""
    decode_checked: Callable[[bytes], Any] = field(init=False)
    """As ``decode``, of bytes that are known to be no more than ``max_value_bytes``: a call less."""
    plain_form: bytes = b""
    """What plain msgpack of this codec begins with; empty: the codec is a user's."""
    filters: Filters = field(init=False)
    """What stands between the codec and Redis; L1 keeps what they open."""
    _seal: Callable[[str, bytes], bytes] | None = field(init=False, default=None)
    """The filters' work on what is stored; None: they would give the same bytes."""
    sealed_from: bytes = field(init=False, default=RESERVED)
    """A payload that begins with a byte below this one is the codec's as it stands, and need not be opened."""
    types: Types = NO_TYPES
    """The registered types."""
    opener: Opener = field(init=False)
    """Makes the values of hits of what an entry holds."""

    def __post_init__(self) -> None:
        settings = self.settings
        self.codec = settings.codec
        compress_from = None if settings.compress is None else settings.compress_min_bytes
        keys = settings.encryption_keys
        self.filters = Filters(settings.namespace, settings.max_value_bytes, compress_from, keys)
        if type(self.codec) is MsgpackCodec:
            self.codec = replace(self.codec, max_bytes=settings.max_value_bytes + MEASURED)
            self.types = self.codec.types
            self.plain_form = bytes((PLAIN,))
        self.decode_checked = self.codec.decode if type(self.codec) is MsgpackCodec else self.decode
        self.opener = Opener(self.decode_checked, lambda value: copies_of(value, self.types))
        if self.filters.active or type(self.codec) is not MsgpackCodec:  # whose bytes never look like the filters'
            self._seal = self.filters.seal
        if keys is not None:
            self.sealed_from = b""  # every one has to be opened, so that a plain one is refused

    def encode(self, key: str, value: object, policy: Policy, load_ms: int = 0) -> Encoded | None:
        """A value ready to be stored; None when negative_ttl or the condition turns it down.

        Raises:
            CodecError, ValueTooLarge: it can't be stored.
            ConfigError: ``ttl`` or ``condition`` is a function that raises, or gives no ttl for this value.
        """
        of_user = policy.condition is not None or callable(policy.ttl)  # else nothing raises: a call less
        ttl_ms = self.ttl_ms(key, value, policy) if of_user else policy.ttl_ms(value)
        if ttl_ms is None:
            return None
        try:
            payload = self.codec.encode(value)
        except ValueTooLarge:
            raise self._too_large(key, None) from None
        if not isinstance(payload, bytes):
            raise CodecError(f"the codec gave {type(payload).__name__} for {key!r}: encode must give bytes")
        if len(payload) > self.settings.max_value_bytes:
            raise self._too_large(key, len(payload))
        tail = pack_tail(payload if self._seal is None else self._seal(key, payload), policy.tags)
        return Encoded(key, tail, ttl_ms, policy.stale_ms, value, payload, load_ms)

    def ttl_ms(self, key: str, value: object, policy: Policy) -> int | None:
        """For how long this value is fresh, in ms; None when negative_ttl or the condition turns it down.

        Raises:
            ConfigError: ``ttl`` or ``condition`` is a function that raises, or gives no ttl for this value.
        """
        try:
            return policy.ttl_ms(value)
        except ConfigError:
            raise
        except Exception as error:
            if from_signal_handler(error):
                raise
            raise ConfigError(f"{key!r}: ttl or condition raised {type(error).__name__}: {error}") from error

    def _too_large(self, key: str, size: int | None) -> ValueTooLarge:
        most = self.settings.max_value_bytes
        shown = f"over {most}" if size is None else size
        return ValueTooLarge(
            f"the value of {key!r} has {shown} bytes encoded: at most max_value_bytes={most}; store it in parts, or "
            "raise the setting"
        )

    def open(self, key: str, record: Record) -> Record:
        """A record of Redis with the codec's bytes as its payload, as ``decode`` and L1 take it.

        Raises:
            CodecError: the filters can't open it, or it is of another key.
        """
        return record._replace(payload=self.filters.open(key, record.payload))

    def decode(self, payload: bytes) -> Any:
        """The value of an opened payload.

        Raises:
            CodecError: it can't be read, or is larger than any value that may be stored here. The text quotes nothing
                of the value, and so nothing of what a user's codec says.
        """
        if len(payload) > self.settings.max_value_bytes:
            raise CodecError(f"{len(payload)} bytes, over max_value_bytes={self.settings.max_value_bytes}")
        try:
            return self.codec.decode(payload)
        except Exception as error:
            if type(self.codec) is MsgpackCodec or from_signal_handler(error):
                raise
            raise CodecError(f"the codec raised {type(error).__name__} for {len(payload)} bytes") from error

    def entry(
        self,
        key: str,
        value: object,
        payload: bytes,
        version: Version,
        fresh_until: int,
        policy: Policy,
        tags: tuple[str, ...],
        load_ms: int,
    ) -> Entry:
        """A value of L2 as L1 holds it, with the deadlines that its freshness, l1_ttl and early refreshes give."""
        expires = deadline = fresh_until / 1e6 - self.invalidation.server_offset
        if policy.early_refresh is not None or policy.xfetch_beta is not None:
            created = created_of(version) / 1e6 - self.invalidation.server_offset
            deadline = min(expires, policy.refresh_at(created, expires, load_ms / 1000))
        if policy.l1_ttl is not None:
            expires = min(expires, self.runtime.monotonic() + policy.l1_ttl)
            deadline = min(deadline, expires)
        # As _is_shared, a call less.
        copy = policy.copy
        kind = type(value)
        shared = copy == "none" or (
            copy == "auto" and (kind in IMMUTABLE or (kind not in MUTABLE and self.types.is_immutable(value)))
        )
        kept, decode = (value, None) if shared else (payload, self.opener if copy == "auto" else self.decode_checked)
        entry: Entry = _new(self.tier.make_entry)  # what its __init__ does, which takes twice as long
        entry.value, entry.decode = kept, decode
        entry.deadline, entry.expires = deadline, expires
        entry.version, entry.tags = version, tags
        entry.size, entry.proof = len(key) + len(payload), NO_PROOF
        return entry

    def of_write(self, encoded: Encoded, written: Written, policy: Policy) -> Entry:
        """A value that Redis has just taken, as L1 holds it."""
        version = written.number << CREATED_BITS | written.created
        fresh_until = written.created + encoded.ttl_ms * 1000
        return self.entry(
            encoded.key, encoded.value, encoded.payload, version, fresh_until, policy, policy.tags, encoded.load_ms
        )

    def of_outage(self, encoded: Encoded, began: float | None, policy: Policy) -> Entry:
        """A value that Redis could not take, kept for so long that no write is missed for more than G1 allows.

        With ``began=None`` Redis is there, and refused it: the value only serves after a later error.
        """
        until = self.runtime.monotonic()
        if began is not None:
            until = began + min(self.settings.outage_life, encoded.ttl_ms / 1000)
        size = len(encoded.key) + len(encoded.payload)
        shared = _is_shared(encoded.value, policy, self.types)
        opens = self.opener if policy.copy == "auto" else self.decode_checked
        kept, decode = (encoded.value, None) if shared else (encoded.payload, opens)
        return self.tier.make_entry(kept, until, 0, policy.tags, size, until, decode)

    def value_of(self, entry: Entry) -> Any:
        """The value of an entry, as a hit gives it.

        Raises:
            CodecError: the codec can't read what it has written.
        """
        if entry.decode is None:
            return entry.value
        return entry.decode(entry.value)

    def pack(self, value: object, policy: Policy) -> bytes | None:
        """The bytes of a value that several readers wait for; None: they share the value itself."""
        if _is_shared(value, policy, self.types):
            return None
        try:
            return self.codec.encode(value)
        except Exception:  # noqa: BLE001  # a value that can't be stored is shared as it is; its leader has reported it
            return None


def _is_shared(value: object, policy: Policy, types: Types) -> bool:
    """Whether all readers get the same object: nobody can change it, or the caller has promised not to."""
    return policy.copy == "none" or (policy.copy == "auto" and types.is_immutable(value))
