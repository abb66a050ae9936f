"""No two calls share a key, of whatever functions, templates and arguments; without one of the rules, two do."""

from __future__ import annotations

import pytest

from tests.support.key_calls import RULES, shared


def test_no_two_calls_share_a_key() -> None:
    """`python -m tests.support.key_calls 1000000` makes a million of them."""
    assert shared(20_000, seed=1) is None


@pytest.mark.parametrize("rule", sorted(set(RULES) - {""}))
def test_without_a_rule_two_calls_share_one(rule: str) -> None:
    """Each rule is needed, and the calls above would show its loss."""
    with RULES[rule]:
        found = shared(30_000, seed=1)
    assert found is not None
    one, other = found
    assert one.key == other.key
    assert (one.template, one.function, one.arguments) != (other.template, other.function, other.arguments)
