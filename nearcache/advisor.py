"""The Advisor: looks now and then for what is wrong with the set-up, and logs each kind of finding once."""

from __future__ import annotations

from nearcache.advice import findings_of, notice
from nearcache.engine.core import Core
from nearcache.log import Log
from nearcache.troubles import Troubles

EVERY = 60.0
"""Seconds between two looks."""


class Advisor:
    """The Advisor of one cache, of which it holds the parts that it needs: it does not keep the cache alive.

    Args:
        core: the cache.
        troubles: what is wrong with it, and which findings were logged.
        log: where to.
        shared: whether others may use its server.
    """

    def __init__(self, core: Core, troubles: Troubles, log: Log, *, shared: bool) -> None:
        self._core, self._troubles, self._log, self._shared = core, troubles, log, shared

    async def run(self) -> None:
        """Look once."""
        notice(self._core)
        self._log.advise(findings_of(self._core, self._troubles.reason, shared=self._shared), self._troubles.advised)
