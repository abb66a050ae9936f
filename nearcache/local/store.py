"""The store of entries and its eviction, on the contract of cachetools.Cache: the base of every policy, and LRU.

Readers look into ``entries`` without a lock, and note a hit by ``touch`` or, where that is None, by raising the entry's
``uses``; everything else is called under the tier's lock. That is why the order is ours: cachetools' own LRUCache
iterates in ``popitem``, which a reader's touch breaks, and may re-insert a key that was just evicted. The C methods of
OrderedDict that are used here are each atomic; the worst a reader sees is a KeyError, which is a miss.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from cachetools import Cache

from nearcache.local.drops import EVICTED
from nearcache.protocol.versions import Version

ENTRY_OVERHEAD = 250
"""Bytes that an entry is estimated to cost beyond its encoded key and value: the object, its dicts, its version."""


NEVER = float("-inf")


@dataclass(slots=True, eq=False, repr=False)
class Proof:
    """What entries of L1 rest on: until when no message can have been missed.

    A heartbeat moves ``until``. A flush gives the tier a new proof and ends the old one for good: a reader that has
    looked its entry up before the flush, and compares after the next heartbeat, can't pass with it.
    """

    until: float = NEVER
    """Monotonic seconds."""
    bucket: int = 0
    """The bucket whose messages it is about."""
    generation: int = 0
    """How often all entries of this bucket were dropped before."""


class Opener:
    """Makes the values of hits of what entries hold: bytes, and from the first hit on a function and its argument.

    An entry's ``value`` is replaced at once, so a reader in another thread sees the one or the other.

    Args:
        decode: makes a value of bytes.
        copies_of: a function and its argument which make copies of a value, quicker than ``decode``; or None.
    """

    __slots__ = ("_copies_of", "decode")

    def __init__(
        self, decode: Callable[[Any], Any], copies_of: Callable[[Any], tuple[Callable[[Any], Any], Any] | None]
    ) -> None:
        self.decode = decode
        self._copies_of = copies_of

    def __call__(self, stored: Any) -> Any:
        """A value of what an entry holds."""
        return stored[0](stored[1]) if type(stored) is tuple else self.decode(stored)

    def first(self, entry: Entry, stored: bytes) -> Any:
        """The value of the first hit; the next ones are copies of it, if that is quicker."""
        value = self.decode(stored)
        copies = self._copies_of(value)
        if copies is None:
            entry.decode = self.decode  # and its value stays
            return value
        entry.value = copies
        return copies[0](copies[1])


NO_PROOF = Proof()
"""Of an entry that is in no tier."""


@dataclass(slots=True, eq=False, repr=False)
class Entry:
    """A value in L1, good while the clock stands before ``deadline`` (monotonic seconds) and before ``proof.until``."""

    value: Any
    deadline: float
    """Until then the fast path serves it; earlier than ``expires`` where an early refresh is due before the end."""
    version: Version
    tags: tuple[str, ...]
    size: int
    expires: float
    """Until then it is fresh; afterwards it is stale."""
    decode: Callable[[Any], Any] | None = None
    """Makes each reader's value of ``value``, which is what the codec or an `Opener` takes; None: all get ``value``."""
    proof: Proof = NO_PROOF
    """Given by the tier that holds it."""

    if TYPE_CHECKING:  # only where a policy counts hits by it, as S3Fifo's entries do
        uses: int = field(init=False)


E = TypeVar("E", bound=Entry)


class Store(Cache[str, E], Generic[E]):
    """Entries, bounded by their number, and by bytes too if asked; a policy adds which one leaves first.

    The contract is cachetools' Cache: capacity, sizes, ``popitem``. Its dicts stay empty: ours have everything that it
    would keep a second time, at 20 to 80 bytes an entry.
    """

    make_entry: ClassVar[type[Entry]] = Entry
    """The class of its entries."""
    touch: Callable[[str], None] | None = None
    """Note that a key was used; KeyError when it has just left. A C method: it is on the hot path. None: a hit raises
    the entry's ``uses`` instead."""

    def __init__(self, entries: dict[str, E], max_entries: int, max_bytes: int | None = None) -> None:
        super().__init__(max_entries if max_bytes is None else max_bytes)
        self.entries = entries
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self.tagged: dict[str, set[str]] = {}
        """The keys that carry a tag."""
        self.bytes = 0
        self.evicted = 0
        self.note_drop: Callable[[tuple[str | None, str]], None] | None = None

    @abstractmethod
    def oldest(self) -> str:
        """The key that would be evicted next without further hits; KeyError when there is none."""

    @abstractmethod
    def used_lately(self, count: int) -> list[str]:
        """At most ``count`` keys that were used lately."""

    @abstractmethod
    def _place(self, key: str, entry: E, held: E | None) -> None:
        """Bring an entry into ``entries`` and the order, in place of ``held``."""

    @abstractmethod
    def _remove(self, key: str) -> E:
        """Take an entry out of ``entries`` and the order, or KeyError."""

    @abstractmethod
    def _evict(self) -> tuple[str, E]:
        """Take out the entry to be evicted; there is at least one."""

    def __getitem__(self, key: str) -> E:
        return self.entries[key]

    def __setitem__(self, key: str, entry: E) -> None:
        self.put(key, entry)

    def put(self, key: str, entry: E) -> None:
        """As ``self[key] = entry``, which takes longer.

        Raises:
            ValueError: alone it is larger than the store.
        """
        held = self.entries.get(key)
        if held is None and not entry.tags and self.max_bytes is None and len(self.entries) < self.max_entries:
            self._place(key, entry, None)  # as nearly always; below, the same for all cases
            self.bytes += entry.size
            return
        if self.max_bytes is not None and not self._fits(entry.size, 1):
            raise ValueError("value too large")
        if held is not None:
            self.bytes -= held.size
            if not self._fits(self.bytes + entry.size, len(self.entries)):  # it grew: as if it were new
                self._remove(key)
                self._untag(key, held.tags)
                held = None
        while held is None and not self._fits(self.bytes + entry.size, len(self.entries) + 1):
            self.popitem()
        # Before it is there, and those of the one before after it: an interrupt leaves no entry that a tag cannot find.
        for tag in entry.tags:
            self.index(key, tag)
        self._place(key, entry, held)
        self.bytes += entry.size
        if held is not None and held.tags != entry.tags:
            self._untag(key, set(held.tags).difference(entry.tags))

    def __delitem__(self, key: str) -> None:
        self._forget(key, self._remove(key))

    def __contains__(self, key: object) -> bool:
        return key in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self)} entries, {self.currsize} of {self.maxsize}>"

    @property
    def currsize(self) -> int:
        """Entries, or the bytes that they are taken to cost where bytes are bounded."""
        count = len(self.entries)
        return count if self.max_bytes is None else self.bytes + ENTRY_OVERHEAD * count

    def popitem(self) -> tuple[str, E]:
        """Evict an entry, and return it with its key."""
        if not self.entries:
            raise KeyError(f"{type(self).__name__} is empty")
        key, entry = self._evict()
        self._forget(key, entry)
        self.evicted += 1
        if self.note_drop is not None:
            self.note_drop((key, EVICTED))
        return key, entry

    def index(self, key: str, tag: str) -> None:
        """Note that the entry of a key carries a tag."""
        self.tagged.setdefault(tag, set()).add(key)

    def take_index(self, tag: str, keys: set[str]) -> set[str]:
        """Let the index forget that these keys carry a tag; the same keys."""
        known = self.tagged.get(tag)
        if known is keys:
            del self.tagged[tag]
        elif known is not None:
            known -= keys
            if not known:
                del self.tagged[tag]
        return keys

    def clear(self) -> None:
        """Remove everything; none of it counts as evicted."""
        self.entries.clear()
        self.tagged.clear()
        self.bytes = 0

    def _fits(self, size: int, count: int) -> bool:
        return count <= self.max_entries and (self.max_bytes is None or size + ENTRY_OVERHEAD * count <= self.max_bytes)

    def _forget(self, key: str, entry: E) -> None:
        self.bytes -= entry.size
        self._untag(key, entry.tags)

    def _untag(self, key: str, tags: Iterable[str]) -> None:
        for tag in tags:
            keys = self.tagged.get(tag, set())
            keys.discard(key)
            if not keys:
                self.tagged.pop(tag, None)


class Lru(Store[Entry]):
    """Least recently used leaves first.

    Source: cachetools' LRUCache, with the order kept so that lock-free readers can't disturb a writer.
    """

    entries: OrderedDict[str, Entry]

    def __init__(self, max_entries: int, max_bytes: int | None = None) -> None:
        super().__init__(OrderedDict(), max_entries, max_bytes)
        self.touch = self.entries.move_to_end

    def oldest(self) -> str:
        """The least recently used."""
        for key in self.entries:
            return key
        raise KeyError("empty")

    def used_lately(self, count: int) -> list[str]:
        """The most recently used."""
        with suppress(RuntimeError):  # without a GIL: a reader has moved one meanwhile
            return list(islice(reversed(self.entries), count))
        return []

    def put(self, key: str, entry: Entry) -> None:
        """As ``Store.put``; a new entry where there is room takes a call less, which a lone read of L2 notices."""
        entries = self.entries
        if key in entries or entry.tags or self.max_bytes is not None or len(entries) >= self.max_entries:
            super().put(key, entry)
        else:
            entries[key] = entry
            self.bytes += entry.size

    def _place(self, key: str, entry: Entry, held: Entry | None) -> None:
        self.entries[key] = entry
        if held is not None:
            self.entries.move_to_end(key)

    def _remove(self, key: str) -> Entry:
        return self.entries.pop(key)

    def _evict(self) -> tuple[str, Entry]:
        return self.entries.popitem(last=False)
