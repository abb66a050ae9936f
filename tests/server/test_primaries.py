"""Each primary of a cluster as the operator sees it: in health(), in the metrics, in `nearcache top` and `doctor`."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from redis.crc import key_slot
from typer.testing import CliRunner

from nearcache import CoherenceFailed, ConfigError, Connected, Disconnected, Event, Flushed, NearCache, cli
from nearcache.local.snapshot import bucket_of
from nearcache.observe.metrics import METRICS
from nearcache.observe.prometheus import Feeder, register
from nearcache.primaries import Primary
from tests.support import servers
from tests.support.clusters import LocalCluster, Node
from tests.support.twins import MODES, Twin, twin_of
from tests.support.waiting import until

FAST: dict[str, Any] = {"max_staleness": 0.4, "redis_timeout": 0.2, "reconnect_max": 0.1, "breaker_reset": 0.1}


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A cluster without replicas, so that a primary that stands still is not replaced."""
    with LocalCluster(servers.KINDS[0]) as made:
        yield made


@pytest.fixture(params=MODES)
def cache(
    request: pytest.FixtureRequest, cluster: LocalCluster, namespace: str, runner: asyncio.Runner
) -> Iterator[Twin]:
    """A cache of the class under test, proven."""
    made = twin_of(request.param, cluster.url, runner, namespace=namespace, **FAST)
    assert runner.run(made.wait_healthy(10))
    yield made
    runner.run(made.close())


@contextmanager
def standing(cluster: LocalCluster, *, beside: str | None = None) -> Iterator[Node]:
    """A primary that stands still; ``beside``: the address of one that has to go on."""
    node = next(node for node in cluster.nodes[1:] if address(node) != beside)
    node.server.pause()
    try:
        yield node
    finally:
        node.server.resume()
        cluster.wait(cluster.settled)


def address(node: Node) -> str:
    """Host and port."""
    return f"127.0.0.1:{node.server.port}"


async def test_health_tells_of_each_primary(cluster: LocalCluster, cache: Twin) -> None:
    """Its address, its buckets, and that all of them are proven; together they have each bucket once."""
    primaries = cache.health().primaries
    assert {one.address for one in primaries} <= {address(node) for node in cluster.nodes}
    assert len(primaries) > 1
    assert sorted(bucket for one in primaries for bucket in one.buckets) == list(range(16))
    assert {(one.bus, one.unproven, one.breaker, one.reason) for one in primaries} == {("proven", (), "closed", None)}
    assert hash(primaries[0]) == hash(cache.health().primaries[0])


async def test_a_primary_that_stands_still(cluster: LocalCluster, cache: Twin) -> None:
    """Its own buckets are unproven, and it is named with the reason; the others are well. Then all are again."""

    def of(node: Node) -> Primary:
        primaries: tuple[Primary, ...] = cache.health().primaries
        return next(one for one in primaries if one.address == address(node))

    with standing(cluster) as node:
        await until(lambda: of(node).bus == "lost" and of(node).unproven == of(node).buckets)
        await until(lambda: of(node).reason is not None)
        health = cache.health()
        assert health.status == "degraded"
        assert f"primary {address(node)} (buckets {of(node).buckets[0]}" in health.reason
        (finding,) = health.reasons
        assert (finding.kind, finding.detail.partition(" (")[0]) == ("unreachable", f"primary {address(node)}")
        assert {one.bus for one in health.primaries if one.address != address(node)} == {"proven"}
    await until(lambda: cache.health().status == "ok", within=20)
    assert cache.health().reason is None


async def test_events_name_the_primary(cluster: LocalCluster, cache: Twin) -> None:
    """Each that is lost is told of once, with its address; the end is told when the last one is back."""
    events: list[Event] = []
    cache.on_event(events.append)

    def lost() -> list[str]:
        return [event.reason.partition(": ")[0] for event in events if isinstance(event, Disconnected)]

    addresses = {one.address for one in cache.health().primaries}
    nodes = [node for node in cluster.nodes if address(node) in addresses][:2]
    told = [f"primary {address(node)}" for node in nodes]
    try:
        for number, node in enumerate(nodes, 1):
            node.server.pause()
            await until(lambda number=number: lost() == told[:number])  # type: ignore[misc]
    finally:
        for node in nodes:
            node.server.resume()
    await asyncio.to_thread(cluster.wait, cluster.settled)
    await until(lambda: cache.health().status == "ok", within=20)
    assert [type(event) for event in events if isinstance(event, Connected)] == [Connected]


async def test_metrics_of_each_primary(cluster: LocalCluster, cache: Twin) -> None:
    """Two gauges with the label primary, which say whose bus is down, and how many buckets are unproven."""
    registry = CollectorRegistry()
    register(cache.cache, registry)

    def told(name: str) -> dict[str, float]:
        families = {family.name: family.samples for family in registry.collect()}
        return {sample.labels["primary"]: sample.value for sample in families[f"nearcache_primary_{name}"]}

    buckets = {one.address: len(one.buckets) for one in cache.health().primaries}
    assert told("bus_down") == told("buckets_unproven") == dict.fromkeys(buckets, 0.0)
    with standing(cluster) as node:
        lost = {name: float(name == address(node)) for name in buckets}
        await until(lambda: told("bus_down") == lost)
        await until(lambda: told("buckets_unproven") == {name: buckets[name] * lost[name] for name in buckets})


def test_a_primary_that_has_lost_its_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the multiprocess mode of prometheus-client its series can't be taken back, and goes to 0."""
    registry = CollectorRegistry()
    feeder = Feeder(registry)
    try:
        for primary in ("a:1", "b:2"):
            values = [{("t", primary): 1.0} if "primary" in metric.labels else {} for metric in METRICS]
            monkeypatch.setattr("nearcache.observe.prometheus.read", lambda _, values=values: values)
            feeder.feed()
        for name in ("bus_down", "buckets_unproven"):
            for primary, value in (("a:1", 0.0), ("b:2", 1.0)):
                labels = {"namespace": "t", "primary": primary}
                assert registry.get_sample_value(f"nearcache_primary_{name}", labels) == value
    finally:
        feeder.close()


async def test_top_shows_primaries_and_buckets(
    cluster: LocalCluster, namespace: str, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Primaries that are up, of all, and buckets that are unproven; the documents lie in the first bucket."""
    monkeypatch.setattr("nearcache.announce.EVERY", 0.0)
    cache = twin_of("sync", cluster.url, runner, namespace=namespace, announce=True, **FAST)
    assert await cache.wait_healthy(10)
    primaries: tuple[Primary, ...] = cache.health().primaries
    buckets = {one.address: len(one.buckets) for one in primaries}
    first = next(one.address for one in primaries if 0 in one.buckets)

    def top(*words: str) -> str:
        return CliRunner().invoke(cli.app(), ["top", "--url", cluster.url, "--namespace", namespace, *words]).output

    def told() -> list[tuple[object, ...]]:
        instances = json.loads(top("--json"))["instances"]
        return [(one["primaries"], one["primaries_up"], one["buckets_unproven"]) for one in instances]

    count = len(buckets)
    await until(lambda: told() == [(count, count, 0)])
    with standing(cluster, beside=first) as node:
        await until(lambda: told() == [(count, count - 1, buckets[address(node)])])
        assert f"{count - 1} of {count}" in top("--once")
    await cache.close()


def examined(url: str, namespace: str) -> tuple[dict[str, Any], str]:
    """What doctor says of a cluster."""
    words = ["doctor", "--url", url, "--namespace", namespace]
    shown = CliRunner().invoke(cli.app(), words).output
    report: dict[str, Any] = json.loads(CliRunner().invoke(cli.app(), [*words, "--json"]).stdout)
    assert all(found["detail"] in shown for found in report["findings"])
    return report, shown


def found_at(report: dict[str, Any], *, notes: bool = False) -> set[tuple[str, str]]:
    """The findings, each with the primary that it names."""
    return {
        (found["kind"], found["detail"].partition(" (")[0])
        for found in report["findings"]
        if notes or found["level"] != "note"
    }


def test_doctor_examines_each_primary(cluster: LocalCluster, namespace: str) -> None:
    """Release, buckets and echo of each; a note, as these have no replica, and nothing else."""
    report, shown = examined(cluster.url, namespace)
    assert report["ok"]
    assert sorted(bucket for one in report["primaries"] for bucket in one["buckets"]) == list(range(16))
    for one in report["primaries"]:
        assert (one["server"]["mode"], one["server"]["role"]) == ("cluster", "master")
        assert 0 < one["echo"] < 1
        assert f"primary {one['address']} (bucket" in shown
    addresses = {one["address"] for one in report["primaries"]}
    assert found_at(report, notes=True) == {("no-replica", f"primary {one}") for one in addresses}


def test_doctor_names_the_primary_that_is_badly_set_up(cluster: LocalCluster, namespace: str) -> None:
    """Its policy, its buffers, a right that a user lacks there alone, a primary that does not answer."""
    at = {address(node): node for node in cluster.nodes}
    bad = at[examined(cluster.url, namespace)[0]["primaries"][-1]["address"]]
    name = f"primary {address(bad)}"
    policy = bad("CONFIG", "GET", "maxmemory-policy")[1]
    bad("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    bad("CONFIG", "SET", "client-output-buffer-limit", "pubsub 1000 1000 1")
    bad("CONFIG", "SET", "cluster-require-full-coverage", "yes")
    try:
        report, _ = examined(cluster.url, namespace)
    finally:
        bad("CONFIG", "SET", "maxmemory-policy", policy)
        bad("CONFIG", "SET", "client-output-buffer-limit", "pubsub 33554432 8388608 60")
        bad("CONFIG", "SET", "cluster-require-full-coverage", "no")
    assert found_at(report) == {("evicting-policy", name), ("pubsub-buffer", name)}
    assert ("full-coverage", name) in found_at(report, notes=True)

    for node in cluster.nodes:
        denied = ["-hincrby"] if node is bad else []
        node("ACL", "SETUSER", "app", "reset", "on", ">s3cret", "~*", "&*", "+@all", *denied)
    report, shown = examined(cluster.url.replace("://", "://app:s3cret@"), namespace)
    assert found_at(report) == {("rights", name)}
    assert "s3cret" not in shown

    bad.server.pause()
    try:
        report, shown = examined(cluster.url, namespace)
    finally:
        bad.server.resume()
        cluster.wait(cluster.settled)
    assert found_at(report) == {("unreachable", name)}
    assert f"{name} (bucket" in shown


async def test_before_the_first_use_and_after_the_end(
    cluster: LocalCluster, namespace: str, runner: asyncio.Runner
) -> None:
    """Nothing is known of primaries; a server with one bucket has none to tell of."""
    cache = twin_of(MODES[0], cluster.url, runner, namespace=namespace)
    assert cache.health().primaries == ()
    await cache.close()


async def test_a_cluster_that_nobody_knows(namespace: str, runner: asyncio.Runner) -> None:
    """The buckets have no known primary, and the reason says why."""
    cache = twin_of(MODES[0], "redis+cluster://127.0.0.1:1", runner, namespace=namespace, **FAST)
    await cache.get("a")
    await until(lambda: cache.health().bus == "lost")
    (primary,) = cache.health().primaries
    assert (primary.address, primary.buckets, primary.bus) == (None, tuple(range(16)), "lost")
    assert str(primary).startswith("no known primary (buckets 0, 1,")
    assert primary.reason
    await cache.close()


async def test_own_writes_are_timed_in_each_bucket(cache: Twin) -> None:
    """stats() sums up the buckets, as it does the requests for several keys that came too late."""
    await cache.set_many({str(number): number for number in range(50)})
    await until(lambda: cache.stats().propagations)
    assert cache.stats().propagation_seconds > 0


def counters_of(cluster: LocalCluster, namespace: str, bucket: int) -> tuple[Node, str]:
    """The name of a bucket's counters, and the primary that has it."""
    name = f"{{{namespace}:{bucket}}}:m"
    return cluster.owner(key_slot(name.encode())), name


def kept_by(cluster: LocalCluster, namespace: str, buckets: int = 32) -> dict[int, str | None]:
    """By bucket, the protocol that keeps it."""
    found = {}
    for bucket in range(buckets):
        node, name = counters_of(cluster, namespace, bucket)
        found[bucket] = node("HGET", name, "p")
    return found


@pytest.mark.parametrize("mode", MODES)
async def test_another_number_of_buckets_takes_no_emptied_bucket(
    cluster: LocalCluster, namespace: str, runner: asyncio.Runner, mode: str
) -> None:
    """Also while the first bucket was away, and has come back empty; who has the right number takes it again."""
    made = [twin_of(mode, cluster.url, runner, namespace=namespace, buckets=count, **FAST) for count in (16, 32, 16)]
    first, wrong, last = made
    try:
        assert await first.wait_healthy(10)
        await first.close()
        node, name = counters_of(cluster, namespace, 0)
        node("DEL", name)
        node.server.pause()
        try:
            assert not await wrong.wait_healthy(1)
        finally:
            node.server.resume()
            await asyncio.to_thread(cluster.wait, cluster.settled)
        await until(lambda: wrong.health().primaries[0].bus == "refused")
        assert not await wrong.wait_healthy(0.5)
        assert await wrong.set_many({f"key:{number}": 1 for number in range(40)}) is False
        assert wrong.health().status == "down"
        found = await asyncio.to_thread(kept_by, cluster, namespace)
        assert {bucket: kept for bucket, kept in found.items() if kept != "2/16"} == dict.fromkeys((0, *range(16, 32)))
        assert await last.wait_healthy(10)
        assert await last.set_many({f"key:{number}": 1 for number in range(40)}) is True
        assert not wrong.healthy
    finally:
        for one in (wrong, last):
            await one.close()


@pytest.mark.parametrize("mode", MODES)
async def test_a_new_namespace_while_a_primary_is_away(
    cluster: LocalCluster, namespace: str, runner: asyncio.Runner, mode: str
) -> None:
    """It may have another number of buckets there, so that nothing is taken; one bucket that tells it is enough."""
    places = [counters_of(cluster, namespace, bucket) for bucket in range(16)]
    with standing(cluster) as node:
        cache = twin_of(mode, cluster.url, runner, namespace=namespace, **FAST)
        other, name = next(place for place in places if place[0] is not node)
        assert not await cache.wait_healthy(1)
        await until(lambda: "is empty, and nothing says how many buckets the namespace has" in cache.health().reason)
        assert await cache.set_many({f"key:{number}": 1 for number in range(40)}) is False
        for each in cluster.nodes:
            assert each is node or not each("KEYS", f"{{{namespace}:*")
        other("HSET", name, "p", "2/16")
        await until(lambda: [one.bus for one in cache.health().primaries].count("proven") == 2)
    await until(lambda: cache.health().status == "ok", within=20)
    await cache.close()


async def test_buckets_that_disagree(cluster: LocalCluster, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason names what to delete, and then all is well."""
    monkeypatch.setenv("NEARCACHE_MAX_STALENESS", "0.4")
    monkeypatch.setenv("NEARCACHE_REDIS_CONNECT_TIMEOUT", "0.4")
    node, name = counters_of(cluster, namespace, 3)
    with NearCache.from_url(cluster.url, namespace=namespace, **FAST) as cache:
        assert await asyncio.to_thread(cache.wait_healthy, 10)
    node("HSET", name, "p", "2/32")
    words = ["doctor", "--url", cluster.url, "--namespace", namespace, "--json"]
    told = json.loads((await asyncio.to_thread(CliRunner().invoke, cli.app(), words)).stdout)
    assert {one["kind"] for one in told["findings"]} == {"other-protocol", "no-replica"}
    assert any(f"delete {name} " in one["detail"] for one in told["findings"])
    with NearCache.from_url(cluster.url, namespace=namespace, **FAST) as cache:
        assert not await asyncio.to_thread(cache.wait_healthy, 0.5)
        await until(lambda: f"delete {name} " in str(cache.health().reason))
        node("DEL", name)
        assert await asyncio.to_thread(cache.wait_healthy, 10)


async def test_messages_that_one_primary_refuses(cluster: LocalCluster, cache: Twin) -> None:
    """It is asked again after pauses that grow, L1 of its buckets is off, and each kind of event is one."""
    events: list[Event] = []
    keys = [f"key:{number}" for number in range(60)]
    assert await cache.set_many(dict.fromkeys(keys, 1)) is True
    node = cluster.nodes[0]

    def its() -> Primary:
        primaries: tuple[Primary, ...] = cache.health().primaries
        return next(one for one in primaries if one.address == address(node))

    def asked() -> int:
        return int(node("INFO", "commandstats").get("cmdstat_ssubscribe", {}).get("rejected_calls", 0))

    own = [key for key in keys if cache._core.of(key).tier.proof.bucket in its().buckets]
    before = asked()
    cache.on_event(events.append)
    node("ACL", "SETUSER", "default", "-ssubscribe")
    try:
        node("CLIENT", "KILL", "TYPE", "pubsub")
        await until(lambda: its().bus == "refused" and its().unproven == its().buckets)
        await until(lambda: all(cache.peek(key) is None for key in own))
        for _ in range(10):  # while there are writes, nothing of it is proven in between
            assert await cache.set(own[0], 1) is True
            assert all(cache.peek(key) is None for key in own[1:])
            await asyncio.sleep(0.1)
        assert its().bus == "refused"
        assert "the user needs +ssubscribe and the channel" in str(its().reason)
        assert asked() - before <= 9 * len(its().buckets)
        assert [type(event) for event in events if not isinstance(event, Flushed)] == [Disconnected, CoherenceFailed]
        assert len([event for event in events if isinstance(event, Flushed)]) <= 1
        assert await cache.get(own[0]) == 1
        cache._core.of(own[1]).tier.journal_keys([own[1]])
        await until(lambda: cache.health().journal == 0)  # no heartbeat of the bucket does it
        assert its().bus == "refused"
        node("ACL", "SETUSER", "default", "-spublish")  # a write would be one that nobody hears of
        await until(lambda: cache._core.of(own[0]).requests.denied is not None)
        assert any(one.refusals for one in cache.cache._subscriber.buckets)
    finally:
        node("ACL", "SETUSER", "default", "+ssubscribe", "+spublish")
    await until(lambda: cache.health().status == "ok", within=20)
    assert not any(one.refusals for one in cache.cache._subscriber.buckets)


async def test_resp2(cluster: LocalCluster, namespace: str, runner: asyncio.Runner) -> None:
    """It is named, and no right."""
    for mode in MODES:
        cache = twin_of(mode, f"{cluster.url}?protocol=2", runner, namespace=namespace, **FAST)
        assert not await cache.wait_healthy(0.3)
        await until(lambda cache=cache: cache.health().bus == "refused")  # type: ignore[misc]
        assert {finding.kind for finding in cache.health().reasons} == {"resp2"}
        assert "remove protocol=2" in cache.health().reason
        await cache.close()


def test_commands_while_a_primary_is_away(
    cluster: LocalCluster, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keys of the others are served, also where the first bucket is away; who is away is named with its buckets."""
    for name in ("REDIS_TIMEOUT", "REDIS_CONNECT_TIMEOUT"):
        monkeypatch.setenv(f"NEARCACHE_{name}", "0.2")

    def run(*words: str) -> tuple[int, str]:
        done = CliRunner().invoke(cli.app(), [*words, "--url", cluster.url, "--namespace", namespace])
        return done.exit_code, done.output.strip()

    places = [counters_of(cluster, namespace, bucket)[0] for bucket in range(16)]
    away, found = places[0], {places[bucket_of(f"key:{number}", 16)]: f"key:{number}" for number in range(60)}
    lost, kept = found.pop(away), next(iter(found.values()))
    assert run("l1", "--share", "0.5") == (0, f"L1 may hold 0.5 of the keys of {namespace}")
    away.server.pause()
    try:
        assert run("set", kept, "1") == (0, "stored")
        assert run("get", kept) == (0, "1")
        for words in (("get", lost), ("delete", kept, lost), ("top", "--once")):
            code, said = run(*words)
            assert (code, said.partition(" (")[0]) == (2, f"nearcache: primary {address(away)}"), words
            assert "buckets 0," in said
        code, said = run("l1", "--share", "0")
        assert code == 1
        assert f"not asked: primary {address(away)} (buckets 0, " in said
        assert "set it again with --share when every primary answers" in said
        code, said = run("clear", "--yes")
        assert code == 1
        assert f"not acknowledged: primary {address(away)} (buckets 0, " in said
    finally:
        away.server.resume()
        cluster.wait(cluster.settled)
    code, said = run("l1")
    assert code == 1
    assert said.startswith("L1 may hold 0 of the keys of buckets ")
    assert "\nL1 may hold 0.5 of the keys of buckets 0 " in said
    assert run("get", kept)[0] == 1
    assert run("l1", "--share", "1") == (0, f"L1 may hold 1 of the keys of {namespace}")


@pytest.mark.parametrize("mode", MODES)
async def test_the_start_names_the_primary_that_is_badly_set_up(
    cluster: LocalCluster, namespace: str, runner: asyncio.Runner, mode: str
) -> None:
    """One that has another password, or gives a user fewer rights; and the finding of one that denies INFO."""

    def made() -> Twin:
        return twin_of(mode, cluster.url.replace("://", "://app:secret@"), runner, namespace=namespace, **FAST)

    odd = counters_of(cluster, namespace, 5)[0]
    whose = rf"primary {re.escape(address(odd))}"
    for node in cluster.nodes:
        node("ACL", "SETUSER", "app", "reset", "on", ">secret", "~*", "&*", "+@all")
    try:
        for change, found in (
            (("resetpass", ">other"), "the server refused the user or password"),
            (("resetpass", ">secret", "-spublish"), "the user lacks a right that the cache needs"),
        ):
            odd("ACL", "SETUSER", "app", *change)
            with pytest.raises(ConfigError, match=rf"{whose}: .*{found}"):
                async with made():
                    pass
        odd("ACL", "SETUSER", "app", "+spublish", "-info")
        async with made() as cache:
            assert await cache.wait_healthy(10)
            assert [finding.kind for finding in cache.health().reasons] == ["no-info"]
            assert re.match(whose, cache.health().reasons[0].detail)
    finally:
        for node in cluster.nodes:
            node("ACL", "DELUSER", "app")
