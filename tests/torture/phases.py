"""The table of phases: each a fault that lasts for a while, on a stage of a server, two proxies and a crew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tests.torture import failovers, faults, histories
from tests.torture.faults import Fault, Stage

SHORT_TTL = 3.0


@dataclass(frozen=True)
class Phase:
    """A fault by name."""

    name: str
    fault: Fault
    prepare: Callable[[Stage], None] = lambda _: None
    """Brings what the fault needs, before anybody reads or writes."""
    whole: bool = False
    """Whether the bus stays whole, so that a raw subscriber may be compared."""
    unnoticed: bool = False
    """Whether nobody of the crew may notice the fault: no flush, and the hit rate of L1 as before."""
    heals: bool = False
    """Whether L1 must be proven again while the fault lasts."""
    sentinel: bool = False
    """Whether the server has a replica and Sentinels, which the clients ask for the primary."""
    clock: bool = False
    """Whether the server has a false clock."""
    loses: bool = False
    """Whether the server loses values, or gets others: locks and counters go with them."""
    killed: bool = False
    """Whether the far writer is killed. It clears nothing: a clear that it takes along would end locks and counters."""
    loads: bool = True
    """Whether the readers load what they do not find."""
    agreement: float | None = None
    """The L2 ttl in seconds, if only that makes all agree in the end."""
    least: float = 0.0
    """Seconds that the fault lasts at least."""


PHASES: Mapping[str, Phase] = {
    phase.name: phase
    for phase in (
        Phase("steady", faults.steady, whole=True),
        Phase("delayed replies", faults.delayed_replies, whole=True),
        Phase("bus cut", faults.bus_cut),
        Phase("kill pubsub", faults.kill_pubsub),
        Phase("bus held back", faults.bus_held),
        Phase("sockets cut", faults.sockets_cut),
        Phase("server stopped", faults.stopped),
        Phase("killed, back empty", faults.killed, loses=True),
        Phase("pause write", faults.pause_write, whole=True),
        Phase("flushall", faults.flushall, loses=True, whole=True),
        Phase("full partition", faults.partition),
        Phase("buffer eviction", faults.evicted),
        Phase("full at reconnect", faults.full, heals=True, least=1.5),
        Phase("writer killed", faults.writer_killed, killed=True, agreement=SHORT_TTL),
        Phase("clients stopped", faults.clients_stopped, least=5.0),
        Phase("failover", histories.failover, histories.replicate, loses=True),
        Phase(
            "failover, bus first", histories.failover_bus_first, histories.replicate, loses=True, loads=False, least=2.5
        ),
        Phase("failover, commands first", histories.failover_commands_first, histories.replicate, loses=True),
        Phase("sentinel failover", failovers.by_hand_and_by_crash, sentinel=True, loses=True, least=failovers.LEAST),
        Phase("live copy", histories.copied, histories.spare_server, loses=True),
        Phase("clock set back", histories.clock_set_back, loses=True, clock=True),
        Phase("two databases", histories.strangers, histories.other_database, unnoticed=True),
        Phase("another counter", histories.counter_of_other_database, loses=True, least=4.0),
        Phase("no channel right", histories.strangers, histories.without_channel, unnoticed=True),
        Phase("no pexpire right", histories.strangers, histories.without_pexpire, unnoticed=True),
    )
}
