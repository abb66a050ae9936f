"""Wrappers: a hit costs a look, a miss goes to the cache, and what is wrapped stays what it was."""

from __future__ import annotations

import asyncio
import copy
import functools
import gc
import inspect
import math
import pickle
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from nearcache import NearCache
from nearcache.engine.ports import MISSING
from nearcache.errors import ConfigError, UncacheableArgument
from nearcache.functions.cached import cached_async, cached_sync
from nearcache.functions.wrapper import AsyncCachedFunction, CachedFunction
from nearcache.local.store import Entry, Proof
from nearcache.policy import Policy
from nearcache.settings import Settings

HERE = __name__

POLICY = Policy.of(Settings())


class Entries:
    """A dict's values, each as an entry of L1."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.values = values

    def __getitem__(self, key: str) -> Entry:
        return Entry(self.values[key], math.inf, 0, (), 0, math.inf, proof=Proof(math.inf))


class Fake:
    """A cache that is a dict, and remembers what it was asked, and by which policy."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        looked_at = {"entries": Entries(self.values), "touch": str, "hits": 0}
        self._tier: Any = SimpleNamespace(**looked_at)
        self.asked: list[tuple[str, str, Policy]] = []
        self._policy = POLICY
        self.settings = Settings()

    def _decoded(self, key: str, entry: Entry) -> Any:
        """No entry holds bytes."""
        raise AssertionError(key, entry)

    def peek(self, key: str, default: Any = None) -> Any:
        """As the real ones."""
        return self.values.get(key, default)

    def _load(self, key: str, loader: Callable[[], Any], policy: Policy, *, replace: bool) -> Any:
        self.asked.append(("refresh" if replace else "get_or_set", key, policy))
        value = loader()
        if replace:
            self.values[key] = value
        return self.values.setdefault(key, value)

    def invalidate_tags(self, *tags: str) -> bool:
        """Is not asked."""
        raise NotImplementedError(tags)

    def delete(self, *keys: str) -> bool:
        """As NearCache's, but tells whether there was something."""
        self.asked.append(("delete", *keys, POLICY))  # type: ignore[arg-type]  # one key is all that is asked for
        return any([self.values.pop(key, MISSING) is not MISSING for key in keys])  # noqa: C419  # all are popped


class AsyncFake(Fake):
    """The same, awaited."""

    async def _load(self, key: str, loader: Callable[[], Awaitable[Any]], policy: Policy, *, replace: bool) -> Any:
        loaded = await loader()
        return super()._load(key, lambda: loaded, policy, replace=replace)

    async def delete(self, *keys: str) -> bool:  # type: ignore[override]
        """As AsyncNearCache's."""
        return super().delete(*keys)


CACHE = Fake()
ASYNC_CACHE = AsyncFake()
CALLS: list[Any] = []


@cached_sync(CACHE, "user:{id}", ignore=["full"])
def user(id: int, *, full: bool = False) -> str:  # noqa: A002  # as in the documentation
    """Find a user."""
    CALLS.append((id, full))
    return f"user {id}"


@cached_async(ASYNC_CACHE, "user:{id}", ignore=["full"])
async def user_later(id: int, *, full: bool = False) -> str:  # noqa: A002  # as above
    """Find a user, later."""
    CALLS.append((id, full))
    return f"user {id}"


class Repository:
    """Methods of both kinds."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Repository) and self.name == other.name

    __hash__ = None  # type: ignore[assignment]  # a method's object need not be hashable

    @cached_sync(CACHE, "load:{self.name}:{id}", ignore=["full"])
    def load(self, id: int, *, full: bool = False) -> str:  # noqa: A002  # as above
        """Load it."""
        CALLS.append((self.name, id, full))
        return f"{self.name} {id}"

    @cached_sync(CACHE, ignore=("self",))
    def shared(self, id: int) -> str:  # noqa: A002  # as above
        """Load what all objects share."""
        return f"{self.name} {id}"

    @cached_async(ASYNC_CACHE, "load:{self.name}:{id}")
    async def load_later(self, id: int) -> str:  # noqa: A002  # as above
        """Load it, later."""
        return f"{self.name} {id}"

    @classmethod
    @cached_sync(CACHE, "class:{id}")
    def of_class(cls, id: int) -> tuple[str, int]:  # noqa: A002  # as above
        """Tell the class."""
        return cls.__name__, id

    @cached_sync(CACHE, "under:{cls.__name__}:{id}")
    @classmethod
    def under(cls, id: int) -> tuple[str, int]:  # noqa: A002  # as above
        """Tell the class."""
        return cls.__name__, id

    @staticmethod
    @cached_sync(CACHE, "above:{id}")
    def above(id: int) -> int:  # noqa: A002  # as above
        """Need no object."""
        return id

    @cached_sync(CACHE, "below:{id}")
    @staticmethod
    def below(id: int) -> int:  # noqa: A002  # as above
        """Need no object."""
        return id


@pytest.fixture(autouse=True)
def _fresh() -> None:
    for fake in (CACHE, ASYNC_CACHE):
        fake.values.clear()
        fake.asked.clear()
    CALLS.clear()


class TestCalls:
    """What a call does."""

    def test_a_miss_loads_through_the_cache(self) -> None:
        """The function is called once, with the call's arguments, by the cache."""
        assert user(7, full=True) == "user 7"
        assert CALLS == [(7, True)]
        assert [(name, key) for name, key, _ in CACHE.asked] == [("get_or_set", "user:7")]

    def test_a_hit_is_a_look(self) -> None:
        """A value in L1 is returned without a word to the cache; a cached None is a value."""
        for value in ("known", None, 0):
            CACHE.values["user:7"] = value
            assert user(7) is value
        assert CACHE.asked == CALLS == []

    def test_a_hit_awaited(self) -> None:
        """The same for a coroutine function: it misses, loads, and then hits."""

        async def run() -> list[str]:
            return [await user_later(7), await user_later(id=7)]

        assert asyncio.run(run()) == ["user 7", "user 7"]
        assert CALLS == [(7, False)]
        assert len(ASYNC_CACHE.asked) == 1

    def test_arguments_of_any_kind(self) -> None:
        """What the memo of keys does not hold, or cannot hash, is cached as well."""

        @cached_sync(CACHE, "sum:{numbers}")
        def total(numbers: list[int]) -> int:
            CALLS.append(numbers)
            return sum(numbers)

        assert [total([1, 2]), total([1, 2]), total([1, 3])] == [3, 3, 4]
        assert CALLS == [[1, 2], [1, 3]]

    def test_parameters_of_any_name(self) -> None:
        """No name of the machinery is in the way of the function's own."""

        @cached_sync(CACHE, "odd:{self}:{key}:{args}", ignore=["fn", "template"])
        def odd(self: int, key: int, args: int, fn: int, template: int) -> int:
            return self + key + args + fn + template

        assert odd(self=1, key=2, args=3, fn=4, template=5) == 15
        assert odd.key(self=1, key=2, args=3, fn=4, template=5) == "odd:1:2:3"
        assert odd.peek(self=1, key=2, args=3, fn=4, template=5) == 15
        assert odd.refresh(self=1, key=2, args=3, fn=4, template=5) == 15
        assert odd.invalidate(self=1, key=2, args=3, fn=4, template=5)

    @pytest.mark.parametrize("error", [ValueError("no such user"), StopIteration(7), KeyError("user")], ids=repr)
    def test_an_error_of_the_function_is_the_callers(self, error: Exception) -> None:
        """What the function raises arrives as it is, without a trace of the memo's own exceptions."""

        @cached_sync(Fake(), "failing:{value}")
        def failing(value: object) -> None:
            raise error

        for value in (1, 1.0, [1]):
            with pytest.raises(type(error)) as caught:
                failing(value)
            assert caught.value is error
            assert caught.value.__context__ is None

    def test_a_wrong_call_is_refused(self) -> None:
        """Arguments that the function does not take, or that make no key, are errors on a hit too."""
        CACHE.values["user:7"] = "known"
        assert user(7) == "known"
        with pytest.raises(TypeError, match=r"user\(\): missing a required argument: 'id'"):
            user()  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="unexpected keyword argument 'ful'"):
            user(7, ful=True)  # type: ignore[call-arg]
        with pytest.raises(UncacheableArgument, match="object") as caught:
            user(object())  # type: ignore[arg-type]
        assert caught.value.__context__ is None


class TestMethods:
    """What a wrapper has beside the call."""

    def test_key_peek_refresh_and_invalidate_take_the_calls_arguments(self) -> None:
        """All four speak of the value that the same arguments give."""
        assert user.key(7, full=True) == user.key(id=7) == "user:7"
        assert user.peek(7) is None
        assert user.refresh(7, full=True) == user.peek(7) == user(7) == "user 7"
        assert user.refresh(7) == "user 7"
        assert user.invalidate(id=7) is True
        assert user.invalidate(7) is False
        assert CALLS == [(7, True), (7, False)]
        assert [(name, key) for name, key, _ in CACHE.asked] == [
            ("refresh", "user:7"),
            ("refresh", "user:7"),
            ("delete", "user:7"),
            ("delete", "user:7"),
        ]

    def test_the_same_awaited(self) -> None:
        """Refresh and invalidate are awaited, key and peek are not."""

        async def run() -> None:
            assert user_later.key(7) == "user:7"
            assert user_later.peek(7) is None
            assert await user_later.refresh(7, full=True) == user_later.peek(7) == "user 7"
            assert await user_later.invalidate(7) is True
            assert await user_later.invalidate(7) is False

        asyncio.run(run())
        assert CALLS == [(7, True)]

    def test_the_function_itself_is_at_hand(self) -> None:
        """``__wrapped__`` calls it past the cache."""
        assert user.__wrapped__(7) == "user 7"
        assert asyncio.run(user_later.__wrapped__(7)) == "user 7"
        assert CACHE.asked == ASYNC_CACHE.asked == []

    def test_it_looks_like_the_function(self) -> None:
        """Name, text, annotations and signature are the function's; its repr says what it is."""
        for wrapper, name in ((user, "user"), (user_later, "user_later")):
            assert (wrapper.__name__, wrapper.__qualname__, wrapper.__module__) == (name, name, HERE)
            assert (wrapper.__doc__ or "").startswith("Find a user")
            assert list(inspect.signature(wrapper).parameters) == ["id", "full"]
            assert list(inspect.signature(wrapper.func).parameters) == ["id", "full"]
        assert repr(user) == f"<CachedFunction {HERE}.user>"
        assert repr(user_later) == f"<AsyncCachedFunction {HERE}.user_later>"

    def test_it_is_a_coroutine_function_if_the_function_is_one(self) -> None:
        """Frameworks that ask get the right answer, of methods too."""
        assert inspect.iscoroutinefunction(user_later)
        assert inspect.iscoroutinefunction(Repository("a").load_later)
        assert not inspect.iscoroutinefunction(user)

    def test_an_unknown_attribute_is_missing(self) -> None:
        """A misspelt name is an AttributeError, as it is of functions."""
        for wrapper in (user, Repository("a").load):
            with pytest.raises(AttributeError, match="'CachedFunction' object has no attribute 'invalidte'"):
                wrapper.invalidte  # type: ignore[attr-defined]  # noqa: B018

    def test_it_is_pickled_by_name_and_never_copied(self) -> None:
        """Another process gets its own wrapper of that name, as with functions."""
        assert pickle.loads(pickle.dumps(user)) is user
        assert pickle.loads(pickle.dumps(Repository.load)) is Repository.load
        assert copy.deepcopy(user_later) is user_later
        CACHE.values["load:a:7"] = "known"
        assert pickle.loads(pickle.dumps(Repository("a").load))(7) == "known"


class TestBinding:
    """Wrappers in a class."""

    def test_a_method_and_its_methods_bind(self) -> None:
        """``obj.method(7)`` and ``obj.method.invalidate(7)`` speak of the same value, and of this object's."""
        one, other = Repository("a"), Repository("b")
        assert (one.load(7, full=True), other.load(7), one.load(id=7)) == ("a 7", "b 7", "a 7")
        assert (one.load.key(7), other.load.key(id=7)) == ("load:a:7", "load:b:7")
        assert one.load.invalidate(7) is True
        assert (one.load.peek(7), other.load.peek(7)) == (None, "b 7")
        assert one.load.refresh(7) == "a 7"
        assert CALLS == [("a", 7, True), ("b", 7, False), ("a", 7, False)]

    def test_the_same_awaited(self) -> None:
        """A method that is a coroutine function binds alike."""

        async def run() -> None:
            one = Repository("a")
            assert await one.load_later(7) == one.load_later.peek(7) == await one.load_later.refresh(7) == "a 7"
            assert await one.load_later.invalidate(7)

        asyncio.run(run())

    def test_without_the_object_in_the_key_all_objects_share(self) -> None:
        """That is what ignore=("self",) asks for."""
        assert (Repository("a").shared(7), Repository("b").shared(7)) == ("a 7", "a 7")

    def test_from_the_class_it_takes_the_object_as_a_function_does(self) -> None:
        """``Class.method(obj, 7)`` is ``obj.method(7)``."""
        assert Repository.load(Repository("a"), 7) == "a 7"
        assert Repository.load.key(Repository("a"), 7) == "load:a:7"
        assert isinstance(Repository.load, CachedFunction)
        assert isinstance(Repository("a").load_later, AsyncCachedFunction)

    def test_a_bound_one_looks_like_a_bound_method(self) -> None:
        """Its name and text are the function's, its signature and ``__wrapped__`` lack self."""
        bound = Repository("a").load
        assert (bound.__name__, bound.__doc__) == ("load", "Load it.")
        assert list(inspect.signature(bound).parameters) == ["id", "full"]
        assert bound.__wrapped__(7) == "a 7"
        assert repr(bound) == f"<CachedFunction {HERE}.Repository.load>"
        assert CACHE.asked == []

    def test_a_bound_one_is_equal_and_weak_as_a_bound_method_is(self) -> None:
        """It is made anew at each access, so callbacks are found by equality; WeakMethod keeps no object alive."""
        one, other = Repository("a"), Repository("a")
        assert one.load == one.load
        assert len({one.load, one.load, other.load, Repository.load}) == 3
        assert one.load not in {other.load, one.shared, Repository.load}
        assert one.load != 7
        bound: Any = one.load
        assert (bound.__self__, bound.__func__) == (one, Repository.load)
        weak = weakref.WeakMethod(bound)
        assert weak() == one.load
        assert not hasattr(user, "__self__")
        del one, bound
        gc.collect()
        assert weak() is None

    def test_a_pydantic_model_takes_a_cached_method(self) -> None:
        """With the public class among its ignored types."""
        pydantic = pytest.importorskip("pydantic")
        cache = NearCache.from_url("memory://")

        class Model(pydantic.BaseModel):  # type: ignore[misc,name-defined]  # known at run time alone
            model_config = pydantic.ConfigDict(ignored_types=(CachedFunction,))
            name: str

            @cache.cached("greeting:{self.name}")
            def greeting(self) -> str:
                return f"Hello {self.name}"

        assert Model(name="Ada").greeting() == Model(name="Ada").greeting() == "Hello Ada"

    def test_a_framework_finds_the_function_in_its_call(self) -> None:
        """Celery looks at ``__call__`` of what is no function: its module, its arguments, and calls it."""
        task = user.__call__
        assert (task.__module__, task.__name__) == (HERE, "user")
        assert inspect.getfullargspec(task)[0] == ["id"]
        assert inspect.getfullargspec(task).kwonlyargs == ["full"]
        assert task(7) == "user 7"

    def test_a_bound_one_does_not_bind_again(self) -> None:
        """Put into another class, it keeps its object, as a bound method does."""

        class Other:
            load: Any = Repository("a").load

        assert Other().load(7) == "a 7"

    def test_static_and_class_methods(self) -> None:
        """Both work with the decorator below them and above."""
        kind: Any = Repository  # type checkers take what stands below @staticmethod for a descriptor all the same
        assert kind.of_class(7) == kind("a").of_class(7) == ("Repository", 7)
        assert kind.under(7) == kind("a").under(7) == ("Repository", 7)
        assert kind.under.key(7) == kind("a").under.key(7) == "under:Repository:7"
        assert kind.above(7) == kind("a").above(7) == 7
        assert kind.below(7) == kind("a").below(7) == 7

    def test_what_a_class_does_not_bind_stays_unbound(self) -> None:
        """An object that can be called gets no self, with the decorator or without."""

        class Double:
            def __call__(self, number: int) -> int:
                return 2 * number

        class Other:
            double: Any = cached_sync(CACHE, "double:{number}")(Double())

        assert Other().double(7) == 14


class TestOptions:
    """What is given with the decorator."""

    @pytest.mark.parametrize("how", ["call", "refresh"])
    def test_options_reach_the_cache_as_a_policy(self, how: str) -> None:
        """Over the settings; tags are rendered with the call's arguments."""
        cache, tags = Fake(), ["users", "user:{id}", "full:{full}"]

        @cached_sync(cache, "user:{id}", ttl=60, lease=None, tags=tags, ignore=["full"])
        def tagged(id: int, *, full: bool = False) -> int:  # noqa: A002  # as above
            return id

        (tagged if how == "call" else tagged.refresh)(7, full=True)
        [(_, key, policy)] = cache.asked
        assert key == "user:7"
        assert policy == replace(POLICY, ttl=60.0, tags=("full:True", "user:7", "users"))

    def test_a_policy_is_made_once(self) -> None:
        """At decoration: a miss makes none anew, and what makes no sense is told where it is written."""

        @cached_sync(CACHE, "once:{id}", ttl=60)
        def once(id: int) -> int:  # noqa: A002  # as above
            return id

        once(7)
        once(8)
        once.refresh(8)
        (first, second, third) = [policy for _, _, policy in CACHE.asked]
        assert first is second is third
        assert first.ttl == 60.0
        with pytest.raises(ConfigError, match="unknown option 'ignored'; did you mean 'ignore'"):
            cached_sync(CACHE, "once:{id}", ignored=["full"])
        with pytest.raises(ConfigError, match="unknown option 'tll'"):
            cached_sync(CACHE, "once:{id}", tll=60)

    def test_tags_of_a_method(self) -> None:
        """Tags know the object, whether called or refreshed."""

        class Tenant(Repository):
            @cached_sync(CACHE, "{self.name}:{id}", tags=["tenant:{self.name}"])
            def find(self, id: int) -> int:  # noqa: A002  # as above
                return id

        Tenant("a").find(7)
        Tenant("a").find.refresh(7)
        assert [policy.tags for _, _, policy in CACHE.asked] == [("tenant:a",)] * 2

    def test_without_options_the_settings_hold(self) -> None:
        """Bare, the cache's own policy is used as it is."""
        user(7)
        assert CACHE.asked[0][2] is POLICY

    def test_all_three_forms(self) -> None:
        """Bare, with options alone, and with a template."""

        def number(id: int) -> int:  # noqa: A002  # as above
            return id

        name = f"{HERE}.{number.__qualname__}(id=7)"
        assert cached_sync(CACHE, number).key(7) == name
        assert cached_sync(CACHE)(number).key(7) == name
        assert cached_sync(CACHE, ttl=60)(number).key(7) == name
        assert cached_sync(CACHE, "n:{id}")(number).key(7) == "n:7"
        assert cached_sync(CACHE, ignore=["id"])(number).key(7) == name.replace("id=7", "")
        narrow = Fake()
        narrow._policy = Policy.of(Settings(max_key_bytes=70))
        assert len(cached_sync(narrow)(number).key(7)) <= 70

        async def later(id: int) -> int:  # noqa: A002  # as above
            return id

        name = f"{HERE}.{later.__qualname__}(id=7)"
        assert cached_async(ASYNC_CACHE, later).key(7) == cached_async(ASYNC_CACHE, ttl=60)(later).key(7) == name
        assert cached_async(ASYNC_CACHE, "n:{id}")(later).key(7) == "n:7"

    def test_one_decorator_for_many_functions(self) -> None:
        """What ``cached(...)`` returns may be kept and used again."""
        decorate = cached_sync(CACHE, ttl=60)

        def one() -> int:
            return 1

        def two() -> int:
            return 2

        assert (decorate(one)(), decorate(two)()) == (1, 2)

    def test_two_layers(self) -> None:
        """A wrapper can be wrapped, each layer with its own key."""
        outer = cached_sync(CACHE, "outer:{id}", ignore=["full"])(user)
        assert (outer(7), outer.key(7), user.key(7)) == ("user 7", "outer:7", "user:7")
        assert [key for _, key, _ in CACHE.asked] == ["outer:7", "user:7"]


def plain() -> None:
    """Do nothing."""


async def coroutine() -> None:
    """Do nothing, later."""


def generator() -> Iterator[int]:
    """Yield."""
    yield 1


async def async_generator() -> AsyncIterator[int]:
    """Yield, later."""
    yield 1


class Plain:
    """Can be called."""

    def __call__(self) -> None:
        """Do nothing."""


class Coroutine:
    """Can be called and awaited."""

    async def __call__(self) -> None:
        """Do nothing, later."""


class Generating:
    """Can be called and iterated."""

    def __call__(self) -> Iterator[int]:
        """Yield."""
        yield 1


class TestRefusals:
    """What cannot be cached is refused when it is decorated, and the error names the way out."""

    @pytest.mark.parametrize(
        "fn", [coroutine, functools.partial(coroutine), Coroutine()], ids=["def", "partial", "object"]
    )
    def test_coroutine_functions_need_the_async_class(self, fn: Callable[..., Any]) -> None:
        """NearCache would cache the coroutine object."""
        with pytest.raises(TypeError, match=r"is a coroutine function: .*use AsyncNearCache"):
            cached_sync(CACHE, "key")(fn)
        assert asyncio.run(cached_async(AsyncFake(), "key")(fn)()) is None

    @pytest.mark.parametrize("fn", [plain, functools.partial(plain), Plain()], ids=["def", "partial", "object"])
    def test_plain_functions_need_the_plain_class(self, fn: Callable[..., Any]) -> None:
        """AsyncNearCache would await what is not awaitable, and block the loop before."""
        with pytest.raises(TypeError, match=r"is a plain function: .*use NearCache"):
            cached_async(ASYNC_CACHE, "key")(fn)
        assert cached_sync(Fake(), "key")(fn)() is None

    @pytest.mark.parametrize(
        "fn",
        [generator, async_generator, functools.partial(generator), Generating()],
        ids=["generator", "async generator", "partial", "object"],
    )
    @pytest.mark.parametrize("decorate", [cached_sync, cached_async])
    def test_generator_functions(self, fn: Callable[..., Any], decorate: Callable[..., Any]) -> None:
        """A generator is empty when it is cached."""
        with pytest.raises(TypeError, match=r"is a generator function: .*return a list"):
            decorate(CACHE, "key")(fn)

    @pytest.mark.parametrize("target", [60, ["user"]], ids=["number", "list"])
    @pytest.mark.parametrize("decorate", [cached_sync, cached_async])
    def test_what_is_no_function(self, target: Any, decorate: Callable[..., Any]) -> None:
        """cached(60) for cached(ttl=60)."""
        with pytest.raises(TypeError, match=r"must be a function.*@cached\(ttl=60\)"):
            decorate(CACHE, target)

    def test_templates_and_tags_are_checked(self) -> None:
        """The mistakes that keys.py finds show at decoration."""
        for template, options in [("x:{no}", {}), ("x", {"tags": ["{no}"]}), (None, {"ignore": ["no"]})]:
            with pytest.raises(TypeError, match="no"):
                cached_sync(CACHE, template, **options)(plain)
