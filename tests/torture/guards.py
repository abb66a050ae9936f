"""The guards of the protocol, by the names that ``--ablate`` takes: what takes each away, and what must then fail."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nearcache import base
from nearcache.engine.ports import MISSING
from nearcache.local.tier import NEVER, Tier
from nearcache.protocol import scripts
from nearcache.protocol.versions import Version


class WroteLeavesStamp(Tier):
    """An own write raises no stamp: what was asked before it may be put after it."""

    def put(self, key: str, entry: Any, snapshot: Any, *, own: bool = False) -> bool:
        """Put, and set the stamp back after an own write."""
        before = self.stamps[snapshot.stripe]
        done = super().put(key, entry, snapshot, own=own)
        if own:
            self.stamps[snapshot.stripe] = before
        return done

    def wrote(self, key: str, version: Version) -> None:
        """Drop only."""
        del version
        super().wrote(key, 0)


class FreshForEver(Tier):
    """Once proven, L1 is served without a further proof."""

    _proven = False

    @property
    def fresh_until(self) -> float:
        """Without end."""
        return float("inf") if self._proven else NEVER

    @fresh_until.setter
    def fresh_until(self, value: float) -> None:
        self._proven = value > NEVER


@dataclass(frozen=True)
class Guard:
    """A guard: by what each process is without it, and which schedules and phases tell."""

    rules: tuple[str, ...] = ()
    """Names in tests.schedules.ablations, whose schedules must fail; each is one way to lack the guard."""
    tier: type[Tier] | None = None
    lua: Mapping[str, tuple[tuple[str, str], ...]] | None = None
    """By script: texts, and by what they are replaced."""
    schedules: tuple[Callable[[Any], None], ...] = ()
    """Schedules beyond the named ones; run under the tier above."""
    phase: str | None = None
    """The phase that tells it in a run."""

    def take_away(self) -> None:
        """Be without it in this process, from now on."""
        from tests.schedules import ablations  # not needed by a whole cache

        if self.tier is not None:
            setattr(base, "Tier", self.tier)
        for name in self.rules[:1]:
            rules = getattr(ablations, name)
            if rules.tier is not Tier:
                setattr(base, "Tier", rules.tier)
            if rules.invalidation.__module__ == ablations.__name__:
                setattr(base, "Invalidation", rules.invalidation)
            for target, attribute, replacement in rules.patched:
                setattr(target, attribute, replacement)
        for script, changes in (self.lua or {}).items():
            setattr(scripts, script.upper(), _changed(getattr(scripts, script.upper()), changes))


def _changed(script: scripts.Script, changes: tuple[tuple[str, str], ...]) -> scripts.Script:
    text = script.text.decode()
    for old, new in changes:
        if old not in text:
            raise ValueError(f"the script has no {old!r} any more")
        text = text.replace(old, new)
    return scripts.Script(text.encode(), hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().encode())


def a_get_under_an_own_delete(rules: Any) -> None:
    """A GET's reply is late, an own delete is acknowledged before it, and its message comes after it."""
    from tests.schedules import test_named as named

    with rules.world() as world:
        a, b = named.two(rules, world)
        named.put(b, "k", 1)
        late = a.get("k")
        late.request.execute()
        assert world.run(a.delete("k"))
        late.request.reply()
        named.must(a.look("k") is MISSING, "G3: an own delete is not seen")


GUARDS: Mapping[str, Guard] = {
    "snapshot-stamp": Guard(("NO_STAMP",), phase="delayed replies"),
    "snapshot-epoch": Guard(("NO_EPOCH",)),
    "own-stamp": Guard(tier=WroteLeavesStamp, schedules=(a_get_under_an_own_delete,)),
    "lease": Guard(
        ("FILLS_WITHOUT_LEASE",),
        lua={"fill": (("good = mine and s and f", "good = s and f"),)},
        phase="steady",
    ),
    "fill-floor": Guard(
        ("FILLS_BELOW_FLOORS",),
        lua={
            "fill": (
                ("f <= tonumber(ARGV[3])", "true"),
                ("good = floor and floor <= tonumber(ARGV[i + 3])", "good = floor and true"),
            )
        },
    ),
    "journal-epoch": Guard(("JOURNAL_WITHOUT_EPOCH",)),
    "back-comparison": Guard(("BACK_PROVES_ALL",), phase="bus cut"),
    "identity": Guard(("ANY_SERVER_IS_THE_SAME",)),
    "heartbeat-deadline": Guard(tier=FreshForEver, phase="bus held back"),
    "set-deadline": Guard(("LATE_SETS_STORED",)),
    "journal-number": Guard(("JOURNAL_WITHOUT_NUMBERS",)),
    "join": Guard(("JOIN_ANY",)),
    "local-clear": Guard(("CLEAR_ELSEWHERE",)),
}
"""By the name that ``--ablate`` takes. To add one: the rules without it, its schedule among the named ones."""
