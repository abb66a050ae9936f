"""`nearcache get|set|delete|explain|clear`: what they print, their exit codes, and that a write starts no bus."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner, Result

from nearcache import NearCache, __version__, cli
from nearcache.protocol.names import PROTOCOL
from nearcache.transport.embedded import HOST, EmbeddedServer, free_port
from tests.support.cases import each
from tests.support.waiting import redis_of, until

SECRET = "s3cret-pa55"


@pytest.fixture
def fleet(server: EmbeddedServer, namespace: str) -> Iterator[NearCache]:
    """An application's cache."""
    with NearCache.from_url(server.url, namespace=namespace) as cache:
        yield cache


def run(cache: NearCache, *words: str, answer: str | None = None) -> Result:
    """A call of the command line on the namespace of this cache."""
    environ = {"NEARCACHE_URL": cache.url, "NEARCACHE_NAMESPACE": cache.settings.namespace}
    threads = set(threading.enumerate())
    told = CliRunner().invoke(cli.app(), list(words), env=environ, input=answer)
    assert not [one for one in set(threading.enumerate()) - threads if one.name == "nearcache-bus"]
    return told


async def test_set_and_get(fleet: NearCache) -> None:
    """JSON comes as what it says, and anything else is a string; every L1 hears of it."""
    fleet.set("a", "old")
    stored = run(fleet, "set", "a", '{"n": [1, 2]}', "--ttl", "60", "--tag", "t")
    assert (stored.exit_code, stored.stdout) == (0, "stored\n")
    await until(lambda: fleet.peek("a") is None)
    assert fleet.get("a") == {"n": [1, 2]}
    assert run(fleet, "get", "a").stdout == '{"n": [1, 2]}\n'
    assert run(fleet, "set", "b", "some words").exit_code == 0
    assert run(fleet, "get", "b").stdout == "some words\n"
    told = json.loads(run(fleet, "get", "a", "--json").stdout)
    assert told == {"key": "a", "found": True, "value": {"n": [1, 2]}}
    fleet.invalidate_tags("t")
    assert run(fleet, "get", "a").exit_code == 1
    assert json.loads(run(fleet, "get", "a", "--json").stdout) == {"key": "a", "found": False, "value": None}


@each("text", ["NaN", "Infinity", "-Infinity", "[1, NaN]", "1e999"])
async def test_what_is_no_json_is_a_string(fleet: NearCache, text: str) -> None:
    """Also what Python's parser takes for a number, or would round to none."""
    key = f"a:{text}"
    assert run(fleet, "set", key, "--", text).exit_code == 0
    assert fleet.get(key) == text
    assert run(fleet, "get", key).stdout == f"{text}\n"


@each("value, shown", [(float("nan"), "nan"), ([1, float("inf")], "[1, inf]"), ({(1, 2): 3}, "{(1, 2): 3}")])
async def test_a_value_that_json_cannot_say(fleet: NearCache, value: object, shown: str) -> None:
    """It is shown as Python shows it, and the output of --json is JSON."""
    assert fleet.set("a", value)
    told = run(fleet, "get", "a")
    assert (told.exit_code, told.stdout) == (0, f"{shown}\n")

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    assert json.loads(run(fleet, "get", "a", "--json").stdout, parse_constant=refuse)["value"] == shown


def test_version() -> None:
    """The release and the version of the protocol, without a command."""
    told = CliRunner().invoke(cli.app(), ["--version"])
    assert (told.exit_code, told.stdout) == (0, f"nearcache {__version__}, protocol {PROTOCOL.decode()}\n")


def test_set_of_json_that_is_nested_too_deep(fleet: NearCache) -> None:
    """It is told in a line, and nothing is stored."""
    told = run(fleet, "set", "a", "[" * 5000)
    assert told.exit_code == 2
    assert told.stderr == "nearcache: the value is nested too deep for JSON: store its parts under keys of their own\n"
    assert fleet.get("a") is None


async def test_a_cached_none_is_a_value(fleet: NearCache) -> None:
    """It is found."""
    assert run(fleet, "set", "a", "null").exit_code == 0
    assert run(fleet, "get", "a").stdout == "null\n"


async def test_delete(fleet: NearCache) -> None:
    """Everywhere."""
    fleet.set_many({"a": 1, "b": 2})
    told = run(fleet, "delete", "a", "b", "--json")
    assert json.loads(told.stdout) == {"keys": ["a", "b"], "acknowledged": True}
    await until(lambda: fleet.peek("a") is None and fleet.peek("b") is None)
    assert fleet.get_many(["a", "b"]) == {}


async def test_explain(fleet: NearCache) -> None:
    """What Redis has, and why it would serve or not; the value is not shown."""
    fleet.set("a", "the value", ttl=60, tags=["t"])
    told = run(fleet, "explain", "a")
    assert (told.exit_code, "serve from L2" in told.stdout, "the value" in told.stdout) == (0, True, False)
    found = json.loads(run(fleet, "explain", "a", "--json").stdout)
    assert (found["tier"], found["tags"], found["type"]) == ("l2", ["t"], "str")
    assert 50 < found["remaining"] <= 60
    fleet.invalidate_tags("t")
    told = run(fleet, "explain", "a", "--json")
    assert (told.exit_code, json.loads(told.stdout)["would"]) == (1, "load")
    assert "the tag 't' was invalidated" in json.loads(told.stdout)["why"]
    assert "it has nothing" in run(fleet, "explain", "b").stdout


async def test_clear_asks_first(fleet: NearCache) -> None:
    """No is an answer."""
    fleet.set("a", 1)
    no = run(fleet, "clear", answer="n\n")
    assert (no.exit_code, fleet.get("a")) == (1, 1)
    assert fleet.settings.namespace in no.stderr
    assert run(fleet, "clear", answer="y\n").exit_code == 0
    await until(lambda: fleet.peek("a") is None)
    fleet.set("a", 1)
    assert run(fleet, "clear", "--yes", "--json").exit_code == 0
    await until(lambda: fleet.peek("a") is None)


@pytest.mark.parametrize(
    "words", [["get", "a"], ["set", "a", "1"], ["delete", "a"], ["explain", "a"], ["clear", "--yes"]]
)
def test_no_server(words: list[str]) -> None:
    """Exit code 2, one line, and no secret."""
    url = f"redis://:{SECRET}@{HOST}:{free_port()}/0"
    told = CliRunner().invoke(cli.app(), [*words, "--url", url, "--namespace", "shop"])
    assert (told.exit_code, told.stdout, told.stderr.count("\n")) == (2, "", 1)
    assert SECRET not in told.stderr
    for url in ("memory://", "embedded://", "http://x"):
        assert CliRunner().invoke(cli.app(), [*words, "--url", url]).exit_code == 2


@pytest.mark.parametrize("words", [["set", "a", "1"], ["delete", "a"], ["clear", "--yes"]])
async def test_a_user_without_a_right_writes_nothing(fresh_server: EmbeddedServer, words: list[str]) -> None:
    """A write that is refused in its middle would be a gap to all others."""
    with redis_of(fresh_server.url) as client:
        rules = ["reset", "on", f">{SECRET}", "~*", "+@all"]
        client.execute_command("ACL", "SETUSER", "app", *rules)
    url = f"redis://app:{SECRET}@{HOST}:{fresh_server.port}/0"
    with NearCache.from_url(fresh_server.url, namespace="shop") as owner:
        owner.set("a", 5)
        told = CliRunner().invoke(cli.app(), [*words, "--url", url, "--namespace", "shop"])
        assert told.exit_code == 2
        assert "right" in told.stderr
        assert SECRET not in told.stderr
        owner.set("b", 1)
        assert owner.wait_healthy(5)
        assert (owner.stats().flushes, owner.get("a")) == (0, 5)
