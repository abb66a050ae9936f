"""One check on many inputs, as a loop inside one test: an item of pytest's for each would cost more than the check."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


def each(names: str, cases: Iterable[Any]) -> Callable[[F], F]:
    """Call a test with each of these cases, as ``pytest.mark.parametrize`` would, but in one test.

    Args:
        names: of the test's parameters, separated by commas.
        cases: a value each, or a tuple of values for several names.

    A case that fails ends the test, and the error has a note that names it. Fixtures are shared by all cases.
    """
    wanted = [name.strip() for name in names.split(",")]
    values = [case if len(wanted) > 1 else (case,) for case in cases]
    assert values, f"no case of {names}"

    def decorate(test: F) -> F:
        signature = inspect.signature(test)
        rest = [part for name, part in signature.parameters.items() if name not in wanted]

        @functools.wraps(test)
        def loop(*args: Any, **fixtures: Any) -> None:
            for case in values:
                with _named(wanted, case):
                    test(*args, **fixtures, **dict(zip(wanted, case, strict=True)))

        @functools.wraps(test)
        async def loop_async(*args: Any, **fixtures: Any) -> None:
            for case in values:
                with _named(wanted, case):
                    await test(*args, **fixtures, **dict(zip(wanted, case, strict=True)))

        wrapper: Any = loop_async if inspect.iscoroutinefunction(test) else loop
        wrapper.__signature__ = signature.replace(parameters=rest)
        result: F = wrapper
        return result

    return decorate


@contextmanager
def _named(names: list[str], case: tuple[Any, ...]) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        shown = ", ".join(f"{name}={value!r}"[:200] for name, value in zip(names, case, strict=True))
        error.add_note(f"the case that failed: {shown}")
        raise
