"""`nearcache doctor` on a good server, and on bad ones: each finding says what to do, and no secret."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from nearcache import Settings, cli
from nearcache.cli.doctor.trial import Trial
from nearcache.findings import KINDS, PAGE
from nearcache.protocol.answers import Beat
from nearcache.protocol.messages import pack_probe
from nearcache.transport.backend import Backend
from nearcache.transport.embedded import HOST, EmbeddedServer, free_port
from tests.support import doctors, servers
from tests.support.waiting import redis_of

SECRET = "s3cret-pa55"
DOCUMENTED = (Path(__file__).parents[2] / "docs" / "security.md").read_text()


def doctor(url: str, *options: str, environ: Mapping[str, str] = {}) -> tuple[Result, dict[str, Any]]:
    """What it prints with --json, and the same without shows no secret either."""
    outcome = CliRunner().invoke(cli.app(), ["doctor", "--url", url, *options, "--json"], env=dict(environ))
    shown = CliRunner().invoke(cli.app(), ["doctor", "--url", url, *options], env=dict(environ))
    assert SECRET not in outcome.output + shown.output
    assert outcome.exit_code == shown.exit_code
    report = json.loads(outcome.stdout)
    assert report["ok"] == (outcome.exit_code == 0), report
    for found in report["findings"]:
        assert found["detail"]
        assert found["detail"] in shown.stdout
        assert found["todo"] in shown.stdout
        assert found["page"] == f"{PAGE}#{found['kind']}"
    return outcome, report


def grave(report: Mapping[str, Any]) -> list[str]:
    """The kinds that were found, but for notes."""
    return [found["kind"] for found in report["findings"] if found["level"] != "note"]


def user_of(server: EmbeddedServer, *rules: str) -> str:
    """A user with these rules; its URL."""
    with redis_of(server.url) as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", f">{SECRET}", *rules)
    return f"redis://app:{SECRET}@{HOST}:{server.port}/0"


def test_a_good_server(server: EmbeddedServer, namespace: str) -> None:
    """All is well, and it is told what the server is; nothing stays behind."""
    outcome, report = doctor(server.url, "--namespace", namespace)
    assert (outcome.exit_code, grave(report)) == (0, []), report
    told = report["server"]
    assert (told["mode"], told["role"], told["protocol"]) == ("standalone", "master", 3)
    assert 0 < told["round_trip"] < 1
    assert abs(told["clock_offset"]) < 1
    assert 0 < report["echo"] < 1
    with redis_of(server.url) as client:
        assert client.keys(f"{{{namespace}:0}}:*") in ([], [f"{{{namespace}:0}}:m".encode()])


def test_the_url_comes_from_the_environment_too(server: EmbeddedServer, namespace: str) -> None:
    """NEARCACHE_URL and NEARCACHE_NAMESPACE; the default namespace is worth a note."""
    environ = {"NEARCACHE_URL": server.url, "NEARCACHE_NAMESPACE": namespace}
    told = CliRunner().invoke(cli.app(), ["doctor", "--json"], env=environ)
    assert (told.exit_code, json.loads(told.stdout)["namespace"]) == (0, namespace)
    _, report = doctor(server.url)
    assert "default-namespace" in [found["kind"] for found in report["findings"]]
    without = CliRunner().invoke(cli.app(), ["doctor", "--json"], env={"NEARCACHE_URL": ""})
    assert (without.exit_code, grave(json.loads(without.stdout))) == (1, ["url"])


def test_the_rights_that_it_prints_are_enough(fresh_server: EmbeddedServer, namespace: str) -> None:
    """They are those of docs/security.md; with them there is no error."""
    printed = CliRunner().invoke(cli.app(), ["doctor", "--acl", "--namespace", "shop"]).stdout.strip()
    start, _, rights = printed.partition("><password> ")
    assert start == "ACL SETUSER <user> on "
    assert rights in DOCUMENTED
    url = user_of(fresh_server, *rights.replace("shop", namespace).split())
    _, report = doctor(url, "--namespace", namespace)
    assert grave(report) == []
    assert [found["kind"] for found in report["findings"]] == ["config-denied"]


def test_the_rights_are_those_of_the_environment() -> None:
    """Namespace and kind of server come from it, as for every other command; what is wrong is told."""
    environ = {"NEARCACHE_URL": "redis+cluster://h:1", "NEARCACHE_NAMESPACE": "shop"}
    told = CliRunner().invoke(cli.app(), ["doctor", "--acl"], env=environ).stdout
    assert "~{shop:* " in told
    assert "+spublish" in told
    told = CliRunner().invoke(cli.app(), ["doctor", "--acl"], env={"NEARCACHE_NAMESPACE": "shop"}).stdout
    assert "~{shop:* &{shop:* " in told
    wrong = CliRunner().invoke(cli.app(), ["doctor", "--acl", "--namespace", "a b"])
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert "namespace='a b'" in wrong.stderr


def test_a_wrong_password(fresh_server: EmbeddedServer, namespace: str) -> None:
    """It is said, and not shown."""
    user_of(fresh_server, "+@all")
    _, report = doctor(f"redis://app:{SECRET}-wrong@{HOST}:{fresh_server.port}/0", "--namespace", namespace)
    assert grave(report) == ["set-up"]
    assert "user or password" in report["findings"][0]["detail"]


def test_a_database_that_is_not_there(server: EmbeddedServer, namespace: str) -> None:
    """Servers have 16."""
    _, report = doctor(f"redis://{HOST}:{server.port}/99", "--namespace", namespace)
    assert grave(report) == ["set-up"]
    assert "DB index" in report["findings"][0]["detail"]


@pytest.mark.parametrize("command", ["publish", "hincrby", "pexpire"])
def test_a_right_that_is_missing(fresh_server: EmbeddedServer, namespace: str, command: str) -> None:
    """It is named."""
    url = user_of(fresh_server, "~*", "&*", "+@all", f"-{command}")
    _, report = doctor(url, "--namespace", namespace)
    assert grave(report) == ["rights"]
    assert command.upper() in report["findings"][0]["detail"].upper()


def test_a_channel_that_is_missing(fresh_server: EmbeddedServer, namespace: str) -> None:
    """Redis 7 gives a new user none."""
    _, report = doctor(user_of(fresh_server, "~*", "+@all"), "--namespace", namespace)
    assert grave(report) == ["rights"]
    url = user_of(fresh_server, "~*", "&*", "+@all", "-subscribe")
    assert grave(doctor(url, "--namespace", namespace)[1]) == ["bus"]


@pytest.mark.parametrize("kind", servers.KINDS)
def test_no_resp3(kind: str, namespace: str) -> None:
    """HELLO is renamed away, or the URL says RESP2."""
    with servers.make(kind, servers.RESP2_ONLY) as server:
        _, report = doctor(server.url, "--namespace", namespace)
        assert grave(report) == ["resp2"]
    with servers.make(kind) as server:
        _, report = doctor(f"{server.url}?protocol=2", "--namespace", namespace)
        assert grave(report) == ["resp2"]


BAD_CONFIGURATIONS = {
    "evicting-policy": {"maxmemory-policy": "allkeys-lru"},
    "pubsub-buffer": {"client-output-buffer-limit": "pubsub 64kb 32kb 60"},
    "request-limits": {"proto-max-bulk-len": "1mb"},
    "idle-timeout": {"timeout": "30"},
    "keepalive": {"tcp-keepalive": "0"},
}


@pytest.mark.parametrize("kind", BAD_CONFIGURATIONS)
def test_a_bad_configuration(fresh_server: EmbeddedServer, namespace: str, kind: str) -> None:
    """A policy that evicts the counter, buffers too small, limits that clash with settings."""
    with redis_of(fresh_server.url) as client:
        for name, value in BAD_CONFIGURATIONS[kind].items():
            client.config_set(name, value)
    _, report = doctor(fresh_server.url, "--namespace", namespace)
    assert [found["kind"] for found in report["findings"]] == [kind]


def test_info_is_denied(fresh_server: EmbeddedServer, namespace: str) -> None:
    """All works, but nothing tells one server from another."""
    _, report = doctor(user_of(fresh_server, "~*", "&*", "+@all", "-info"), "--namespace", namespace)
    assert grave(report) == ["no-info"]


def test_no_server(namespace: str) -> None:
    """Nobody listens."""
    _, report = doctor(f"redis://:{SECRET}@{HOST}:{free_port()}/0", "--namespace", namespace)
    assert grave(report) == ["unreachable"]
    assert "server" not in report


def test_tls_where_there_is_none(server: EmbeddedServer, namespace: str) -> None:
    """The URL is for the other kind of port."""
    _, report = doctor(f"rediss://:{SECRET}@{HOST}:{server.port}/0", "--namespace", namespace)
    assert grave(report) == ["set-up"]
    assert "does not speak TLS" in report["findings"][0]["detail"]


def test_a_url_that_can_never_work() -> None:
    """It is no traceback."""
    _, report = doctor(f"http://:{SECRET}@{HOST}/0")
    assert grave(report) == ["url"]


class Messages:
    """A Remote whose probes the bus brings, or loses, or lets the answer overtake; both ends in one."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.items: list[Any] = []

    async def nothing(self) -> None:
        """Connect, open, close."""

    connect = close = open = nothing

    async def probe(self, nonce: str) -> None:
        """Publish."""
        if self.kind != "lost":
            self.items.append(pack_probe(nonce))

    async def ask_beat(self) -> None:
        """The answer comes behind the message, or before it."""
        self.items.insert(0 if self.kind == "overtaken" else len(self.items), Beat(1, 1, 1, master=True))

    async def receive(self, timeout: float) -> list[Any]:
        """One item at a time."""
        del timeout
        return [self.items.pop(0)] if self.items else []


@pytest.mark.parametrize(("kind", "found"), [("good", []), ("lost", ["bus"]), ("overtaken", ["overtaking"])])
def test_messages_that_are_lost_or_overtaken(kind: str, found: list[str]) -> None:
    """A message has to come before the answer to what was asked after it."""
    ends: Any = Messages(kind)
    where = Backend(ends, lambda: ends, "redis://fake", lambda: where)
    trial = Trial(where, Settings(max_staleness=0.1))
    assert [finding.kind for finding in trial.findings()] == found
    assert (trial.echo is None) == (kind == "lost")


def test_a_good_server_and_bad_ones() -> None:
    """The table that tests.support.doctors prints: each bad one has its own finding."""
    found = {name: (code, list(kinds)) for name, (code, kinds) in doctors.examined().items()}
    assert found.pop("a good one") == (0, [])
    assert found == {
        "nobody listens": (1, ["unreachable"]),
        "a wrong password": (1, ["set-up"]),
        "a replica": (1, ["replica"]),
        "without HINCRBY": (1, ["rights"]),
        "without SUBSCRIBE": (1, ["bus"]),
        "without INFO": (1, ["no-info"]),
        "allkeys-lru": (1, ["evicting-policy"]),
        "a small pub/sub buffer": (1, ["pubsub-buffer"]),
        "values of 1 MB at most": (1, ["request-limits"]),
    }


def test_every_kind_has_its_section() -> None:
    """docs/operations.md has a heading of each name."""
    page = (Path(__file__).parents[2] / PAGE).read_text()
    for kind in KINDS:
        assert f"\n### {kind}\n" in page, kind
