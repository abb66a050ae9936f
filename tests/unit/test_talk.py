"""What a new connection for commands is asked, and whom it is not used with."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.ports import BusRefused, Incompatible, Met, RemoteFailed
from nearcache.remote.names import PROTOCOL, Names
from nearcache.remote.resp import ServerError
from nearcache.remote.talk import Introduction, Talk

SERVER = b"# Server\r\nrun_id:abc\r\n"
REPLICATION = b"# Replication\r\nrole:master\r\nmaster_replid:def\r\n"
TIME = [b"100", b"500000"]


def hear(*, hello: Any = None, server: Any = SERVER, meta: bytes | None = PROTOCOL) -> list[Met]:
    """Whom a connection meets that was asked at 40.0."""
    met: list[Met] = []
    hello = {b"role": b"master"} if hello is None else hello
    Introduction(Names("shop"), met.append).hear([hello, server, REPLICATION, TIME, meta], 40.0)
    return met


@pytest.mark.parametrize("meta", [PROTOCOL, None])
def test_who_answers_is_told(meta: bytes | None) -> None:
    """Its identity, and its clock beside ours; a namespace that nobody has used yet is welcome."""
    assert hear(meta=meta) == [Met("abc/def", 60.5)]


def test_who_would_not_say_has_no_identity() -> None:
    """INFO may be denied."""
    assert hear(server=ServerError("NOPERM no INFO")) == [Met(None, 60.5)]


@pytest.mark.parametrize("hello", [{b"role": b"slave"}, [b"version", b"9", b"role", b"replica"]], ids=["map", "list"])
def test_a_replica_is_not_used(hello: Any) -> None:
    """A demoted primary would answer for ever."""
    with pytest.raises(RemoteFailed, match="no master"):
        hear(hello=hello)


def test_a_namespace_of_another_protocol_is_not_used() -> None:
    """Nothing is written into it."""
    with pytest.raises(Incompatible, match="kept by protocol 2/16, this is 1/1"):
        hear(meta=b"2/16")


@pytest.mark.parametrize(("text", "kind"), [("LOADING it", ServerError), ("NOPERM it", BusRefused)])
def test_an_error_is_a_failure(text: str, kind: type[Exception]) -> None:
    """One that passes is told as it is, any other as a refusal."""
    with pytest.raises(kind):
        hear(hello=ServerError(text))


@pytest.mark.parametrize(("text", "kind"), [("BUSY it", ServerError), ("NOPERM it", BusRefused)])
def test_a_subscription_that_is_refused(text: str, kind: type[RemoteFailed]) -> None:
    """What goes away by itself is no word about rights: a script that runs does not make coherence fail."""
    talk = Talk(Names("shop"))
    with pytest.raises(RemoteFailed) as caught:
        talk.understand([ServerError(text)])
    assert type(caught.value) is kind
