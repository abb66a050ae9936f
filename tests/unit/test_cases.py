"""A loop inside one test checks each case, and says which one failed."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.cases import each


def test_every_case_is_checked_and_the_one_that_fails_is_named() -> None:
    """Plain and coroutine functions, one name or several, and products of two."""
    seen: list[object] = []

    @each("a, b", [(1, 2), (3, 4)])
    @each("c", "xy")
    def check(a: int, b: int, c: str) -> None:
        seen.append((a, b, c))

    check()  # type: ignore[call-arg]  # the loop gives what is missing
    assert seen == [(1, 2, "x"), (1, 2, "y"), (3, 4, "x"), (3, 4, "y")]

    @each("number", [1, 2, 3])
    async def positive_but_two(number: int) -> None:
        assert number != 2

    with pytest.raises(AssertionError) as caught:
        asyncio.run(positive_but_two())  # type: ignore[call-arg]
    assert caught.value.__notes__ == ["the case that failed: number=2"]


def test_no_case_is_a_mistake() -> None:
    """A loop over nothing would check nothing."""
    with pytest.raises(AssertionError, match="no case of number"):
        each("number", [])


def test_fixtures_are_still_asked_for(namespace: str) -> None:
    """What is not looped over stays a parameter of the test."""

    @each("number", [1])
    def check(namespace: str, number: int) -> str:
        return f"{namespace}{number}"

    check(namespace)  # type: ignore[call-arg]
