"""Values become what is stored: records for Redis, entries for L1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from nearcache.errors import CodecError, ConfigError, ValueTooLarge
from nearcache.local.interrupts import from_signal_handler
from nearcache.local.invalidation import Invalidation
from nearcache.local.store import Entry
from nearcache.local.tier import Tier
from nearcache.policy import Policy
from nearcache.protocol.answers import Item, Written
from nearcache.protocol.codec import Codec, MsgpackCodec
from nearcache.protocol.records import Record, pack_tail
from nearcache.protocol.types import is_immutable
from nearcache.protocol.versions import created_of
from nearcache.settings import Settings

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
    monotonic: Callable[[], float]
    tier: Tier
    invalidation: Invalidation
    codec: Codec = field(init=False)
    """The codec of the settings; ours stops while it packs what is far too large."""

    def __post_init__(self) -> None:
        self.codec = self.settings.codec
        if type(self.codec) is MsgpackCodec:
            self.codec = MsgpackCodec(self.settings.max_value_bytes + MEASURED)

    def encode(self, key: str, value: object, policy: Policy, load_ms: int = 0) -> Encoded | None:
        """A value ready to be stored; None when negative_ttl or the condition turns it down.

        Raises:
            CodecError, ValueTooLarge: it can't be stored.
            ConfigError: ``ttl`` or ``condition`` is a function that raises, or gives no ttl for this value.
        """
        try:
            ttl_ms = policy.ttl_ms(value)
        except ConfigError:
            raise
        except Exception as error:
            if from_signal_handler(error):
                raise
            raise ConfigError(f"{key!r}: ttl or condition raised {type(error).__name__}: {error}") from error
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
        tail = pack_tail(payload, policy.tags)
        return Encoded(key, tail, ttl_ms, policy.stale_ms, value, payload, load_ms)

    def _too_large(self, key: str, size: int | None) -> ValueTooLarge:
        most = self.settings.max_value_bytes
        shown = f"over {most}" if size is None else size
        return ValueTooLarge(
            f"the value of {key!r} has {shown} bytes encoded: at most max_value_bytes={most}; store it in parts, or "
            "raise the setting"
        )

    def decode(self, payload: bytes) -> Any:
        """The value of a record's payload.

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

    def of_record(self, key: str, value: object, record: Record, policy: Policy) -> Entry:
        """A record as L1 holds it, with the deadlines that L2's freshness, l1_ttl and early refreshes give."""
        expires = self.invalidation.deadline(record.fresh_until)
        deadline = expires
        if policy.early_refresh is not None or policy.xfetch_beta is not None:
            created = self.invalidation.deadline(created_of(record.version))
            deadline = min(expires, policy.refresh_at(created, expires, record.load_ms / 1000))
        if policy.l1_ttl is not None:
            expires = min(expires, self.monotonic() + policy.l1_ttl)
            deadline = min(deadline, expires)
        size = len(key) + len(record.payload)
        kept, decode = self._kept(value, record.payload, policy)
        return self.tier.make_entry(kept, deadline, record.version, record.tags, size, expires, decode)

    def of_write(self, encoded: Encoded, written: Written, policy: Policy) -> Entry:
        """A value that Redis has just taken, as L1 holds it."""
        fresh_until = written.created + encoded.ttl_ms * 1000
        record = Record(written.version, fresh_until, policy.tags, encoded.payload, encoded.load_ms)
        return self.of_record(encoded.key, encoded.value, record, policy)

    def of_outage(self, encoded: Encoded, began: float | None, policy: Policy) -> Entry:
        """A value that Redis could not take, kept for so long that no write is missed for more than G1 allows.

        With ``began=None`` Redis is there, and refused it: the value only serves after a later error.
        """
        until = self.monotonic()
        if began is not None:
            until = began + min(self.settings.outage_life, encoded.ttl_ms / 1000)
        size = len(encoded.key) + len(encoded.payload)
        kept, decode = self._kept(encoded.value, encoded.payload, policy)
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
        if _is_shared(value, policy):
            return None
        try:
            return self.codec.encode(value)
        except Exception:  # noqa: BLE001  # a value that can't be stored is shared as it is; its leader has reported it
            return None

    def _kept(self, value: object, payload: bytes, policy: Policy) -> tuple[object, Callable[[bytes], Any] | None]:
        """What an entry holds, and what makes a value of it."""
        if _is_shared(value, policy):
            return value, None
        return payload, self.codec.decode if type(self.codec) is MsgpackCodec else self.decode  # a call less


def _is_shared(value: object, policy: Policy) -> bool:
    """Whether all readers get the same object: nobody can change it, or the caller has promised not to."""
    return policy.copy == "none" or (policy.copy == "auto" and is_immutable(value))
