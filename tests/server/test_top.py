"""`nearcache top`: the instances that announce themselves, in a table, as JSON and live; silent by default."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from nearcache import AsyncNearCache, NearCache
from nearcache.announce import Announcer
from nearcache.cli.top import COLUMNS, OF_BUCKETS, table_of
from nearcache.protocol import names
from nearcache.protocol.names import Names, acl
from nearcache.runtime.run_sync import run_sync
from nearcache.testing import FakeServer
from nearcache.transport.embedded import HOST, EmbeddedServer
from tests.server.test_commands import run
from tests.support.cases import each
from tests.support.twins import MakeCache
from tests.support.waiting import redis_of, until

SOON: dict[str, Any] = {"max_staleness": 0.2, "announce": True}


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """After each heartbeat; a document lives for 3 s."""
    monkeypatch.setattr("nearcache.announce.EVERY", 0.0)
    monkeypatch.setattr("nearcache.announce.LIFE", 60)


def instances(cache: NearCache) -> list[dict[str, Any]]:
    """What the command prints."""
    told = json.loads(run(cache, "top", "--json").stdout)
    assert told["namespace"] == cache.settings.namespace
    found: list[dict[str, Any]] = told["instances"]
    return found


async def test_instances_that_were_asked_to_announce_themselves(make_cache: MakeCache, namespace: str) -> None:
    """Release, reads and who answered, proof, propagation, journal and memory; the others are not there."""
    with NearCache.from_url(make_cache().url, namespace=namespace, max_staleness=0.2) as silent:
        assert run(silent, "top", "--json").exit_code == 1
        assert "set announce=True" in run(silent, "top", "--once").stdout
        async with make_cache(**SOON) as one, make_cache(**SOON) as other:
            await one.set("a", "x" * 100)

            async def busy() -> bool:
                for _ in range(20):
                    await one.get("a")
                return any(found["l1_ratio"] for found in instances(silent))

            await until(busy)
            await until(lambda: len(instances(silent)) == 2)
            assert await other.get("a") == "x" * 100
            first, second = sorted(instances(silent), key=lambda found: found["l1_bytes"] or 0, reverse=True)
            assert {first["kind"], second["kind"]} == {type(one.cache).__name__}
            assert first["instance"].endswith(f":{os.getpid()}")
            assert (first["status"], first["journal"], first["l1_entries"], first["l1_share"]) == ("ok", 0, 1, 1.0)
            assert first["l1_bytes"] > 100
            await until(lambda: any(0 < (found["propagation"] or 0) < 2 for found in instances(silent)))
            assert 0 <= first["proof_age"] < 2
            await until(lambda: run(silent, "top", "--once").exit_code == 0)
            assert "2 instances" in run(silent, "top", "--once").stdout


def documents(count: int, **more: Any) -> list[dict[str, Any]]:
    """What so many instances tell of themselves."""
    one = {
        "version": "0.2.0",
        "status": "ok",
        "reason": None,
        "reads": 52341.0,
        "l1_ratio": 0.9871,
        "l2_ratio": 0.0102,
        "loads": 23.4,
        "proof_age": 0.21,
        "propagation": 0.0004,
        "journal": 0,
        "l1_entries": 9_999,
        "l1_max_entries": 10_000,
        "l1_bytes": 3_000_000,
        "up": 86_400.0,
    }
    return [{**one, "instance": f"shop-web-7d9f8b6c5d-x2x4{number}:1", **more} for number in range(count)]


def drawn(width: int, instances: list[dict[str, Any]]) -> str:
    """The table on a terminal of this width."""
    file = StringIO()
    console = Console(width=width, file=file)
    console.print(table_of("shop", instances, console))
    return file.getvalue()


def test_a_narrow_terminal_has_fewer_columns() -> None:
    """Nothing is cut off: at 80 columns the most important ones are there, and those left out are named."""
    wide = drawn(200, documents(2))
    assert all(name in wide for name in COLUMNS if name not in OF_BUCKETS)
    assert "want of room" not in wide
    narrow = drawn(80, documents(2))
    lines = narrow.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in narrow
    assert all(text in narrow for text in ("shop-web-7d9f8b6c5d-x2x41:1", "status", "reads/s", "98.7%", "proof age"))
    assert "for want of room without release" in narrow
    assert "--json has all" in narrow


def test_the_reason_of_an_instance_stands_below() -> None:
    """In full, whatever the width; a text of another process is no markup."""
    reason = "primary 127.0.0.1:7001 (buckets 0, 3): no answer in time, said [bold]somebody"
    said = " ".join(drawn(80, documents(1, status="degraded", reason=reason)).split())
    assert f"x2x40:1: {reason}" in said
    assert "1 instance announces itself" in said


def test_primaries_and_buckets_of_an_instance() -> None:
    """Columns of their own, where any instance has several buckets."""
    told = documents(1, primaries=3, primaries_up=2, buckets_unproven=6)
    for width in (80, 200):
        first = next(line for line in drawn(width, [*told, *documents(1)]).splitlines() if "x2x40" in line)
        cells = [cell.strip() for cell in first.split("│")]
        assert cells[cells.index("2 of 3") + 1] == "6"
    assert "primaries" not in drawn(200, documents(1))


async def test_a_document_expires(server: EmbeddedServer, namespace: str) -> None:
    """An instance that has ended is gone soon, and so is what anybody else has written there."""
    async with AsyncNearCache.from_url(server.url, namespace=namespace, **SOON) as cache:
        with NearCache.from_url(server.url, namespace=namespace, max_staleness=0.2) as silent:
            await until(lambda: len(instances(silent)) == 1)
            with redis_of(server.url) as client:
                place = Names(namespace).place
                taken = {number for number in range(names.PLACES) if client.exists(place(number))}
                free = next(number for number in range(names.PLACES) if number not in taken)
                client.set(place(free), b"garbage", px=60_000)
                (mine,) = taken
                assert 0 < client.pttl(place(mine)) <= 3000
            assert len(instances(silent)) == 1
            await cache.close()
            await until(lambda: not instances(silent))


def test_two_instances_never_have_one_place(fake: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds another one there looks for a free place."""
    monkeypatch.setattr("nearcache.announce.PLACES", 3)
    with ExitStack() as stack:
        caches = [stack.enter_context(fake.cache()) for _ in range(3)]
        announcers = [Announcer(cache._core, cache._troubles, "NearCache") for cache in caches]
        for _ in range(50):
            for announcer in announcers:
                run_sync(announcer.run())
        (owners,) = {frozenset(document[:32] for document in run_sync(caches[0]._core.remote.announced()))}
        assert len(owners) == 3


async def test_the_rights_of_the_page_are_enough(fresh_server: EmbeddedServer) -> None:
    """Nothing is needed beyond what the cache itself needs, by the application nor by the command."""
    with redis_of(fresh_server.url) as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", *acl("shop").split())
        url = f"redis://app:pw@{HOST}:{fresh_server.port}/0"
        with NearCache.from_url(url, namespace="shop", **SOON) as cache:
            cache.set("a", 1)
            await until(lambda: len(json.loads(_top(url, "--json"))["instances"]) == 1)
            assert not cache.health().refused


def _top(url: str, *words: str) -> str:
    command = [sys.executable, "-m", "nearcache.cli", "top", "--url", url, "--namespace", "shop", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60).stdout


def test_it_watches_until_ctrl_c(server: EmbeddedServer, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0."""
    looks: list[float] = []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) > 2:
            raise KeyboardInterrupt

    monkeypatch.setattr("nearcache.cli.top.sleep", sleep)
    with NearCache.from_url(server.url, namespace=namespace) as cache:
        told = run(cache, "top", "--every", "0.5")
    assert (told.exit_code, looks) == (0, [0.5] * 3)
    assert "0 instances" in told.stdout


@each("wrong", [1, "yes", None])
def test_announce_is_a_boolean(wrong: Any) -> None:
    """Anything else is refused."""
    with pytest.raises(ValueError, match=r"announce=.*: must be True or False"):
        NearCache.from_url("memory://", announce=wrong)


def test_memory_has_nobody_to_tell() -> None:
    """There is no server."""
    with NearCache.from_url("memory://", announce=True) as cache:
        assert not cache._core.chores.chores
        assert Announcer(cache._core, cache._troubles, "NearCache")
