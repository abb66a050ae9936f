"""What `nearcache doctor` says of a good server and of bad ones, as a table: ``python -m tests.support.doctors``."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial

from rich.console import Console
from rich.table import Table
from typer.testing import CliRunner

from nearcache import cli
from nearcache.transport.embedded import HOST, EmbeddedServer, free_port
from tests.support.waiting import redis_of

RIGHTS = ("~*", "&*", "+@all")


@contextmanager
def configured(**settings: str) -> Iterator[str]:
    """A server with some settings; its URL."""
    with EmbeddedServer() as server, redis_of(server.url) as client:
        for name, value in settings.items():
            client.config_set(name.replace("_", "-"), value)
        yield server.url


@contextmanager
def user(*rules: str, password: str = "pw") -> Iterator[str]:  # of a server that lives for a second
    """A server with a user of these rights; its URL."""
    with EmbeddedServer() as server, redis_of(server.url) as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", *rules)
        yield f"redis://app:{password}@{HOST}:{server.port}/0"


@contextmanager
def nobody() -> Iterator[str]:
    """A port where nobody listens."""
    yield f"redis://{HOST}:{free_port()}/0"


@contextmanager
def replica() -> Iterator[str]:
    """A replica."""
    with EmbeddedServer() as primary, EmbeddedServer() as server, redis_of(server.url) as client:
        client.execute_command("REPLICAOF", HOST, str(primary.port))
        yield server.url


SERVERS: Mapping[str, Callable[[], AbstractContextManager[str]]] = {
    "a good one": configured,
    "nobody listens": nobody,
    "a wrong password": partial(user, *RIGHTS, password="wrong"),  # that is the case
    "a replica": replica,
    "without HINCRBY": partial(user, *RIGHTS, "-hincrby"),
    "without SUBSCRIBE": partial(user, *RIGHTS, "-subscribe"),
    "without INFO": partial(user, *RIGHTS, "-info"),
    "allkeys-lru": partial(configured, maxmemory_policy="allkeys-lru"),
    "a small pub/sub buffer": partial(configured, client_output_buffer_limit="pubsub 64kb 32kb 60"),
    "values of 1 MB at most": partial(configured, proto_max_bulk_len="1mb"),
}


def examined() -> dict[str, tuple[int, Mapping[str, str]]]:
    """By server: the exit code, and the details by the kinds that were found, but for notes."""
    found: dict[str, tuple[int, Mapping[str, str]]] = {}
    for name, make in SERVERS.items():
        with ExitStack() as stack:
            url = stack.enter_context(make())
            told = CliRunner().invoke(cli.app(), ["doctor", "--url", url, "--namespace", "shop", "--json"])
        findings = json.loads(told.stdout)["findings"]
        found[name] = told.exit_code, {one["kind"]: one["detail"] for one in findings if one["level"] != "note"}
    return found


if __name__ == "__main__":
    table = Table("server", "exit code", "findings", "such as")
    for name, (code, kinds) in examined().items():
        table.add_row(name, str(code), ", ".join(kinds) or "none", next(iter(kinds.values()), ""))
    Console(width=150).print(table)
