"""Tools to test your own code: a manual clock, a fake server, a fault proxy (docs/testing.md); pytest is not needed."""

from nearcache.testing.clock import ManualClock
from nearcache.testing.fake_network import OPERATIONS, Fault
from nearcache.testing.proxy import FaultProxy, black_hole
from nearcache.testing.proxy_connection import Direction, Predicate, commands, everyone, subscribers
from nearcache.testing.server import FakeServer
from nearcache.transport.embedded import EmbeddedServer

__all__ = [
    "OPERATIONS",
    "Direction",
    "EmbeddedServer",
    "FakeServer",
    "Fault",
    "FaultProxy",
    "ManualClock",
    "Predicate",
    "black_hole",
    "commands",
    "everyone",
    "subscribers",
]
