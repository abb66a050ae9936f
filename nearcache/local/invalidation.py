"""Messages and heartbeats applied to L1: numbers without a gap prove it, and anything else flushes it.

Each message carries the next write number. ``last`` is the highest one seen; it survives a lost connection, so that a
gap is noticed in every state (docs/protocol.md, A). A heartbeat's answer comes on the same connection, behind every
earlier message: if its number is ``last``, nothing was missed, and L1 may be trusted for ``max_staleness`` from the
moment the heartbeat was asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from zlib import crc32

from nearcache.local.drops import ANOTHER_WRITE
from nearcache.local.effects import Cause, Effects
from nearcache.local.snapshot import STRIPES
from nearcache.local.tier import NEVER, Tier
from nearcache.protocol import messages
from nearcache.protocol.answers import Beat, Greeting, Written
from nearcache.protocol.messages import CHANGE, ONE_CHANGED, BadMessage, Message
from nearcache.protocol.versions import CREATED_BITS, version_of

FLUSHES_MAX = 4
"""Flushes for bad messages between two heartbeats; after more of them L1 stays unproven until the next heartbeat."""
ANEW = 100_000
"""A gap that no lost messages explain: the counter was lost, and began anew at the server's time in µs."""
QUIET = 60.0
"""Seconds without a bad message after which the next one is told again."""
MISTAKE_MAX = 200
"""Characters of an unexpected exception in the reason of a flush."""
SERVERS_MAX = 100
"""Servers that are remembered; after more of them, no deadline of the journal ends early."""


class Invalidation:
    """Applies messages and heartbeats of the bus to a tier."""

    def __init__(self, tier: Tier, max_staleness: float) -> None:
        self._tier = tier
        self._max_staleness = max_staleness
        self.last = 0
        self._seen = 0
        self._greeted = False
        self.identity: str | None = None
        self.history: str | None = None
        """Who counts, by the greeting; a heartbeat that tells of another one ends the proof."""
        self.met: str | None = None
        """The server behind the newest command connection that was made since the others were discarded."""
        self._ever_met: set[str] = set()
        self.ahead: tuple[int, float] | None = None
        """A number from a heartbeat that the messages have not reached, and since when (monotonic)."""
        self.expected: tuple[Written, float] | None = None
        """An own write whose number the messages have not reached, and since when (monotonic)."""
        self.propagation: float | None = None
        """Seconds from an own write on the server to the arrival of its message here, of the newest that was timed."""
        self.propagations, self.propagation_seconds = 0, 0.0
        """How many were timed, and their sum."""
        self.nonce: str | None = None
        """The probe that has not come back yet."""
        self.echoed = False
        """Whether a probe has come back."""
        self._bad = 0
        """Bad messages since the last heartbeat: those that can't be read, or come after a gap."""
        self._renews = False
        """Whether a heartbeat has flushed, for another counter than before, and no greeting has come since."""
        self._bad_until: float | None = None
        """Until when bad messages count as told, as of the last heartbeat (monotonic); None: none was told."""
        self.server_offset = 0.0
        """The server's clock minus ours, in seconds; at most too large, so that deadlines err to the early side."""

    @property
    def seen(self) -> int:
        """The highest write number that this process knows of: a counter below it was copied, lost or set back (U)."""
        return max(self._seen, self.last)

    def see(self, number: int) -> None:
        """This number was given out."""
        with self._tier.lock:
            self._seen = max(self._seen, number)

    def messages(self, batch: Sequence[bytes]) -> Effects:
        """Apply some messages in order, under one hold of the lock."""
        effects = Effects(received=len(batch))
        if not batch:
            return effects
        remaining = iter(batch)
        with self._tier.lock:
            while True:
                try:
                    data = self._changes(remaining, effects)
                    if data is None:
                        return effects
                    self._message(messages.unpack(data), effects)
                except (BadMessage, UnicodeDecodeError) as error:
                    self._distrust(effects, Cause.UNREADABLE, f"a message that can't be read: {error}", self.last)
                except Exception as mistake:  # noqa: BLE001  # half applied, with its number taken: nothing holds
                    text = f"a message that could not be applied: {repr(mistake)[:MISTAKE_MAX]}"
                    self._distrust(effects, Cause.UNREADABLE, text, self.last)

    def _changes(self, remaining: Iterator[bytes], effects: Effects) -> bytes | None:
        """Apply messages as long as each is the next one and changes one key; the first that does not, or None.

        Nearly all messages are such, and each instance applies those of every other one: so this repeats
        ``Tier.apply_changes`` with as few calls, look-ups and objects as possible. A signal handler that re-enters the
        lock on this thread may change what was looked up at the beginning, but what it reads from L2 is newer than all
        of these messages.
        """
        tier, hear, unpack, head = self._tier, effects.keys.append, CHANGE.unpack_from, CHANGE.size
        stamps, get, drop, fallback_used = tier.stamps, tier.entries.get, tier.drop, tier.fallback.used
        note, last = tier.drops.note, self.last
        try:
            for data in remaining:
                if len(data) <= head:
                    return data
                kind, number, size = unpack(data)
                if kind != ONE_CHANGED or number != last + 1 or size != len(data) - head:
                    return data
                name = data[head:]
                key = name.decode()
                last = number
                hear(key)
                version = number << CREATED_BITS
                if fallback_used:
                    tier.apply_changes((key,), version)
                    continue
                stripe = crc32(name) % STRIPES
                if stamps[stripe] < version:  # noqa: PLR1730  # a call of max takes longer than all of this
                    stamps[stripe] = version
                held = get(key)
                if held is not None and held.version < version:
                    drop(key)
                    note((key, ANOTHER_WRITE))
        finally:
            self.last = last
        return None

    def _message(self, message: Message, effects: Effects) -> None:
        tier = self._tier
        kind, number, names = message
        if kind == messages.FILLED:
            effects.keys += names
            return
        if kind == messages.PROBE:
            effects.received -= 1
            if self.nonce in names:
                self.nonce, self.echoed = None, True
            return
        if self._greeted and number != self.last + 1:
            cause = Cause.COUNTER if number - self.last > ANEW else Cause.GAP
            self._distrust(effects, cause, f"a gap: {number} came after {self.last}", number)
        self.last = number
        if kind == messages.CHANGED:
            tier.apply_changes(names, version_of(number, 0))
            effects.keys += names
            return
        if kind == messages.CLEARED:
            tier.apply_clear(number)
        else:
            tier.apply_tags(names, number, stale=kind == messages.STALE)
        effects.everything = True

    def beat(self, beat: Beat, asked_at: float, now: float) -> Effects:
        """Apply a heartbeat's answer: it proves L1, or does not yet, or flushes it.

        A number ahead of ``last`` has until ``max_staleness / 4`` later to be reached; see ``overdue``.
        """
        effects = Effects()
        with self._tier.lock:
            self._note_clock(beat.server_time, asked_at)
            self._end_of_bad_messages(effects, now)
            if beat.number is None or beat.floor is None or beat.number < self.last:
                reason = f"the counter went back from {self.last} to {beat.number}"
                told = self._bad_until is None
                self._flush(effects, Cause.COUNTER, reason, beat.number or 0, restart=True, told=told)
                self._tier.floors.restart()
                effects.restarted = self._renews = True
            elif beat.history != self.history:
                reason = "another server counts the writes: its data are a copy, or a replica came"
                self._flush(effects, Cause.OTHER_SERVER, reason, self.last)
                self._tier.floors.restart()
                self._renews = True
            elif beat.number > self.last:
                self.ahead = self.ahead or (beat.number, now)
            else:
                self._prove(beat.floor, beat.server_time, asked_at)
        return effects

    def expect(self, written: Written, now: float) -> None:
        """An own write was acknowledged: the bus has to bring its message within ``max_staleness / 2``.

        Of the writes that wait at one time the first is timed, and those whose message came before the reply.
        """
        with self._tier.lock:
            self._seen = max(self._seen, written.number)  # as ``see``
        if written.number <= self.last:
            self._arrived(written, now)
        elif self.expected is None or self.expected[0].number <= self.last:
            self.expected = written, now

    def _arrived(self, written: Written, now: float) -> None:
        """Time an own write by the server's clock: its message arrived at ``now``, or before.

        ``server_offset`` is too large by the way of a heartbeat to the server at most, so the time is never too short,
        unless the server's clock was set since that heartbeat.
        """
        if self._greeted:
            self.propagation = max(0.0, now + self.server_offset - written.created / 1e6)
            self.propagations += 1
            self.propagation_seconds += self.propagation

    def missing_own_write(self, now: float) -> Effects:
        """Flush if the message of an own write has not come: commands and messages are of two servers."""
        effects = Effects()
        expected = self.expected
        if expected is not None:
            written, since = expected
            number = written.number
            if self.last >= number:
                self.expected = None
                self._arrived(written, now)
            elif now - since > self._max_staleness / 2:
                with self._tier.lock:
                    self._flush(
                        effects,
                        Cause.OTHER_SERVER,
                        f"an own write has the number {number}, the bus brought {self.last}",
                        self.last,
                    )
                self.expected = None
        return effects

    def check_identity(self, identity: str | None) -> Effects:
        """Flush if commands are answered by this server while the bus is proven with another one (I)."""
        effects = Effects()
        tier = self._tier
        with tier.lock:
            if identity is not None:
                self.met = identity
                if len(self._ever_met) < SERVERS_MAX:
                    self._ever_met.add(identity)
            if tier.synced and None not in (identity, self.identity) and identity != self.identity:
                reason = "commands are answered by another server than the one listened to"
                self._flush(effects, Cause.OTHER_SERVER, reason, self.last)
                tier.synced = False
                tier.proof.until = NEVER
                tier.floors.restart()
        return effects

    def overdue(self, now: float) -> Effects:
        """Flush if the messages have not reached the number of a heartbeat in time."""
        effects = Effects()
        if self.ahead is not None:
            number, since = self.ahead
            if self.last >= number:
                self.ahead = None
            elif now - since > self._max_staleness / 4:
                with self._tier.lock:
                    self._flush(
                        effects, Cause.GAP, f"messages up to {number} did not come, only to {self.last}", number
                    )
        return effects

    def lost(self) -> None:
        """The connection is lost: no more puts, but L1 serves until its proof runs out."""
        with self._tier.lock:
            self._tier.synced = False
            self._tier.epoch += 1
            self.ahead, self._renews = None, False

    def greeted(self, greeting: Greeting) -> None:
        """A new connection has reached a server: if it is new to commands too, no deadline of the journal holds for it.

        A set may be on its way to any server that commands have met: without its deadline it would be replayed early,
        and then be executed. A server without a known identity may be each of them.
        """
        with self._tier.lock:
            known = greeting.identity in (None, self.identity) or greeting.identity in self._ever_met
            if not known and len(self._ever_met) < SERVERS_MAX:
                self._tier.journal.forget_clock()

    def back(self, greeting: Greeting, asked_at: float, *, prove: bool) -> tuple[Effects, int]:
        """A new connection is subscribed, and the server's number is known: keep L1 if no message was missed.

        Args:
            greeting: asked after the subscription was confirmed.
            asked_at: when it was asked (monotonic seconds).
            prove: False flushes in any case.

        Returns:
            What was effects, and how many entries were kept.
        """
        effects = Effects()
        tier = self._tier
        with tier.lock:
            # Without the identity, a counter that stands at the same number after a failover hides lost writes.
            same = greeting.identity is not None and greeting.identity == self.identity
            another_history = not same or greeting.number < self.last or greeting.history != self.history
            if not self._greeted:  # the first connection: nothing to lose, but what is under way was not watched
                self._greeted = True
                self._seen = self.seen
                tier.flush("the bus was connected for the first time")
                self.last = greeting.number
            elif not (prove and greeting.number == self.last and not another_history and self._bad <= FLUSHES_MAX):
                reason = "the connection was lost and nothing proves that no message was"
                # After a heartbeat that has flushed for the same cause, what came in between goes too, and that is all.
                told = Effects() if self._renews else effects
                self._flush(told, Cause.RECONNECT, reason, greeting.number, restart=another_history)
                effects.everything = True
                effects.restarted = another_history
            if another_history:
                tier.floors.restart()
            self._renews = False
            tier.fallback.back()
            self.identity, self.history = greeting.identity, greeting.history
            tier.synced = True
            self._prove(greeting.floor, greeting.server_time, asked_at)
            kept = tier.count
        return effects, kept

    def deadline(self, fresh_until: int) -> float:
        """The monotonic time at which a value that is fresh until then (server µs) stops being so."""
        return fresh_until / 1e6 - self.server_offset

    def _prove(self, floor: int, server_time: int, asked_at: float) -> None:
        self.ahead = None
        self._tier.floors.learn(floor, asked_at)
        self._note_clock(server_time, asked_at)
        self._tier.proof.until = asked_at + self._max_staleness

    def _note_clock(self, server_time: int, asked_at: float) -> None:
        self.server_offset = server_time / 1e6 - asked_at

    def _distrust(self, effects: Effects, cause: Cause, reason: str, number: int) -> None:
        """A bad message: flush L1. Somebody may send any number of them, so flushes and reports are bounded.

        After FLUSHES_MAX flushes L1 serves nothing and rejects results in flight, until the next heartbeat flushes what
        was put into it meanwhile.
        """
        self._bad += 1
        if self._bad <= FLUSHES_MAX:
            self._flush(effects, cause, reason, number, told=self._bad_until is None)
            self._bad_until = self._bad_until or float("inf")
        else:
            self._tier.proof.until = NEVER
            self._tier.epoch += 1
            effects.everything = True

    def _end_of_bad_messages(self, effects: Effects, now: float) -> None:
        if self._bad:
            self._bad_until = now + QUIET
            if self._bad > FLUSHES_MAX:
                self._flush(effects, Cause.UNREADABLE, "messages that can't be read", self.last, told=False)
            self._bad = 0
        elif self._bad_until is not None and now >= self._bad_until:
            self._bad_until = None

    def _flush(
        self, effects: Effects, cause: Cause, reason: str, number: int, *, restart: bool = False, told: bool = True
    ) -> None:
        self._seen = self.seen
        self.ahead = None
        effects.everything = True
        dropped = self._tier.flush(reason, restart=restart)
        if told:
            effects.flushes.append((cause, reason, dropped))
        else:
            effects.untold.append(cause)
        self.last = number


class AlwaysFresh(Invalidation):
    """Without a bus: one process alone is coherent with itself (``memory://``)."""

    def __init__(self, tier: Tier) -> None:
        super().__init__(tier, float("inf"))
        tier.synced = True
        tier.floors.known = True
        tier.proof.until = float("inf")
