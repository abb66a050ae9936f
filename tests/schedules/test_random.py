"""Random schedules find no violation under the library's rules, and find one when a guard is taken away."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.schedules.crowd import play
from tests.schedules.invariant import Violated
from tests.support.ablations import rules as without
from tests.support.ablations.rules import Rules

LENGTH = 90
"""Steps of a schedule, before everything is let come to its end."""
SEEDS = {
    without.NO_STAMP.name: 113,
    without.REFUSED_PUT_DROPS_NOTHING.name: 101,
    without.NEVER_PASSED_BY.name: 110,
    without.FORGET_UNKNOWN_WRITES.name: 100,
    without.FILLS_IN_SILENCE.name: 108,
    without.REFUSES_IN_SILENCE.name: 108,
}
"""Where a missing guard shows early though it is rare; 7 for all others."""
TRIES = 4000
"""Random schedules within which a missing guard must show; most show within a hundred."""


def draw(dice: random.Random, length: int) -> list[int]:
    """What decides a schedule of so many steps."""
    return [dice.randrange(2**20) for _ in range(length)]


@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(st.integers(0, 2**20), min_size=30, max_size=LENGTH))
def test_any_order_of_everything_keeps_the_promises(draws: list[int]) -> None:
    """G1, G3, G4, G5; at the end no flight, waiter or lease is left, nobody sleeps, and nothing old is served."""
    play(draws, Rules())


@pytest.mark.parametrize("seed", range(4))
def test_many_orders_keep_the_promises(seed: int) -> None:
    """The same without shrinking, which is quicker: more and longer schedules."""
    dice = random.Random(seed)
    for _ in range(100):
        play(draw(dice, 2 * LENGTH), Rules())


@pytest.mark.parametrize(
    "rules",
    [
        without.NO_STAMP,
        without.NO_EPOCH,
        without.PUT_ANYTHING,
        without.REFUSED_PUT_DROPS_NOTHING,
        without.NEVER_PASSED_BY,
        without.OUTAGE_KEEPS_ANYTHING,
        without.JOIN_ANY,
        without.CLEAR_ELSEWHERE,
        without.FORGET_UNKNOWN_WRITES,
        without.BACK_PROVES_ALL,
        without.FILLS_WITHOUT_LEASE,
        without.FILLS_BELOW_FLOORS,
        without.FILLS_IN_SILENCE,
        without.REFUSES_IN_SILENCE,
    ],
    ids=lambda rules: rules.name,
)
def test_random_orders_find_a_missing_guard(rules: Rules) -> None:
    """A check that no ablation can fail is no check; and it is the missing guard that it finds."""
    dice = random.Random(SEEDS.get(rules.name, 7))
    for _ in range(TRIES):
        draws = draw(dice, LENGTH)
        try:
            play(draws, rules, ages=False)
        except Violated:
            break
    else:
        pytest.fail(f"{TRIES} schedules did not show it")
    play(draws, Rules(), ages=False)


@pytest.mark.parametrize(
    "rules", [without.OPERATIONS_JOURNALLED, without.OPERATIONS_REPEATED], ids=lambda rules: rules.name
)
def test_random_orders_of_operations_find_a_missing_guard(rules: Rules) -> None:
    """The same among add, touch, incr, delete_existing and loads of many keys."""
    dice = random.Random(7)
    for _ in range(TRIES):
        draws = draw(dice, LENGTH)
        try:
            play(draws, rules)
        except Violated:
            break
    else:
        pytest.fail(f"{TRIES} schedules did not show it")
    play(draws, Rules())
