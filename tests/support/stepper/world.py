"""The world of a schedule: its server, its flows, its time, and the steps that a schedule takes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from nearcache.testing.model import Server
from tests.support.stepper.points import Cancelled, Loading, Pause, Point, Receiving, Request

if TYPE_CHECKING:
    from tests.support.stepper.instance import Instance


STEPS = 10_000
"""More than any schedule needs: one that never ends is a failure."""


class Flow:
    """A coroutine under the scheduler."""

    def __init__(self, world: World, name: str, coroutine: Coroutine[Any, Any, Any]) -> None:
        self.world = world
        self.name = name
        self._coroutine = coroutine
        self.point: Point | None = None
        self.done = False
        self.result: Any = None
        self.error: BaseException | None = None

    def advance(self, value: object = None, error: BaseException | None = None) -> None:
        """Run to the next suspension."""
        before, self.world.running = self.world.running, self
        self.point = None
        try:
            point = self._coroutine.send(value) if error is None else self._coroutine.throw(error)
        except StopIteration as stop:
            self.done, self.result = True, stop.value
        except (Exception, Cancelled) as failure:
            self.done, self.error = True, failure
        else:
            point.flow = self
            self.point = point
        finally:
            self.world.running = before

    def cancel(self, after: float = 0.0) -> None:
        """Cancel it where it is suspended; a request that was sent stays sent."""
        del after
        point = self.point
        assert point is not None
        if isinstance(point, Request) and point.executed:
            self.world.requests.remove(point)
        self.advance(error=Cancelled())

    def close(self) -> None:
        """End it where it is, as its collection would."""
        with suppress(RuntimeError):  # it would give back its lease first
            self._coroutine.close()

    @property
    def request(self) -> Request:
        """The request it waits for."""
        assert isinstance(self.point, Request), f"{self} waits at {self.point}"
        return self.point

    def value(self) -> Any:
        """Its result, once it has ended well."""
        assert self.done, f"{self} waits at {self.point}"
        if self.error is not None:
            raise self.error
        return self.result

    def __repr__(self) -> str:
        return f"<{self.name}>"


class World:
    """One server, some instances, and everything that is under way between them."""

    def __init__(self, server: Callable[..., Server] = Server) -> None:
        self.now = 1000.0
        self.running: Flow | None = None
        self.requests: list[Request] = []
        self.flows: list[Flow] = []
        self.instances: list[Instance] = []
        self.server = server(self.micros)

    def micros(self) -> int:
        """The server's clock, an hour ahead of everybody's."""
        return round((self.now + 3600) * 1e6)

    def tick(self) -> None:
        """A command takes some time: no two answers have the same one."""
        self.now += 2e-6

    def start(self, name: str, coroutine: Coroutine[Any, Any, Any]) -> Flow:
        """Run a coroutine to its first suspension."""
        flow = Flow(self, name, coroutine)
        self.flows.append(flow)
        flow.advance()
        return flow

    def close(self) -> None:
        """End the flows that a schedule has left: their collection would end them in the context of another test."""
        for flow in self.flows:
            flow.close()

    # ------------------------------------------------------------------------------------------------------ scripting

    def step(self, flow: Flow) -> None:
        """Let a flow go on from where it is, as if nothing were slow."""
        point = flow.point
        if isinstance(point, Request):
            if not point.executed:
                point.execute()
            point.reply()
        elif isinstance(point, Pause):
            point.end()
        else:
            assert isinstance(point, Loading), f"{flow} waits at {point}"
            point.resume()

    def run(self, flow: Flow) -> Any:
        """Let one flow run to its end, and nothing else; its result."""
        for _ in range(STEPS):
            if flow.done:
                return flow.value()
            self.step(flow)
        raise AssertionError(f"{flow} does not end")

    def reach(self, flow: Flow, label: str) -> Flow:
        """Let one flow run until it is suspended at a point of this name."""
        for _ in range(STEPS):
            assert flow.point is not None, f"{flow} has ended before {label}"
            if label in flow.point.label:
                return flow
            self.step(flow)
        raise AssertionError(f"{flow} does not reach {label}")

    def finish(self) -> None:
        """Let everything that has begun come to its end, loaders and messages too."""
        for _ in range(STEPS):
            self.deliver_all()
            flow = next((flow for flow in self.flows if not flow.done and not self.sleeps(flow)), None)
            if flow is None:
                late = [request for request in self.requests if not request.open]
                if not late:
                    return
                for request in late:
                    request.execute()
            else:
                self.step(flow)
        raise AssertionError("the schedule does not end")

    def sleeps(self, flow: Flow) -> bool:
        """Whether a flow only waits for something that may come."""
        return isinstance(flow.point, Receiving) or (isinstance(flow.point, Pause) and not flow.point.due)

    def deliver_all(self) -> None:
        """Deliver every message and answer to everybody who is connected."""
        for instance in self.instances:
            instance.deliver()
