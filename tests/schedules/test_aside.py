"""The proof on RESP2: the named schedules hold there too, and those that are its own fail without its guards."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from nearcache.engine.ports import MISSING
from nearcache.protocol import messages
from nearcache.protocol.answers import Beat, Greeting
from nearcache.testing.model import Server
from nearcache.transport.aside import Answer, AsideProtocol
from nearcache.transport.handshake import Query
from tests.schedules import test_named
from tests.schedules.ablations import Rules
from tests.schedules.aside import AsideBus
from tests.schedules.crowd import play
from tests.schedules.stepper import Flow, Instance, Receiving
from tests.schedules.test_named import Schedule, Violated, get, must, put, two
from tests.schedules.test_random import LENGTH, draw

RESP2 = Rules(bus=AsideBus)

BY_HAND = {"a_delete_journalled_again_during_its_replay"}
"""Those that answer the bus's questions by hand."""


# ------------------------------------------------------------------------------------------------ guards taken away


def _as_it_was(answer: Answer) -> Greeting | Beat:
    """The number itself is compared, whatever was heard since."""
    assert answer.told is not None
    return answer.told


def _floor_as_it_was(answer: Answer) -> Greeting | Beat:
    """The number is followed, the floor is not."""
    assert answer.told is not None
    return AT_PONG(answer)._replace(floor=answer.told.floor)  # type: ignore[arg-type]


def _whatever_is_missing(answer: Answer) -> Greeting | Beat:
    """Numbers need not follow each other."""
    assert answer.told is not None
    heard = [messages.unpack(data) for data in answer.heard]
    number = max([answer.told.number or 0, *[message.number for message in heard]])
    floor = max([answer.told.floor or 0, *[one.number for one in heard if one.kind == messages.CLEARED]])
    return answer.told._replace(number=number, floor=floor)


AT_PONG = Answer.at_pong


class AnybodyAnswers(AsideBus):
    """It is not looked at who answers."""

    class talk(AsideProtocol):  # noqa: N801  # an attribute of the bus
        """Whoever it is, is who it was."""

        def ask(self, question: Query, answers: Sequence[Any] = ()) -> bytes:
            """Take the identity over first."""
            self._identity = question.meaning(answers)[0]
            return super().ask(question, answers)


class PingFirst(AsideBus):
    """PING is sent first, and the number is asked for while the PONG is on its way."""

    async def _ask(self, question: Query, read: Callable[[Server], list[Any]]) -> None:
        self._talk.begin()
        self.line.questions.append(self.nonce)
        self.world.server.answer(self.line)
        self._talk.ask(question, await self.aside(read))


AS_IT_WAS = Rules(bus=AsideBus, patched=((Answer, "at_pong", _as_it_was),))
FLOOR_AS_IT_WAS = Rules(bus=AsideBus, patched=((Answer, "at_pong", _floor_as_it_was),))
WHATEVER_IS_MISSING = Rules(bus=AsideBus, patched=((Answer, "at_pong", _whatever_is_missing),))
ANYBODY_ANSWERS = Rules(bus=AnybodyAnswers)
PING_FIRST = Rules(bus=PingFirst)


# ------------------------------------------------------------------------------------------------------- schedules


def asking(instance: Instance) -> Flow:
    """The next heartbeat is due: its question is on the way, aside."""
    assert isinstance(instance.listening.point, Receiving)
    instance.listening.point.silence()
    return instance.listening


def a_write_between_number_and_ping(rules: Rules) -> None:
    """It is no gap: what L1 holds besides is kept, and proven."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        assert get(a, "k") == 1
        before = a.core.tier.fresh_until
        beat = asking(a)
        beat.request.execute()
        world.run(b.set("other", 2))
        beat.request.reply()
        a.deliver()
        must(a.look("k") == 1, "a healthy L1 is flushed")
        must(a.core.tier.fresh_until > before, "a healthy L1 is not proven")


def a_write_while_a_bus_comes_back(rules: Rules) -> None:
    """The same at a greeting: nothing was missed, and L1 is kept."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        assert get(a, "k") == 1
        a.lose()
        world.reach(a.listening, "aside")
        world.run(b.set("other", 2))
        a.listening.request.execute()
        a.listening.request.reply()
        a.deliver()
        must(a.look("k") == 1, "L1 is flushed though nothing was missed")
        must(a.core.healthy, "and is not proven")


def a_failover_between_the_two_connections(rules: Rules) -> None:
    """(I) The new primary lacks a write, and gives its number to another one, whose message this bus never hears."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        put(b, "lost", 1)
        assert get(a, "k") == 1
        old, bus = world.server, a.bus
        assert bus is not None
        new = world.server = Server(world.micros, "two")
        assert old.number is not None
        new.number, new.values = old.number - 1, dict(old.values)
        new.delete(["k"])  # by somebody who has found the new primary
        assert new.number == old.number
        asking(a).request.execute()
        a.listening.request.reply()
        while bus.line.questions:
            old.answer(bus.line)
        a.deliver()
        world.now += 1.9  # the first proof is over
        must(a.look("k") is MISSING, "G1: L1 is proven by a server that it does not listen to")
        assert bus.cut_off


def a_clear_between_number_and_ping_at_another_server(rules: Rules) -> None:
    """Its history is another one, floors begin anew: the clear that came before the PONG must not be forgotten."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        a.lose()
        world.server.identity = "two"
        world.reach(a.listening, "aside")
        a.listening.request.execute()
        world.server.clear()
        a.listening.request.reply()
        a.deliver()
        assert a.core.healthy
        must(get(a, "k") is MISSING, "G5: a cleared value comes alive")


def a_clear_that_is_missing_between_number_and_ping(rules: Rules) -> None:
    """The floor that was told is older than the gap: it must not count as known."""
    with rules.world() as world:
        a, b = two(rules, world)
        put(b, "k", 1)
        bus = a.bus
        assert bus is not None
        beat = asking(a)
        beat.request.execute()
        world.server.clear()
        bus.line.items.clear()
        world.server.delete(["other"])
        beat.request.reply()
        a.deliver()
        must(get(a, "k") is MISSING, "G5: a cleared value comes alive")


OWN: list[tuple[Schedule, Rules]] = [
    (a_write_between_number_and_ping, AS_IT_WAS),
    (a_write_while_a_bus_comes_back, PING_FIRST),
    (a_failover_between_the_two_connections, ANYBODY_ANSWERS),
    (a_clear_between_number_and_ping_at_another_server, FLOOR_AS_IT_WAS),
    (a_clear_that_is_missing_between_number_and_ping, WHATEVER_IS_MISSING),
]


HERE = [run for run in test_named.SCHEDULES if run.__name__ not in BY_HAND]


@pytest.mark.parametrize("run", HERE, ids=lambda run: run.__name__)
def test_a_named_schedule_holds_on_resp2(run: Schedule) -> None:
    """The same rules, over the other bus."""
    run(RESP2)


@pytest.mark.parametrize("seed", range(2))
def test_many_orders_keep_the_promises_on_resp2(seed: int) -> None:
    """Random schedules, in which questions are late, lost and answered out of step with the messages."""
    dice = random.Random(seed)
    for _ in range(100):
        play(draw(dice, 2 * LENGTH), RESP2)


@pytest.mark.parametrize("run", [run for run, _ in OWN], ids=lambda run: run.__name__)
def test_a_schedule_holds(run: Schedule) -> None:
    """Under the library's rules the invariant holds."""
    run(RESP2)


@pytest.mark.parametrize(("run", "rules"), OWN, ids=lambda one: "without" if isinstance(one, Rules) else one.__name__)
def test_a_schedule_fails_without_its_rule(run: Schedule, rules: Rules) -> None:
    """With the guard taken away, the same schedule violates the same invariant."""
    with pytest.raises(Violated):
        run(rules)
