"""The L1 of ``null://``, which keeps nothing."""

from __future__ import annotations

from nearcache.local.tier import Tier


class NoTier(Tier):
    """What is put is gone."""

    def put(self, *_args: object, **_options: object) -> bool:
        """Keep nothing, and refuse nothing."""
        return True
