"""A scheduler that steps flows one suspension at a time, so that a test decides the order of everything.

Flows of ``nearcache.engine`` run over a Runtime, a Remote and a Bus that suspend at named points: a request is sent,
executed at the server and answered in three separate steps; a wait; a loader; a receive on the bus. Nothing else
happens: time passes when a wait is let time out, messages arrive when they are delivered.
"""

from tests.support.stepper.instance import Instance
from tests.support.stepper.points import Cancelled, Loading, Pause, Receiving, Request
from tests.support.stepper.ports import ModelRemote
from tests.support.stepper.world import Flow, World

__all__ = ["Cancelled", "Flow", "Instance", "Loading", "ModelRemote", "Pause", "Receiving", "Request", "World"]
