"""Which functions have keys, and what is remembered of their arguments."""

from __future__ import annotations

import functools
import inspect
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from nearcache.errors import UncacheableArgument
from nearcache.functions import make_key_function
from tests.support.arguments import DISTINCT, HERE, Colour, User, anything, many, user


def _closure() -> Callable[[int], int]:
    offset = 1

    def shifted(number: int) -> int:
        return number + offset

    return shifted


def _wrapped_closure() -> Callable[[int], int]:
    # functools.cache has no __closure__ of its own.
    return functools.cache(_closure())


class Repository:
    """Methods of all kinds."""

    def load(self, id: int) -> type:  # noqa: A002  # as in the documentation
        """Capture nothing but what super() needs."""
        super().__init__()
        return __class__  # type: ignore[name-defined,no-any-return]  # the compiler provides it

    def make(cls, id: int) -> None:  # noqa: A002, N805  # classmethod comes above @cached
        """Make one."""


class Callee:
    """Something that can be called."""

    def __call__(self, id: int) -> None:  # noqa: A002  # as above
        """Do nothing."""


class TestFunctions:
    """Which functions have keys."""

    @pytest.mark.parametrize(
        ("fn", "reason"),
        [
            (Repository.load, r"it is a method; ignore=\('self',\)"),
            (Repository.make, r"it is a method; ignore=\('cls',\)"),
            (Repository().load, "bound to an object"),
            (_closure(), r"captures variables \(offset\)"),
            (_wrapped_closure(), "it is no plain function but a _lru_cache_wrapper"),
            (lambda id: id, "lambda"),  # noqa: A006  # as above
            (functools.partial(user, full=True), "it is no plain function but a partial"),
            (functools.update_wrapper(functools.partial(user, full=True), user), "no plain function but a partial"),
            (Callee(), "it is no plain function but a Callee"),
            (User, "it is no plain function but a type"),
        ],
    )
    def test_without_a_template_the_name_must_tell_the_function(self, fn: Callable[..., Any], reason: str) -> None:
        """What module, name and arguments do not tell apart needs a template, and the error says so and why."""
        with pytest.raises(TypeError, match=f"needs a key template, as in cached.*{reason}"):
            make_key_function(fn)
        assert make_key_function(fn, "x:{" + ":".join(inspect.signature(fn).parameters).replace(":", "}:{") + "}")

    def test_a_method_without_its_object(self) -> None:
        """With ignore=("self",) all objects share the values; ``__class__`` for super() is no captured variable."""
        key = make_key_function(Repository.load, ignore=("self",))
        assert key(Repository(), 7) == key(Repository(), id=7) == f"{__name__}.Repository.load(id=7)"

    def test_a_default_is_no_captured_variable(self) -> None:
        """What a function took as a default is an argument, and is in the key."""
        keys = [make_key_function(_with_default(n)) for n in (1, 2)]
        assert keys[0](5) != keys[1](5)

    def test_without_a_signature_a_template_does_not_help(self) -> None:
        """A builtin that does not tell its parameters needs a def around it."""
        with pytest.raises(TypeError, match=r"builtins.max cannot be cached: .*wrap it in a function made by def"):
            make_key_function(max, "max:{x}")

    def test_ignore_must_name_parameters(self) -> None:
        """A misspelt name in ignore is refused, with the names there are."""
        with pytest.raises(TypeError, match="ignore names 'ful', which is not a parameter; parameters are: id, full"):
            make_key_function(user, ignore=["ful"])

    @pytest.mark.parametrize("how", ["script", "module", "spawned"])
    def test_a_script_s_name_is_its_file_s(self, how: str, tmp_path: Path) -> None:
        """Every script's module is __main__; two of them are two functions, and a spawned child's is its parent's."""
        (tmp_path / "nightly-job.py").write_text(SCRIPT)
        (tmp_path / "weekly.py").write_text(SCRIPT)
        for name, label in [("nightly-job", "nightly_job"), ("weekly", "weekly")]:
            ways = {"script": [f"{name}.py"], "module": ["-m", name], "spawned": [f"{name}.py", "spawn"]}
            done = subprocess.run(
                [sys.executable, "-W", "error", *ways[how]],
                cwd=tmp_path,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                capture_output=True,
                text=True,
                check=True,
            )
            if how == "module":
                label = name  # noqa: PLW2901  # as it is imported
            assert done.stdout.split() == [f"{label}.load(id=7,", f"kind={label}.Kind['A'])"]

    def test_without_a_file_main_is_warned_about(self) -> None:
        """Each session's module is __main__: their keys would be the same. A template has no such trouble."""
        code = "from nearcache.functions import make_key_function as make\ndef f(a): ...\n"
        for template, warned in [("'f:{a}'", False), ("None", True)]:
            command = [sys.executable, "-c", f"{code}make(f, {template})"]
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
            done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
            assert ("NearCacheWarning: __main__.f: the module __main__" in done.stderr) == warned


SCRIPT = """
import enum, multiprocessing, sys
from nearcache.functions import make_key_function

class Kind(enum.Enum):
    A = 1

def load(id, kind=Kind.A): ...

def show():
    print(make_key_function(load)(7))

if __name__ == "__main__":
    if sys.argv[1:]:
        child = multiprocessing.get_context("spawn").Process(target=show)
        child.start()
        child.join()
    else:
        show()
"""


def _with_default(number: int) -> Callable[..., int]:
    def shifted(value: int, number: int = number) -> int:
        return value + number

    return shifted


class Unhashable:
    """Fails to hash, and not by the usual error."""

    id = 7

    def __hash__(self) -> int:
        raise RuntimeError("no hash outside of a request")


class TestMemo:
    """The memo of keys by raw arguments never shows, but in time."""

    def test_a_call_seen_before_is_not_built_again(self) -> None:
        """Small arguments of plain types are looked up."""
        key = make_key_function(user)
        first = key(7, full="x")
        assert key.memo(7, full="x") is first
        assert key(7, full="x") is first

    @pytest.mark.parametrize("value", [1.0, (1,), Decimal(1), Colour.RED, "x" * 512, b"x" * 512, 1 << 61, UUID(int=1)])
    def test_other_arguments_are_not_kept(self, value: Any) -> None:
        """What the memo would confuse, or keep alive at length, is built in full each time."""
        key = make_key_function(anything)
        assert key(value) == key(value)
        for args, kwargs in [((value,), {}), ((), {"value": value})]:
            with pytest.raises(Exception):  # noqa: B017  # any will do
                key.memo(*args, **kwargs)

    def test_many_arguments_are_not_kept(self) -> None:
        """Nor are many small ones, nor long names, nor ints of more bits than a hash has."""
        key = make_key_function(many)
        for args, kwargs in [((0,) * 33, {}), ((), {"x" * 512: 0}), (("x" * 200,) * 3, {}), ((1 << 40, 1 << 40), {})]:
            assert key(*args, **kwargs) == key.build(*args, **kwargs)
            with pytest.raises(Exception):  # noqa: B017  # any will do
                key.memo(*args, **kwargs)

    def test_it_is_bounded_in_bytes(self) -> None:
        """What it keeps is small and bounded, whatever it is asked; the latest calls are there."""
        key = make_key_function(user)
        tracemalloc.start()
        for number in range(15_000):
            one = f"{number:0400}"
            key.learn(one)
            key(one, full=number)
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert one in key.short.kept
        assert kept < 12 << 20

    def test_arguments_of_one_hash_cost_no_more(self) -> None:
        """Ints whose hash is the same are not kept: each look-up would compare the key with all of them."""
        key = make_key_function(user)
        prime = sys.hash_info.modulus
        for factor in range(1, 100):
            key.learn(factor * prime)
            key(factor * prime, full=0)
        assert not key.short.kept
        assert key.memo.cache_info().currsize == 0  # type: ignore[attr-defined]

    def test_equal_arguments_of_other_types_do_not_meet_in_it(self) -> None:
        """Whatever was asked first, a call's key is the one that is built in full."""
        for make in (make_key_function(anything), make_key_function(anything, "{value}")):
            for _ in range(2):
                assert [make(value) for value in DISTINCT] == [make.build(value) for value in DISTINCT]
                assert [make(value=value) for value in reversed(DISTINCT)] == [
                    make.build(value=value) for value in reversed(DISTINCT)
                ]

    def test_a_subclass_does_not_meet_its_base_in_it(self) -> None:
        """A str subclass is refused though its equal str is known."""
        key = make_key_function(anything)
        key("a")
        with pytest.raises(UncacheableArgument):
            key(type("Str", (str,), {})("a"))

    def test_a_changed_argument_has_another_key(self) -> None:
        """Objects that change are looked at anew each time."""
        key, listed = make_key_function(anything, "of:{value.id}"), make_key_function(anything)
        someone, values = User(1), [1]
        assert (key(someone), listed(values)) == ("of:1", f"{HERE}.anything(value=[1])")
        someone.id = 2
        values.append(2)
        assert (key(someone), listed(values)) == ("of:2", f"{HERE}.anything(value=[1, 2])")

    def test_a_changed_default_has_another_key(self) -> None:
        """A default that can change is looked at anew each time; one that cannot is not."""
        default = [1]

        def changing(value: Any = default) -> None: ...

        def fixed(a: Any = (1, 1.5, Colour.RED), b: Any = None) -> None: ...

        key = make_key_function(changing, "x:{value}")
        assert key() == "x:[1]"
        default.append(2)
        assert key() == "x:[1, 2]"
        still = make_key_function(fixed, "{a}:{b}")
        assert still.memo() is still()

    def test_an_argument_that_cannot_be_hashed(self) -> None:
        """Hashing is the memo's wish; if it fails, in whatever way, the key is built."""
        assert make_key_function(anything, "of:{value.id}")(Unhashable()) == "of:7"
        assert make_key_function(user, ignore=["full"])(7, full=Unhashable()) == f"{HERE}.user(id=7)"

    def test_leading_parameters_that_do_not_count_do_not_keep_calls_out(self) -> None:
        """A method's calls are memoised for all objects at once."""
        key = make_key_function(Repository.load, "user:{id}")
        assert key.memo(Repository(), 7) is key.memo(object(), 7)
        assert key(self=Repository(), id=7) == "user:7"

    @pytest.mark.parametrize(("args", "kwargs"), [((), {"id": 7}), ((), {}), ((1,), {}), ((1, 7), {"self": 1})])
    def test_a_call_that_python_refuses_is_refused(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """The memo knows the key, and the call has no object, or two: still it is no call."""
        key = make_key_function(Repository.load, "user:{id}")
        key(Repository(), 7)
        key(Repository(), id=7)
        with pytest.raises(TypeError, match=r"Repository.load\(\): "):
            key(*args, **kwargs)

    def test_named_arguments_cannot_hide_one_given_twice(self) -> None:
        """With ``**kwargs`` a leading argument given by position and by name is refused too."""

        def taking(session: Any, **named: Any) -> None: ...

        key = make_key_function(taking, "x/{named}", ignore=["session"])
        assert key(object(), a=1) == "x/%7B'a': 1%7D"
        with pytest.raises(TypeError, match="multiple values"):
            key(object(), session=1)

    def test_an_error_carries_no_trace_of_it(self) -> None:
        """What the user sees is what is wrong with the call alone."""
        with pytest.raises(UncacheableArgument) as caught:
            make_key_function(anything)(object())
        assert caught.value.__context__ is None
