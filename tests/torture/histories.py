"""Faults of the data: another server, or another history, takes the place of the one that the clients know."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from nearcache import NearCache
from nearcache.protocol import scripts
from nearcache.protocol.names import Names
from nearcache.testing import FaultProxy, everyone, subscribers
from nearcache.transport.embedded import HOST, free_port
from tests.support import servers
from tests.support.processes import Crew
from tests.support.waiting import wait_until
from tests.torture.book import LATE, Window, name, now
from tests.torture.faults import REST, Stage, Steps
from tests.torture.stranger import roam
from tests.torture.worker import MAX_STALENESS, NAMESPACE, REDIS_TIMEOUT

LAG = int(0.1e9)
"""ns that a replica may be behind while its link is whole."""
BACK = 10
"""Seconds by which the server's clock is set back."""
AHEAD = 150
"""Writes between the copy of the counter and that of the values, so that the counter is behind them for long."""
PAUSE = 0.1
"""Seconds in which some writes are made."""
NAMES = Names(NAMESPACE)
LATE_NAMES = tuple(NAMES.value(name(key)) for key in LATE)
USER, PASSWORD = "app", "torture"


def _nobody(_head: bytes) -> bool:
    return False


def _late_sets(head: bytes) -> bool:
    """The connections on which a set of the late keys went."""
    return scripts.SET.sha in head and any(one in head for one in LATE_NAMES)


# ---------------------------------------------------------------------------------------------------------- failovers


def replicate(stage: Stage) -> None:
    """Give the server a replica behind a link that can be cut."""
    stage.link = stage.cleanup.enter_context(FaultProxy(stage.server.port))
    config = {"replicaof": f"{HOST} {stage.link.port}", "repl-diskless-sync-delay": "0"}
    stage.spare = stage.cleanup.enter_context(servers.make(stage.kind, config))
    with stage.client(stage.spare.port) as client:
        wait_until(lambda: client.info("replication")["master_link_status"] == "up")


def _lead_to_spare(stage: Stage) -> None:
    """From now on new connections lead to the spare server, which is the one that counts."""
    stage.looker.port = stage.near.target_port = stage.far.target_port = stage.spare.port


def _change_roles(stage: Stage) -> None:
    """The replica becomes the primary, and the primary the replica of nobody, which goes on answering reads."""
    begin = now() - LAG
    with stage.client() as old, stage.client(stage.spare.port) as new:
        old.replicaof(HOST, free_port())
        new.replicaof("NO", "ONE")
    _lead_to_spare(stage)
    stage.window = Window(begin, now())


def failover(stage: Stage) -> Steps:
    """The replica's link is cut, writes go on; then the primary dies, and the replica takes its place."""
    begin = now() - LAG
    stage.link.cut()
    yield stage.seconds / 2
    stage.server.kill()
    with stage.client(stage.spare.port) as client:
        client.replicaof("NO", "ONE")
    _lead_to_spare(stage)
    stage.near.cut_connections(everyone)
    stage.far.cut_connections(everyone)
    stage.window = Window(begin, now())
    yield REST


def failover_bus_first(stage: Stage) -> Steps:
    """The bus finds the new primary; commands, which connected while it was away, stay with the old one."""
    stage.near.hold("replies", subscribers)
    stage.near.cut_connections(everyone)
    yield 1.2 * MAX_STALENESS  # no proof lasts so long: all read from the old primary
    _change_roles(stage)
    stage.far.cut_connections(everyone)
    stage.near.hold("replies", _nobody)
    stage.near.cut_connections(subscribers)
    yield REST


def failover_commands_first(stage: Stage) -> Steps:
    """Commands find the new primary, and a set is on its way there, late, when the bus finds it, too."""
    stage.near.hold("replies", subscribers)
    stage.near.cut_connections(subscribers)
    yield REDIS_TIMEOUT
    _change_roles(stage)
    stage.near.hold("requests", _late_sets)
    stage.near.cut_connections(everyone)
    stage.far.cut_connections(everyone)
    acknowledged = [one for one in stage.crew.ask("write_late") if one is not None]
    stage.notes.append("the late set was not held" if any(acknowledged) else "a set was held")
    stage.near.hold("replies", _nobody)
    yield 2.5 * REDIS_TIMEOUT  # the bus is back, and the set's deadline has not passed
    stage.near.release()
    yield REST


# ------------------------------------------------------------------------------------------- copies, clocks, counters


def spare_server(stage: Stage) -> None:
    """Another server, empty."""
    stage.spare = stage.cleanup.enter_context(servers.make(stage.kind))


def copied(stage: Stage) -> Steps:
    """Everything is copied to another server while writes go on, the counter first; then clients are led there."""
    begin = now()
    with stage.client() as old, stage.client(stage.spare.port) as new:
        _copy(old, new, [NAMES.counters])
        with NearCache.from_url(stage.server.url, namespace=NAMESPACE) as cache:
            for number in range(AHEAD):
                cache.delete(f"other:{number}")
        yield stage.seconds * 0.4
        _copy(old, new, (one for one in old.scan_iter(f"{{{NAMESPACE}:*", count=1000) if one != NAMES.counters))
    _lead_to_spare(stage)
    stage.near.cut_connections(everyone)
    stage.far.cut_connections(everyone)
    stage.window = Window(begin, now())
    yield REST


def _copy(old: Any, new: Any, names: Iterable[bytes]) -> None:
    for one in names:
        left, content = old.pttl(one), old.dump(one)
        if content is not None and left != 0:
            new.restore(one, max(left, 0), content, replace=True)


def clock_set_back(stage: Stage) -> Steps:
    """The server's clock is set back, and the counter is lost."""
    with stage.client() as client:
        for times in (1, 2):
            stage.clock.write_text(f"-{BACK * times}")
            client.delete(NAMES.counters)
            yield stage.seconds / 2


def counter_of_other_database(stage: Stage) -> Steps:
    """The bus is lost, and some writes; in another database, with a copy of the counter, as many are made meanwhile.

    A bus that hears of those may take them for the ones that were lost. If nobody flushed, nothing happens for a while.
    """
    with stage.client() as client, NearCache.from_url(_other_database(stage), namespace=NAMESPACE) as other:
        while True:
            before = stage.crew.ask("flushes")
            stage.near.hold("requests", subscribers)  # nobody subscribes again yet
            client.copy(NAMES.counters, NAMES.counters, destination_db=1, replace=True)
            stage.near.cut_connections(subscribers)
            yield PAUSE
            stage.near.hold("replies", subscribers)
            stage.near.hold("requests", _nobody)
            yield PAUSE / 4
            with stage.client(database=1) as copy:
                while (lacking := _counter(client) - _counter(copy)) > 0:
                    for _ in range(lacking):
                        other.delete("other")
            stage.near.hold("replies", _nobody)
            yield PAUSE
            noticed = [one > other for one, other in zip(stage.crew.ask("flushes"), before, strict=True)]
            yield PAUSE if all(noticed[:2]) else 2 * MAX_STALENESS


def _counter(client: Any) -> int:
    return int(client.hget(NAMES.counters, "s"))


# ---------------------------------------------------------------------------------------------------------- strangers


def other_database(stage: Stage) -> None:
    """Somebody uses the same namespace and keys in another database of the server."""
    _invite(stage, _other_database(stage), "item")


def without_channel(stage: Stage) -> None:
    """Somebody has a user that may do everything but use a channel, as ACL SETUSER makes it by default."""
    _invite_user(stage, "resetchannels", "+@all")


def without_pexpire(stage: Stage) -> None:
    """Somebody has a user that may do everything but PEXPIRE."""
    _invite_user(stage, "allchannels", "+@all", "-pexpire")


def _invite_user(stage: Stage, *rights: str) -> None:
    with stage.client() as client:
        client.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", *rights)
    _invite(stage, f"redis://{USER}:{PASSWORD}@{HOST}:{stage.server.port}/0", "other")


def _other_database(stage: Stage) -> str:
    return stage.server.url.removesuffix("/0") + "/1"


def _invite(stage: Stage, url: str, prefix: str) -> None:
    stage.strangers = stage.cleanup.enter_context(Crew(roam, {"stranger": (url, prefix, stage.without)}))


def strangers(stage: Stage) -> Steps:
    """Somebody else uses the server, and must not be noticed."""
    stage.strangers.ask("start")
    try:
        yield REST
    finally:
        with suppress(RuntimeError):  # it has ended, which is told elsewhere
            for raised, done in stage.strangers.ask("stop"):
                stage.raised += raised
                stage.notes.append(f"stranger: {', '.join(f'{count} {what}' for what, count in sorted(done.items()))}")
