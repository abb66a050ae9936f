"""What a new connection for commands is asked, and whom it is not used with."""

from __future__ import annotations

from typing import Any

import pytest

from nearcache.engine.ports import BusRefused, Incompatible, RemoteFailed
from nearcache.protocol.answers import Beat, Peer
from nearcache.protocol.names import PROTOCOL, Names
from nearcache.transport.aside import AsideProtocol
from nearcache.transport.handshake import BusProtocol, Handshake
from nearcache.transport.resp import ServerError

SERVER = b"# Server\r\nrun_id:abc\r\n"
REPLICATION = b"# Replication\r\nrole:master\r\nmaster_replid:def\r\n"
TIME = [b"100", b"500000"]


def hear(
    *,
    hello: Any = None,
    server: Any = SERVER,
    replication: Any = REPLICATION,
    time: Any = TIME,
    meta: bytes | None = PROTOCOL,
) -> list[Peer]:
    """Whom a connection meets that was asked at 40.0."""
    met: list[Peer] = []
    hello = {b"role": b"master"} if hello is None else hello
    Handshake(Names("shop"), met.append).hear([hello, server, replication, time, meta], 40.0)
    return met


@pytest.mark.parametrize("meta", [PROTOCOL, None])
def test_who_answers_is_told(meta: bytes | None) -> None:
    """Its identity, and its clock beside ours; a namespace that nobody has used yet is welcome."""
    assert hear(meta=meta) == [Peer("abc/def", 60.5)]


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
    assert hear(hello=unknown) == [Peer("abc/def", 60.5)]
    assert hear(hello=unknown, server=unknown, replication=unknown) == [Peer(None, 60.5)]
    with pytest.raises(RemoteFailed, match="no master"):
        hear(hello=unknown, replication=REPLICATION.replace(b"role:master", b"role:slave"))


def test_a_namespace_of_another_protocol_is_not_used() -> None:
    """Nothing is written into it."""
    with pytest.raises(Incompatible, match="kept by protocol 2/16, this is 1/1"):
        hear(meta=b"2/16")


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
    talk = BusProtocol(Names("shop"))
    with pytest.raises(RemoteFailed) as caught:
        talk.understand([ServerError(text)])
    assert type(caught.value) is kind


# -------------------------------------------------------------------------------------------------------- RESP2


def subscribed(replication: Any = REPLICATION) -> AsideProtocol:
    """A conversation after the confirmation."""
    talk = AsideProtocol(Names("shop"))
    assert talk.understand([SERVER, replication, [b"subscribe", b"channel", 1]]) == []
    assert talk.confirmed
    return talk


def asked(talk: AsideProtocol, replication: bytes = REPLICATION) -> bytes:
    """A heartbeat was answered aside; what is sent on the bus."""
    talk.begin()
    return talk.ask(talk.beat, [[b"7", b"3"], TIME, SERVER, replication])


def test_an_answer_stands_at_its_pong() -> None:
    """Not before, and in the order of the questions."""
    talk = subscribed()
    assert asked(talk) == b"*2\r\n$4\r\nPING\r\n$1\r\n1\r\n"
    asked(talk)
    message = b"\x01I" + (8).to_bytes(8)
    assert talk.understand([[b"pong", b"1"], [b"message", b"channel", message], [b"pong", b"2"]]) == [
        Beat(7, 3, 100_500_000, master=True),
        message,
        Beat(8, 3, 100_500_000, master=True),
    ]


def test_the_role_is_told() -> None:
    """A primary that was just demoted has its history still."""
    talk = subscribed()
    asked(talk, REPLICATION.replace(b"role:master", b"role:slave"))
    (beat,) = talk.understand([[b"pong", b"1"]])
    assert isinstance(beat, Beat)
    assert not beat.master


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        ([b"pong", b"2"], RemoteFailed),
        ([b"pong", b""], RemoteFailed),
        ([b"unsubscribe", b"channel", 0], RemoteFailed),
        (b"2", BusRefused),
        (ServerError("ERR only (P)SUBSCRIBE"), BusRefused),
    ],
)
def test_what_was_not_asked_for_ends_the_bus(reply: Any, kind: type[Exception]) -> None:
    """Another PONG, the end of the subscription, an error: nothing is proven by them."""
    talk = subscribed()
    asked(talk)
    with pytest.raises(kind):
        talk.understand([reply])


def test_a_pong_before_the_answer_proves_nothing() -> None:
    """A question under way has not been followed by a PING."""
    talk = subscribed()
    talk.begin()
    with pytest.raises(RemoteFailed, match="PING"):
        talk.understand([[b"pong", b"1"]])


def test_a_subscription_that_is_refused_is_told() -> None:
    """Whatever INFO said."""
    for facts in ([SERVER, REPLICATION], [ServerError("NOPERM it")] * 2):
        with pytest.raises(BusRefused, match="refused to subscribe: NOPERM"):
            AsideProtocol(Names("shop")).understand([*facts, ServerError("NOPERM channel")])


def test_without_an_identity_there_is_no_subscription() -> None:
    """Nothing would prove that both connections lead to one server."""
    with pytest.raises(BusRefused, match="needs INFO"):
        subscribed(ServerError("NOPERM it"))
