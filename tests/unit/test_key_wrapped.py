"""Decorators below @cached: a key shows what the call passes, or decorating fails and says what to do."""

from __future__ import annotations

import contextlib
import functools
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nearcache.functions import make_key_function

HERE = __name__
LOG: list[Any] = []


def timing(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator as they all begin."""

    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        """Measure it."""
        LOG.append((fn.__name__, args))
        try:
            return fn(*args, **kwargs)
        finally:
            LOG.append(fn.__qualname__)

    return inner


def retry(times: int) -> Callable[..., Any]:
    """A decorator with a closure of its own."""

    def decorate(fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def inner(*args: Any, **kwargs: Any) -> Any:
            for attempt in range(times):
                try:
                    return fn(*args, **kwargs)
                except OSError:
                    if attempt + 1 == times:
                        raise
            return None

        return inner

    return decorate


def of_method(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of methods."""

    @functools.wraps(fn)
    def inner(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        with contextlib.suppress(KeyError):
            return fn(self, *args, **kwargs)
        return fn(self, *args, **kwargs)

    return inner


def awaiting(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator of coroutine functions."""

    @functools.wraps(fn)
    async def inner(*args: Any, **kwargs: Any) -> Any:
        return await fn(*args, **kwargs)

    return inner


def by_default(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator without a closure."""

    @functools.wraps(fn)
    def inner(*args: Any, _function: Any = fn, **kwargs: Any) -> Any:
        return _function(*args, **kwargs)

    return inner


class Timed(contextlib.ContextDecorator):
    """The standard library's way to write one."""

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def same_names(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A wrapper that names the function's parameters."""

    @functools.wraps(fn)
    def inner(tenant: Any, n: Any = 5) -> Any:
        return fn(tenant, n)

    return inner


TRANSPARENT = [timing, retry(3), of_method, awaiting, by_default, Timed(), functools.lru_cache, same_names]


def page(tenant: str, n: int = 1) -> str:
    """What is decorated."""
    return f"{tenant} {n}"


@pytest.mark.parametrize("decorator", TRANSPARENT, ids=lambda each: getattr(each, "__name__", type(each).__name__))
def test_a_transparent_decorator_makes_no_difference(decorator: Callable[..., Any]) -> None:
    """However the arguments are passed, the key is that of the function; twice the decorator as well."""
    default = 5 if decorator is same_names else 1
    for fn in (decorator(page), decorator(decorator(page)), timing(decorator(page))):
        key = make_key_function(fn, "page:{tenant}:{n}")
        assert key("a") == key(tenant="a", n=default) == f"page:a:{default}"
        assert key("a", 2) == key("a", n=2) == "page:a:2"
        assert key("b", 2) == "page:b:2"


def test_without_a_template_the_name_is_the_function_s() -> None:
    """The function inside is no captured variable; others are."""
    assert make_key_function(timing(page))("a") == f"{HERE}.page(tenant='a', n=1)"
    with pytest.raises(TypeError, match=r"captures variables \(times\)"):
        make_key_function(retry(3)(page))


def injects(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Puts an argument in."""

    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn("tenant", *args, **kwargs)

    return inner


def drops(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Drops one."""

    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn(*args[1:], **kwargs)

    return inner


def reassigns(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Changes them first."""

    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        args = args[1:]
        return fn(*args, **kwargs)

    return inner


def pops(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Takes one out of kwargs."""

    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        kwargs.pop("request", None)
        return fn(*args, **kwargs)

    return inner


def by_keyword(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Puts one in by its name."""

    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs, tenant="tenant")

    return inner


def now_and_then(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Hands them on, or does not."""

    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs) if len(args) > 1 else fn("tenant", *args, **kwargs)

    return inner


def gives_away(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Lets somebody else call it."""

    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        LOG.append(fn)
        return fn(*args, **kwargs)

    return inner


def in_another(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Calls it from a function inside."""

    @functools.wraps(fn)
    def inner(*args: Any, **kwargs: Any) -> Any:
        return [fn(*args, **kwargs) for _ in [lambda: args]][0]  # noqa: RUF015

    return inner


class Delegate:
    """A decorator that is a class, as wrapt's are."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        functools.update_wrapper(self, fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call something."""


OPAQUE = [injects, drops, reassigns, pops, by_keyword, now_and_then, gives_away, in_another, Delegate]


@pytest.mark.parametrize("decorator", OPAQUE)
@pytest.mark.parametrize("template", [None, "page:{tenant}:{n}"])
def test_where_it_cannot_be_told_decorating_fails(decorator: Callable[..., Any], template: str | None) -> None:
    """The error says what to do; another decorator around it does not hide it."""
    for fn in (decorator(page), timing(decorator(page)), decorator(timing(page))):
        with pytest.raises(TypeError, match=r"cannot be told.* put @cached below that decorator, next to the function"):
            make_key_function(fn, template)


def test_a_wrapper_that_names_its_parameters_is_bound_by_them() -> None:
    """One that takes another argument shows it; one that supplies one is refused, unless it makes no difference."""

    @functools.wraps(page)
    def more(request: Any, tenant: Any, n: Any) -> Any: ...

    @functools.wraps(page)
    def fewer(n: Any) -> Any: ...

    assert make_key_function(more, "x:{request}:{tenant}:{n}")("r", "a", 2) == "x:r:a:2"
    for template in (None, "x:{n}"):
        with pytest.raises(TypeError, match=r"supplies 'tenant' itself.*ignore=\('tenant',\)"):
            make_key_function(fewer, template)
    assert make_key_function(fewer, "x:{n}", ignore=["tenant"])(2) == "x:2"
    assert make_key_function(functools.update_wrapper(functools.partial(page, "a"), page), "a:{n}")(2) == "a:2"


def test_bound_methods_are_bound_by_their_functions_signature() -> None:
    """Of a decorated method too."""

    class Book:
        @of_method
        def page(self, n: int = 1) -> None: ...

    assert make_key_function(Book().page, "page:{n}")() == "page:1"


def test_a_context_manager_as_a_decorator_is_transparent() -> None:
    """That is how contextlib writes it."""

    @contextlib.contextmanager
    def managed() -> Iterator[None]:
        yield

    assert inspect.isfunction(managed()(page))
    assert make_key_function(managed()(page), "x:{tenant}:{n}")("a") == "x:a:1"
