"""The kit of ablations: what it replaces in the scripts is there."""

from __future__ import annotations

from nearcache.protocol import scripts
from tests.support.ablations.guards import GUARDS, changed


def test_every_text_that_an_ablation_replaces_is_in_its_script() -> None:
    """Else the guard would stay, and its run prove nothing."""
    asked = [(name, script, changes) for name, guard in GUARDS.items() for script, changes in (guard.lua or {}).items()]
    assert len(asked) > 5
    for name, script, changes in asked:
        original = getattr(scripts, script.upper())
        assert changed(original, changes).sha != original.sha, name
