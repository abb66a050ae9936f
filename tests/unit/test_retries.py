"""What is tried again: connecting and reads, a few times, within redis_timeout in all, never after a timeout."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from nearcache.engine.ports import BusRefused, Incompatible, NotSent, RemoteFailed, RemoteMisconfigured, RemoteTimeout
from nearcache.protocol.names import Names
from nearcache.runtime.run_sync import run_sync
from nearcache.transport import client as commands
from nearcache.transport.client import RedisRemote
from nearcache.transport.handshake import Handshake
from nearcache.transport.port import Transport
from nearcache.transport.resp import ServerError

TIMEOUT = 0.2


class Recorder(Transport):
    """Fails as it is told, and counts."""

    handshake: Handshake | None = None

    def __init__(self, failures: list[RemoteFailed]) -> None:
        self.failures = failures
        self.tries = 0
        self.paused = 0.0

    async def execute(
        self, packed: bytes, count: int = 1, *, repeatable: bool = False, waited: float = 0.0
    ) -> list[Any]:
        """Fail, as long as there is a failure left; then answer something."""
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        return [[None]] * count if repeatable else [b"\0" * 16]

    async def pause(self, seconds: float) -> None:
        """Count it."""
        self.paused += seconds

    async def connect(self) -> None:
        """Not used."""

    def discard_idle(self) -> None:
        """Not used."""

    async def close(self) -> None:
        """Not used."""


def unsent(failure: RemoteFailed) -> RemoteFailed:
    """The same, but nothing has left: connecting failed."""
    failure.sent = False
    return failure


def asked(failures: list[RemoteFailed], *, write: bool = False, may_repeat: bool = True) -> Recorder:
    """What became of a read or a write."""
    transport = Recorder(failures)
    remote = RedisRemote(transport, Names("shop"), retries=3, redis_timeout=TIMEOUT)
    remote.may_repeat = lambda: may_repeat
    with suppress(RemoteFailed):
        run_sync(remote.delete(["a"]) if write else remote.read(["a"], with_bounds=False))
    return transport


def test_a_read_is_tried_again() -> None:
    """Up to `retries` times, with pauses that are redis_timeout together at most."""
    transport = asked([RemoteFailed("lost")] * 9)
    assert transport.tries == 4
    assert transport.paused < TIMEOUT
    assert asked([RemoteFailed("lost")] * 2).tries == 3


def test_a_write_is_tried_again_only_while_nothing_has_left() -> None:
    """Connecting is; what was sent may have been done."""
    assert asked([RemoteFailed("lost")] * 9, write=True).tries == 1
    assert asked([unsent(RemoteFailed("refused")) for _ in range(9)], write=True).tries == 4
    assert asked([unsent(RemoteFailed("refused")), RemoteFailed("lost"), RemoteFailed("lost")], write=True).tries == 2


@pytest.mark.parametrize("kind", [RemoteTimeout, RemoteMisconfigured, NotSent, BusRefused, Incompatible])
@pytest.mark.parametrize("write", [False, True])
def test_what_would_not_help_is_not_tried(kind: type[RemoteFailed], *, write: bool) -> None:
    """A timeout has taken its time; who is refused will be refused."""
    assert asked([unsent(kind("no"))] * 9, write=write).tries == 1


def test_an_answer_is_no_failure_to_connect() -> None:
    """A reply that is an error was sent and answered: nothing is tried again."""
    assert ServerError("OOM full").answered
    assert not ServerError("LOADING it").answered
    assert not ServerError("OOM full").sent


def test_nobody_tries_again_once_the_breaker_is_open() -> None:
    """Others have found out meanwhile: readers connect no more."""
    assert asked([RemoteFailed("lost")] * 9, may_repeat=False).tries == 1


def test_all_tries_together_stay_within_redis_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that takes long to be refused is not made four times."""
    now = [0.0]
    monkeypatch.setattr(commands, "monotonic", lambda: now[0])

    class Slow(Recorder):
        async def execute(
            self, packed: bytes, count: int = 1, *, repeatable: bool = False, waited: float = 0.0
        ) -> list[Any]:
            now[0] += TIMEOUT * 0.9
            return await super().execute(packed, count, repeatable=repeatable)

    transport = Slow([RemoteFailed("lost")] * 9)
    remote = RedisRemote(transport, Names("shop"), retries=3, redis_timeout=TIMEOUT)
    with pytest.raises(RemoteFailed):
        run_sync(remote.read(["a"], with_bounds=False))
    assert transport.tries <= 2
