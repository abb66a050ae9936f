"""The guards of the protocol by the names that ``--ablate`` takes: what takes each away, and which phase tells it.

A guard is taken away in one process: in a world of the schedules by its Rules, in a whole cache by ``take_away``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from nearcache import base
from nearcache.local.invalidation import Invalidation
from nearcache.local.tier import Tier
from nearcache.protocol import scripts
from nearcache.protocol.names import Names
from nearcache.transport.async_transport import AsyncTransport
from nearcache.transport.sentinel_watch import WatchedBus
from nearcache.transport.sync_transport import SyncTransport
from tests.support.ablations import rules
from tests.support.ablations.rules import Rules

Changes = tuple[tuple[str, str], ...]
"""Texts of a script, and by what they are replaced."""


@dataclass(frozen=True)
class Guard:
    """A guard: by which rules it is lacking, and which phase tells."""

    rules: Rules
    """Its schedules must fail under these rules."""
    lua: Mapping[str, Changes] | None = None
    """By script, for real servers."""
    phase: str | None = None
    """The phase that tells it in a run."""
    patched: tuple[tuple[object, str, object], ...] = ()
    """What else is replaced in a whole cache, where ``rules`` replaces a part of the model: object, attribute, by
    what."""

    def take_away(self) -> None:
        """Be without it in this process, from now on."""
        lacking = self.rules
        if lacking.tier is not Tier:
            setattr(base, "Tier", lacking.tier)
        if lacking.invalidation is not Invalidation:
            setattr(base, "Invalidation", lacking.invalidation)
        for target, attribute, replacement in (*lacking.patched, *self.patched):
            setattr(target, attribute, replacement)
        for script, changes in (self.lua or {}).items():
            setattr(scripts, script.upper(), changed(getattr(scripts, script.upper()), changes))


def changed(script: scripts.Script, changes: Changes) -> scripts.Script:
    """A script with some of its text replaced.

    Raises:
        ValueError: the text is not found: the script has changed, and the guard would stay.
    """
    text = script.text.decode()
    for old, new in changes:
        if old not in text:
            raise ValueError(f"the script has no {old!r} any more")
        text = text.replace(old, new)
    return scripts.Script(text.encode(), hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().encode())


FILLS_WITHOUT_LEASE: Changes = (("may = mine and s and f", "may = s and f"),)
FILLS_BELOW_FLOORS: Changes = (
    ("f <= tonumber(ARGV[5])", "true"),
    ("good and floor and floor <= given", "good and floor and true"),
)
ADDS_OVER_ANYTHING: Changes = (("if alive(v, ARGV[6]) and not ended then return 'V' end", ""),)
ADDED_TAGS_UNCHECKED: Changes = (("given = tonumber(ARGV[4])", "given = 2 ^ 53"),)
_WRITES = ("set", "delete", "mark_stale", "clear")
SEEN_BY_NOBODY: Mapping[str, Changes] = {
    **dict.fromkeys(_WRITES, (("math.max(seen, 1)", "1"), ("seen + 1", "0"))),
    "lease": (("seen + 1", "0"),),
    "greet": (("if number < seen then", "if false then"), ("seen + 1", "0")),
}
NUMBERS_BELIEVED: Mapping[str, Changes] = {
    **SEEN_BY_NOBODY,
    "greet": (*SEEN_BY_NOBODY["greet"], ("elseif id and id ~= i then", "elseif false then")),
}
_NAMES = Names.__init__


def _one_channel(self: Names, namespace: str, database: int = 0) -> None:
    _NAMES(self, namespace, database)
    self.channel = Names(namespace).channel if database else self.channel


async def _asks_no_sentinel(self: WatchedBus) -> None:
    await self._bus.ask_beat()


def _keeps_connections(_transport: object) -> None:
    """Idle connections are used on."""


GUARDS: Mapping[str, Guard] = {
    "snapshot-stamp": Guard(rules.NO_STAMP, phase="delayed replies"),
    "snapshot-epoch": Guard(rules.NO_EPOCH),
    "own-stamp": Guard(rules.OWN_WRITE_LEAVES_STAMP),
    "lease": Guard(rules.FILLS_WITHOUT_LEASE, lua={"fill": FILLS_WITHOUT_LEASE}, phase="steady"),
    "lease-deadline": Guard(rules.LEASES_AT_ANY_TIME),
    "flushed-away": Guard(rules.FLUSHED_SERVES_ALWAYS),
    "fill-floor": Guard(rules.FILLS_BELOW_FLOORS, lua={"fill": FILLS_BELOW_FLOORS}),
    "journal-epoch": Guard(rules.JOURNAL_WITHOUT_EPOCH),
    "back-comparison": Guard(rules.BACK_PROVES_ALL, phase="bus cut"),
    "identity": Guard(rules.ANY_SERVER_IS_THE_SAME),
    "heartbeat-deadline": Guard(rules.FRESH_FOR_EVER, phase="bus held back"),
    "set-deadline": Guard(rules.LATE_SETS_STORED),
    "heard-clock": Guard(rules.CLOCK_OF_CONNECTIONS),
    "journal-number": Guard(rules.JOURNAL_WITHOUT_NUMBERS),
    "join": Guard(rules.JOIN_ANY),
    "local-clear": Guard(rules.CLEAR_ELSEWHERE),
    "stamp-epoch": Guard(rules.ANY_EPOCH_RAISES_STAMPS),
    "own-clear-floors": Guard(rules.ANY_ANSWER_MAKES_FLOORS_KNOWN),
    "turn-by-key": Guard(rules.TURNS_BY_STRIPE),
    "proven-beat": Guard(rules.ANY_BEAT_PROVES),
    "old-connections": Guard(
        rules.CONNECTIONS_OUTLIVE_THE_PROOF,
        patched=tuple((kind, "discard_idle", _keeps_connections) for kind in (SyncTransport, AsyncTransport)),
        phase="failover, bus first",
    ),
    # No phase tells it: a counter that begins seconds too low does not catch up with older numbers while one lasts.
    "numbers-seen": Guard(rules.SEEN_BY_NOBODY, lua=SEEN_BY_NOBODY),
    "whose-numbers": Guard(rules.NUMBERS_BELIEVED, lua=NUMBERS_BELIEVED, phase="live copy"),
    "sentinel-watch": Guard(Rules(), patched=((WatchedBus, "ask_beat", _asks_no_sentinel),), phase="sentinel failover"),
    "channel-by-database": Guard(Rules(), patched=((Names, "__init__", _one_channel),), phase="two databases"),
    "many-load-first": Guard(rules.MANY_WAIT_FIRST),
    "many-absent": Guard(rules.ABSENT_FOR_ALL),
    "operation-alive": Guard(Rules(), lua={"add": ADDS_OVER_ANYTHING}, phase="steady"),
    "operation-unjournalled": Guard(rules.OPERATIONS_JOURNALLED),
    "operation-behind-journal": Guard(rules.OPERATIONS_UNDER_THE_JOURNAL),
    "operation-once": Guard(rules.OPERATIONS_REPEATED),
    "operation-head": Guard(rules.ANY_HEAD),
    "operation-end": Guard(rules.ENDS_BY_THE_CLIENTS_CLOCK),
    "operation-l1": Guard(rules.OPERATIONS_STAY_IN_L1),
    "touch-version": Guard(rules.TOUCHES_MAKE_VERSIONS),
    "counter-floor": Guard(rules.COUNTS_ON_ANYTHING),
    "added-tags": Guard(rules.ADDED_TAGS_UNCHECKED, lua={"fill": ADDED_TAGS_UNCHECKED}),
    "added-tags-new": Guard(rules.ADDED_TAGS_CREATED),
    "stale-tag-fill": Guard(rules.FILLS_BELOW_STALE_FLOORS),
    "stale-tag-read": Guard(rules.STALE_IS_FRESH, phase="steady"),
    "stale-tag-pair": Guard(rules.STALE_FLOORS_ALONE),
    "stale-tag-unknown": Guard(rules.UNKNOWN_IS_STALE),
    "stale-tag-maximum": Guard(rules.FLOORS_RISE_AS_ONE),
    "marks": Guard(rules.NO_MARKS, phase="pause write"),
    "mark-at-the-end": Guard(rules.MARKS_FROM_THE_START),
    "mark-of-leases": Guard(rules.MARKS_FROM_THE_CLIENTS_TIME),
    "mark-of-stale": Guard(rules.MARKS_OF_FRESH_RECORDS_ALONE),
    "mark-until-accepted": Guard(rules.MARKS_END_WITH_ANY_FILL),
    "mark-in-snapshot": Guard(rules.SNAPSHOTS_WITHOUT_MARKS),
    "above-is-seen": Guard(rules.ABOVE_IS_DEAD_ALONE),
    "above-is-dead": Guard(rules.ABOVE_IS_BELIEVED),
    "histories-adopted": Guard(rules.HISTORIES_IN_RECORDS),
    "new-server-deadline": Guard(rules.EVERY_NEW_SERVER_ENDS_DEADLINES, phase="failover, commands first"),
}
"""By the name that ``--ablate`` takes. To add one: the rules without it, and its schedule among the named ones."""
