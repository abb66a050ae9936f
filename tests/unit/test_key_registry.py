"""Two functions of one cache never share keys: the second is refused, unless it is the first one, defined anew."""

from __future__ import annotations

import functools
import gc
import types
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from nearcache import AsyncNearCache, ConfigError, NearCache, NearCacheWarning

CONFLICT = "each would return the other's values; give it a template of its own"


@pytest.fixture
def cache() -> NearCache:
    """A cache in this process alone."""
    return NearCache.from_url("memory://")


def user(id: int) -> str:  # noqa: A002  # as in the documentation
    """A function of this module."""
    return f"user {id}"


def other(uid: int) -> str:
    """Another."""
    return f"other {uid}"


def offset(number: int) -> Callable[[int], int]:
    """A factory of closures."""

    def shifted(a: int) -> int:
        return a + number

    return shifted


def plain_local() -> Callable[[int], int]:
    """A factory whose functions capture nothing."""

    def doubled(value: int) -> int:
        return 2 * value

    return doubled


def module(code: str, name: str = "app") -> Any:
    """What a module of this code defines as f."""
    space: dict[str, Any] = {"__name__": name}
    exec(code, space)
    return space["f"]


@pytest.mark.parametrize(("one", "two"), [("user:{id}", "user:{uid}"), ("u-{id}-x", "u-{uid!s}-x")])
def test_another_function_with_the_same_template(cache: NearCache, one: str, two: str) -> None:
    """Whatever the fields are called, the text around them is what makes the keys."""
    first = cache.cached(one)(user)
    with pytest.raises(ConfigError, match=rf"_registry.other: .*are those of .*_registry.user.*{CONFLICT}"):
        cache.cached(two)(other)
    assert cache.cached(f"v2:{two}")(other)(7) == "other 7"
    assert cache.cached(two, version="2")(other)(7) == "other 7"
    assert first(7) == "user 7"


def test_two_caches_know_nothing_of_each_other(cache: NearCache) -> None:
    """As a NearCache and an AsyncNearCache of one application."""
    cache.cached("user:{id}")(user)
    NearCache.from_url("memory://").cached("user:{uid}")(other)

    async def later(id: int) -> None: ...  # noqa: A002  # as above

    AsyncNearCache.from_url("memory://").cached("user:{id}")(later)


def test_one_function_may_be_decorated_again(cache: NearCache) -> None:
    """With the same template, with none, with another one; but not so that two parts of an argument meet."""
    for target in ("user:{id}", "user:{id}", None, None, "other:{id}"):
        assert cache.cached(target)(user)(7) == "user 7"
    with pytest.raises(ConfigError, match=CONFLICT):
        cache.cached("user:{id.real}")(user)


def test_a_method_that_calls_super_needs_a_template_of_its_own(cache: NearCache) -> None:
    """With its parent's it would ask for its own key while it loads, and never be cached."""

    class Base:
        @cache.cached("total:{self.id}")
        def total(self) -> int:
            return 1

    with pytest.raises(ConfigError, match=r"Taxed.total.*Base.total.*super\(\) needs one"):

        class Taxed(Base):
            @cache.cached("total:{self.id}")
            def total(self) -> int:
                return super().total() + 1


def test_closures_of_one_factory(cache: NearCache) -> None:
    """The second is refused while the first can be called; afterwards too, if it would compute something else."""
    decorate = cache.cached("shifted:{a}")
    first = decorate(offset(2))
    assert first(10) == 12
    with pytest.raises(ConfigError, match=CONFLICT):
        decorate(offset(3))
    del first
    with pytest.raises(ConfigError, match=CONFLICT):  # its values are there still
        decorate(offset(3))
    again = decorate(offset(2))
    assert again(10) == 12


def test_a_closure_over_objects(cache: NearCache) -> None:
    """As in create_app(): what it captures cannot be compared, so a second one is refused while the first lives."""

    def create_app(database: dict[int, str]) -> Any:
        @cache.cached("user:{id}")
        def load(id: int) -> str:  # noqa: A002  # as above
            return database[Marker.number + id]

        return load

    class Marker:
        number = 0

    app = create_app({7: "Ada"})
    assert app(7) == "Ada"
    with pytest.raises(ConfigError, match=CONFLICT):
        create_app({7: "Grace"})
    del app
    with pytest.warns(NearCacheWarning, match=r"is defined anew, and what the earlier .*version='2'"):
        create_app({7: "Grace"})


def test_a_closure_is_forgotten_at_once(cache: NearCache) -> None:
    """Its wrapper is in no cycle, so no collection is awaited."""
    gc.disable()
    try:
        wrapper = cache.cached("shifted:{a}")(offset(2))
        alive = weakref.ref(wrapper.__wrapped__)
        assert wrapper(1) == 3
        del wrapper
        assert alive() is None
    finally:
        gc.enable()


def test_what_captures_nothing_is_the_same_each_time(cache: NearCache) -> None:
    """A factory that runs again, as for each test, gives the same function."""
    first, second = cache.cached("doubled:{value}")(plain_local()), cache.cached("doubled:{value}")(plain_local())
    assert (first(2), second(2)) == (4, 4)
    assert cache.cached(plain_local()).key(2) == cache.cached(plain_local()).key(2)


@pytest.mark.parametrize("template", [None, "f:{a}"])
def test_a_new_definition_in_a_module_is_told(cache: NearCache, template: str | None) -> None:
    """A reload, or a changed cell of a notebook: allowed, with a warning; the same code again is no news."""
    decorate = cache.cached(template)
    assert decorate(module("def f(a): return a + 1"))(1) == 2
    assert decorate(module("\n\n\ndef f(a): return a + 1"))(1) == 2
    with pytest.warns(NearCacheWarning, match=r"app.f is defined anew, .* version='2'") as caught:
        decorate(module("def f(a): return a + True"))
    assert caught[0].filename == __file__
    assert cache.cached(template, version="2")(module("def f(a): return a + 5"))(1) == 6


def test_two_local_functions_of_one_name(cache: NearCache) -> None:
    """They are no new definition of each other, with a template or without."""

    def two() -> list[Callable[[int], int]]:
        def f(a: int) -> int:
            return a

        first = f

        def f(a: int) -> int:  # type: ignore[no-redef]
            return a + 2

        return [first, f]

    one, other = two()
    for template in (None, "f:{a}"):
        kept = cache.cached(template)(one)
        with pytest.raises(ConfigError, match=CONFLICT):
            cache.cached(template)(other)
        assert kept(1) == 1


class Callee:
    """Something that is called."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __call__(self, a: int) -> int:
        """Return a sum."""
        return a + self.number

    def method(self, a: int) -> int:
        """Return a sum."""
        return a + self.number


def plus(number: int, a: int) -> int:
    """Return a sum."""
    return number + a


@pytest.mark.parametrize(
    "make",
    [
        Callee,
        lambda number: Callee(number).method,
        lambda number: functools.partial(plus, number),
        lambda number: functools.update_wrapper(functools.partial(plus, number), plus),
        lambda number: eval(f"lambda a: a + {number}", {"__name__": "app"}),
        lambda number: functools.lru_cache(offset(number)),
    ],
    ids=["object", "method", "partial", "partial that looks like a function", "lambda", "lru_cache of a closure"],
)
def test_what_no_name_tells_apart(cache: NearCache, make: Callable[[int], Any]) -> None:
    """Objects that are called, bound methods, partials and lambdas: the second one is refused."""
    first = cache.cached("x:{a}")(make(1))
    with pytest.raises(ConfigError, match=CONFLICT):
        cache.cached("x:{a}")(make(2))
    assert first(1) == 2


def test_builtins_are_functions_of_one_name(cache: NearCache) -> None:
    """Decorated twice they are the same."""
    assert isinstance(abs, types.BuiltinFunctionType)
    assert cache.cached(abs)(-1) == cache.cached(abs)(-1) == 1
