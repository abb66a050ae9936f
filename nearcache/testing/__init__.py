"""Test your own code against outages and time: a clock, a fake server, a proxy (docs/testing.md). No pytest needed."""

from nearcache.testing.clock import ManualClock
from nearcache.testing.links import Direction, Predicate, commands, everyone, subscribers
from nearcache.testing.network import OPERATIONS, Fault
from nearcache.testing.proxy import FaultProxy, black_hole
from nearcache.testing.server import FakeServer

__all__ = [
    "OPERATIONS",
    "Direction",
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
