"""Try what a cache needs of its server: the rights of its user, and messages that come in order."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from statistics import median

from nearcache.engine.ports import Bus, BusRefused, Incompatible, Remote, RemoteFailed, RemoteMisconfigured
from nearcache.findings import Finding
from nearcache.protocol.answers import Beat, BusItem
from nearcache.protocol.messages import pack_probe
from nearcache.runtime.run_sync import run_sync
from nearcache.settings import Settings
from nearcache.transport.backend import Backend
from nearcache.transport.claims import Vacant

ROUNDS = 20
"""Probes that are sent, each of which has to come before the answer to what is asked after it."""
CEASED = "the message of a probe did not come back on the channel"


class Trial:
    """Tries one server.

    Attributes:
        echo: seconds from a probe's sending to its arrival, the median; None: none came.
    """

    def __init__(self, where: Backend, settings: Settings) -> None:
        self._where = where
        self._settings = settings
        self.echo: float | None = None

    def findings(self) -> Iterator[Finding]:
        """What does not work."""
        remote = self._where.remote
        try:
            run_sync(remote.connect())
            yield from self._rights(remote)
        except (Incompatible, Vacant) as failure:
            yield Finding("other-protocol", str(failure))
        except RemoteMisconfigured as failure:
            yield Finding("set-up", str(failure))
        except RemoteFailed as failure:
            yield Finding("unreachable", str(failure))
        finally:
            run_sync(remote.close())

    def _rights(self, remote: Remote) -> Iterator[Finding]:
        """Every right that writes need, on a scratch name; who may publish can try the bus, too."""
        try:
            run_sync(remote.probe(""))
        except RemoteFailed as failure:
            if not failure.answered:
                raise
            yield Finding("rights", str(failure))
            return
        assert self._where.new_bus is not None  # noqa: S101  # the URL is of a server
        bus = self._where.new_bus()
        try:
            run_sync(bus.open())
            yield from self._bus(remote, bus)
        except BusRefused as failure:
            yield Finding("resp2" if "RESP2" in str(failure) else "bus", str(failure))
        except RemoteFailed as failure:
            yield Finding("bus", str(failure))
        finally:
            run_sync(bus.close())

    def _bus(self, remote: Remote, bus: Bus) -> Iterator[Finding]:
        """Publish probes, and ask on the bus once each is acknowledged: its message must stand before the answer."""
        echoes: list[float] = []
        overtaken = 0
        for _ in range(ROUNDS):
            nonce = os.urandom(8).hex()
            began = time.monotonic()
            run_sync(remote.probe(nonce))
            run_sync(bus.ask_beat())
            came = self._await(bus, pack_probe(nonce), began)
            if came is None:
                yield Finding("bus", CEASED)
                return
            early, seconds = came
            echoes.append(seconds)
            overtaken += not early
        self.echo = median(echoes)
        if overtaken:
            yield Finding("overtaking", f"{overtaken} of {ROUNDS} answers came before a message that was sent earlier")

    def _await(self, bus: Bus, message: bytes, began: float) -> tuple[bool, float] | None:
        """Whether a message came before the answer, and after how many seconds; None: it did not come in time."""
        until = began + self._settings.max_staleness
        answered = False
        early: bool | None = None
        seconds = 0.0
        while early is None or not answered:
            left = until - time.monotonic()
            if left <= 0:
                break
            items: list[BusItem] = list(run_sync(bus.receive(left)))
            for item in items:
                if isinstance(item, Beat):
                    answered = True
                elif item == message:
                    early, seconds = not answered, time.monotonic() - began
        return None if early is None else (early, seconds)
