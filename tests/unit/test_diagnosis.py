"""What an error reply is shown as: the server's sentence without secrets, and what to do."""

from __future__ import annotations

from typing import Any

import pytest
import redis.exceptions

from nearcache.engine.ports import RemoteFailed, RemoteMisconfigured
from nearcache.protocol.names import Names
from nearcache.settings import Settings
from nearcache.testing import black_hole
from nearcache.transport import resp
from nearcache.transport.diagnosis import LONGEST, problem_of_scheme, problem_of_server, sentence
from nearcache.transport.endpoint import PROBES, Endpoint
from nearcache.transport.handshake import Handshake
from nearcache.transport.resp import ServerError
from tests.support.cases import each

SECRET = "s3cret-pa55"


@each(
    "text, shown",
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", "OOM: command not allowed when used memory"),
        ("NOPERM No permissions to access a channel", "a new user no channels: ACL SETUSER"),
        ("NOPERM User app has no permissions to run the 'evalsha' command", "the user has no permissions to run the"),
        ("ERR unknown command 'EVAL', with args beginning with: 'abc' '3'", "must offer EVAL"),
        ("ERR DB index is out of range", "ERR: DB index is out of range; the URL names a database"),
        ("DB index is out of range", "ERR: DB index is out of range; the URL names a database"),
        ("ERR max number of clients reached", "raise maxclients"),
        ("MOVED 866 10.0.0.1:6379", "one node of a cluster"),
        ("ERR something new", "the server answered ERR: something new"),
        ("CROSSSLOT", "the server answered CROSSSLOT"),
    ],
)
def test_an_error_reply_is_shown_with_what_to_do(text: str, shown: str) -> None:
    """Its first words name the code, as before."""
    assert shown in str(ServerError(text))
    assert str(ServerError(text)).startswith(f"the server answered {ServerError(text).code}")


@each(
    "text",
    [
        f"ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'app' '{SECRET}'",
        f"ERR unknown command `HELLO`, with args beginning with: `3`, `AUTH`, `app`, `{SECRET}`, ",
        f"NOPERM User {SECRET} has no permissions to run the 'get' command",
        f"ERR bad value '{SECRET}'",
        f"ERR bad value 'it is \"{SECRET}\"'",
    ],
)
def test_no_secret_is_shown(text: str) -> None:
    """Arguments and names of users are cut out."""
    assert SECRET not in str(ServerError(text))


def test_a_sentence_is_one_short_line() -> None:
    """Whatever the server sends."""
    assert sentence("ERR a\r\nb\x1b[31m \N{SNOWMAN}c") == "ERR a b [31m c"
    assert len(sentence("ERR " + "x" * 10_000_000)) == LONGEST + 3


@each(
    "error, kind",
    [
        (redis.exceptions.ResponseError("DB index is out of range"), RemoteMisconfigured),
        (
            redis.exceptions.ResponseError("unknown command 'SELECT', with args beginning with: '1'"),
            RemoteMisconfigured,
        ),
        (redis.exceptions.ConnectionError("max number of clients reached"), ServerError),
        (redis.exceptions.ResponseError("LOADING Redis is loading"), ServerError),
    ],
)
def test_an_error_of_connecting(error: Exception, kind: type[RemoteFailed]) -> None:
    """What can never work is told from what passes."""
    assert type(resp.translate(error)) is kind


@each(
    "hello, words",
    [
        ({b"server": b"redis", b"mode": b"sentinel"}, "a Sentinel"),
        ([b"server", b"redis", b"version", b"6.2.14", b"mode", b"standalone"], "version 6.2"),
        ({b"version": b"7.0.15", b"mode": b"standalone"}, None),
        ({b"version": b"10.1"}, None),
        ({b"version": b"unstable", b"mode": b"cluster"}, None),
        ({b"version": 7}, None),
        (b"OK", None),
        (None, None),
        ([b"odd"], None),
    ],
)
def test_the_server_behind_a_connection(hello: Any, words: str | None) -> None:
    """A Sentinel and an old release are refused by name; what says nothing of itself is tried."""
    problem = problem_of_server(hello)
    assert problem is None if words is None else words in (problem or "")


def replies(hello: Any, meta: Any) -> list[Any]:
    """To a handshake."""
    return [hello, b"run_id:a\r\n", b"role:master\r\nmaster_replid:b\r\n", [b"1", b"2"], meta]


def test_a_handshake_refuses_them() -> None:
    """Also the node of a cluster that does not keep the namespace; a missing right leaves a way open."""
    check = Handshake(Names("shop"), lambda _: None).check
    old = {b"version": b"6.2.14", b"role": b"master"}
    with pytest.raises(RemoteMisconfigured, match=r"Redis 7\.0, Valkey 7\.2, or newer"):
        check(replies(old, ServerError("ERR")), 0.0)
    with pytest.raises(RemoteMisconfigured, match="one node of a cluster"):
        check(replies({}, ServerError("MOVED 866 10.0.0.1:6379")), 0.0)
    check(replies({}, ServerError("NOPERM this user has no permissions to run the 'eval' command")), 0.0)


@pytest.mark.parametrize("tls", [True, False])
def test_a_port_that_does_not_answer_in_time_is_asked_again(tls: bool) -> None:
    """A few times: silence says nothing of TLS, and a machine may be busy."""
    with black_hole() as port:
        endpoint = Endpoint.from_url(
            f"redis{'s' if tls else ''}://127.0.0.1:{port}/0", Settings(redis_timeout=0.01), asynchronous=False
        )
        for left in range(PROBES - 1, -1, -1):
            assert type(endpoint.explain(RemoteFailed("reset"))) is RemoteFailed
            assert endpoint.probes == left
        with pytest.raises(TimeoutError):
            problem_of_scheme("127.0.0.1", port, tls=tls, timeout=0.01)
