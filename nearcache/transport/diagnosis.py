"""What an error of a server or of a connection means for the user: one sentence without secrets, and what to mend."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

LONGEST = 200
"""Characters of a server's sentence that are kept."""
OLDEST = (7, 0)
"""The oldest release of Redis that runs the scripts."""


_PLAIN = "the port does not speak TLS; a URL without TLS begins with redis://"


class Advice(NamedTuple):
    """What to do about an error reply."""

    pattern: re.Pattern[str]
    text: str
    final: bool = False
    """Whether it is a mistake of the set-up, which does not end by itself."""


def _advice(pattern: str, text: str, *, final: bool = False) -> Advice:
    return Advice(re.compile(pattern, re.IGNORECASE), text, final)


ADVICE = (
    _advice(
        "permissions? to access (a|the|one of the) channel|access.* channels? used|can't publish to the channel",
        "Redis 7 gives a new user no channels: ACL SETUSER <user> '&<namespace>:*' (docs/security.md has all rights)",
    ),
    _advice("NOPERM|no permissions", "docs/security.md has the rights that the user needs"),
    _advice("DB index|invalid database", "the URL names a database that the server does not have", final=True),
    _advice("max number of clients", "raise maxclients of the server, or close connections"),
    _advice(
        "^MOVED ",
        "this is one node of a cluster, and another one keeps the namespace: begin the URL with redis+cluster://, or "
        "rediss+cluster:// with TLS",
        final=True,
    ),
    _advice(
        "cluster support disabled", "this server is no cluster; a URL of one server begins with redis://", final=True
    ),
    _advice("unknown command.*sentinel", "this is no Sentinel; a URL of one server begins with redis://", final=True),
    _advice(
        "unknown command.*select", "this is a Sentinel, or a proxy without databases: no number in the URL", final=True
    ),
    _advice("unknown command.*evalsha|unknown command.*eval", "the server must offer EVAL"),
    _advice("protected mode|^DENIED", "the server takes no other host's connections while it has no password"),
    _advice("wrongpass|invalid (username-)?password", "check user and password in the URL", final=True),
)
"""What is known of error replies; the first that fits counts."""


def advice_on(text: str) -> Advice | None:
    """What to do about an error reply; None: nothing is known of it."""
    return next((advice for advice in ADVICE if advice.pattern.search(text)), None)


def sentence(text: str) -> str:
    """The server's own sentence, without the user's name and what it may quote of the command's arguments.

    >>> sentence("ERR unknown command 'HELLO', with args beginning with: '3' 'AUTH' 'app' 'pa55' ")
    "ERR unknown command 'HELLO'"
    >>> sentence("NOPERM User app has no permissions to run the 'evalsha' command")
    "NOPERM the user has no permissions to run the 'evalsha' command"
    """
    text = re.split(r",? with args beginning| script: ", text, maxsplit=1)[0]
    text = re.sub(r"\b[Uu]ser '?\S+ (?=has|is|does)", "the user ", text)
    text = re.sub(r"(['\"`])(?![A-Za-z|]{1,20}\1).*\1", "'...'", text)
    text = re.sub(r"[^\x21-\x7e]+", " ", text).strip()
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def explained(text: str, code: str) -> str:
    """An error reply as it is shown: its code, the server's sentence, and what to do where that is known."""
    said = sentence(text.removeprefix(code).strip())
    advice = advice_on(text)
    return f"the server answered {code}{said and f': {said}'}{f'; {advice.text}' if advice else ''}"


_OF_THE_SERVER = (
    ("expired", "renew it on the server"),
    ("not yet valid", "check the clocks of server and client"),
    ("mismatch", "connect by a name that the certificate has"),
    ("", "name its authority by ?ssl_ca_certs="),
)
_OF_TLS = (
    ("WRONG_VERSION_NUMBER|RECORD_LAYER_FAILURE|UNKNOWN_PROTOCOL|HTTP_REQUEST", _PLAIN),
    ("CERTIFICATE_REQUIRED", "the server wants a client's certificate: name one by ?ssl_certfile= and ?ssl_keyfile="),
    ("CERTIFICATE_EXPIRED", "the server refuses the client's certificate, which has expired: renew it"),
    ("UNKNOWN_CA", "the server does not trust the client's certificate: take one of an authority that it knows"),
    ("KEY_VALUES_MISMATCH", "a certificate or key cannot be used: ssl_keyfile is not the key of ssl_certfile"),
    (
        "PROTOCOL_VERSION|UNSUPPORTED_PROTOCOL|HANDSHAKE_FAILURE|NO_PROTOCOLS",
        "server and client agree on no TLS: check versions and ciphers, and whether the server wants a certificate",
    ),
    ("PEM lib|X509", "a certificate or key cannot be used: a file that the URL's ssl_ options name holds none"),
    ("CERTIFICATE", "a certificate cannot be used; check the ssl_ options of the URL"),
)
"""Words of an SSLError, and what they mean; the first that fits counts."""


def problem_of_tls(error: ssl.SSLError) -> str | None:
    """Why TLS can never work as set up; None: it may be the connection alone."""
    if isinstance(error, ssl.SSLCertVerificationError):
        said = error.verify_message.rstrip(".")
        todo = next(todo for words, todo in _OF_THE_SERVER if words in said)
        return f"the server's certificate is not trusted: {said}; {todo}"
    return next((problem for words, problem in _OF_TLS if re.search(words, f"{error} {error.library}")), None)


def problem_of_server(hello: object) -> str | None:
    """Why this server can never keep a cache, by its answer to HELLO; None: it may."""
    facts: Mapping[Any, Any] = hello if isinstance(hello, Mapping) else {}
    if isinstance(hello, list):
        facts = dict(zip(hello[::2], hello[1::2], strict=False))
    if facts.get(b"mode") == b"sentinel":
        return (
            "this is a Sentinel, which keeps no data; name the primary that it watches, or begin the URL with "
            "redis+sentinel://"
        )
    version = facts.get(b"version")
    parts = re.match(rb"(\d+)\.(\d+)", version) if isinstance(version, bytes) else None
    if parts and (int(parts[1]), int(parts[2])) < OLDEST:
        return f"the server is version {parts[0].decode()}; needed is Redis 7.0, Valkey 7.2, or newer"
    return None


_TLS_RECORDS = (b"\x15", b"\x16")
"""How an alert and a handshake begin."""


def problem_of_scheme(host: str, port: int, *, tls: bool, timeout: float) -> str | None:
    """Whether the port speaks TLS although the URL does not, or the reverse. Connects, and sends no secret.

    A server that takes plain connections waits for the end of the line when a TLS client greets it, and one that takes
    TLS closes a plain connection: neither failure says why.

    Raises:
        OSError: the port takes no connection, or does not answer in time.
    """
    with socket.create_connection((host, port), timeout) as plain:
        plain.settimeout(timeout)
        try:
            plain.sendall(b"PING\r\n" if tls else _client_hello())
            answer = plain.recv(1)
            if tls and answer in (b"+", b"-"):
                return _PLAIN
            if not tls and answer in _TLS_RECORDS:
                return "the port speaks TLS; the URL of a server with TLS begins with rediss://"
        except TimeoutError:
            raise
        except OSError:
            pass
    return None


def _client_hello() -> bytes:
    """What a client of TLS says first; made without a socket, since CPython leaves one open that ends meanwhile."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with suppress(ssl.SSLWantReadError):
        _asking_context().wrap_bio(incoming, outgoing).do_handshake()
    return outgoing.read()


def problem_of_client(host: str, port: int, options: Mapping[str, Any], timeout: float) -> str | None:
    """Why the server refuses the client's certificate, or that there is none. Connects, and sends nothing by TLS.

    In TLS 1.3 the server says so after the handshake. A client that has sent something by then may get the end of the
    connection instead.

    Raises:
        OSError: the port takes no connection, or files can't be read.
    """
    context = _asking_context()
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password"))
    with socket.create_connection((host, port), timeout) as plain:
        plain.settimeout(timeout)
        try:
            with context.wrap_socket(plain) as secure:
                secure.recv(1)
        except ssl.SSLError as error:
            return problem_of_tls(error)
        except TimeoutError:  # it waits for a command
            pass
    return None


def _asking_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # the server is asked, not trusted
    return context
