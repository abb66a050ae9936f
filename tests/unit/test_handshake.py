"""What a new connection for commands is asked, and whom it is not used with."""

from __future__ import annotations

import struct
from typing import Any

import pytest

from nearcache.engine.ports import BusRefused, Incompatible, RemoteFailed
from nearcache.protocol.answers import Peer
from nearcache.protocol.names import PROTOCOL, Names
from nearcache.transport.handshake import BusProtocol, Handshake
from nearcache.transport.resp import ServerError

SERVER = b"# Server\r\nrun_id:abc\r\n"
REPLICATION = b"# Replication\r\nrole:master\r\nmaster_replid:def\r\n"
TIME = [b"100", b"500000"]


def introduction(protocol: bytes = PROTOCOL, good: int = 1) -> bytes:
    """An answer of greet."""
    return struct.pack(">QQQB", 7, 5, 100, good) + b"def/0 " + protocol


def hear(
    *,
    hello: Any = None,
    server: Any = SERVER,
    replication: Any = REPLICATION,
    time: Any = TIME,
    greeted: Any = None,
) -> list[Peer]:
    """Whom a connection meets that was asked at 40.0."""
    met: list[Peer] = []
    hello = {b"role": b"master"} if hello is None else hello
    greeted = introduction() if greeted is None else greeted
    Handshake(Names("shop"), met.append).check([hello, server, replication, time, greeted], 40.0)
    return met


def test_who_answers_is_told() -> None:
    """Its identity, with the database, and its clock beside ours."""
    assert hear() == [Peer("abc/def/0", 60.5)]


def test_two_servers_that_answer_by_turns_have_no_identity() -> None:
    """As behind a proxy: what their histories tell is void."""
    assert hear(greeted=introduction(good=2)) == [Peer(None, 60.5)]


def test_a_user_who_may_only_read_is_welcome() -> None:
    """Without EVAL there is no introduction."""
    assert hear(greeted=ServerError("NOPERM no EVAL")) == [Peer("abc/def/0", 60.5)]


def test_who_would_not_say_has_no_identity() -> None:
    """INFO may be denied."""
    assert hear(server=ServerError("NOPERM no INFO")) == [Peer(None, 60.5)]


@pytest.mark.parametrize("hello", [{b"role": b"slave"}, [b"version", b"9", b"role", b"replica"]], ids=["map", "list"])
def test_a_replica_is_not_used(hello: Any) -> None:
    """A demoted primary would answer for ever."""
    with pytest.raises(RemoteFailed, match="no master"):
        hear(hello=hello)


def test_without_hello_the_role_is_inferred() -> None:
    """A server that speaks RESP2 alone: INFO tells; where both are denied, it is taken for a master."""
    unknown = ServerError("ERR unknown command")
    assert hear(hello=unknown) == [Peer("abc/def/0", 60.5)]
    assert hear(hello=unknown, server=unknown, replication=unknown) == [Peer(None, 60.5)]
    with pytest.raises(RemoteFailed, match="no master"):
        hear(hello=unknown, replication=REPLICATION.replace(b"role:master", b"role:slave"))


def test_a_namespace_of_another_protocol_is_not_used() -> None:
    """Nothing is written into it."""
    with pytest.raises(Incompatible, match="kept by protocol 9/16, this is 2/1"):
        hear(greeted=introduction(protocol=b"9/16"))


@pytest.mark.parametrize(("text", "kind"), [("LOADING it", ServerError), ("NOPERM it", BusRefused)])
def test_an_error_is_a_failure(text: str, kind: type[Exception]) -> None:
    """One that passes is told as it is, any other as a refusal."""
    with pytest.raises(kind):
        hear(time=ServerError(text))
    if kind is ServerError:
        with pytest.raises(kind):
            hear(hello=ServerError(text))


@pytest.mark.parametrize(("text", "kind"), [("BUSY it", ServerError), ("NOPERM it", BusRefused)])
def test_a_subscription_that_is_refused(text: str, kind: type[RemoteFailed]) -> None:
    """What goes away by itself is no word about rights: a script that runs does not make coherence fail."""
    protocol = BusProtocol(Names("shop"))
    with pytest.raises(RemoteFailed) as caught:
        protocol.parse([ServerError(text)])
    assert type(caught.value) is kind
