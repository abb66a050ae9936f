"""Random calls of random functions: no two of them share a key, but for equal calls.

``python -m tests.support.key_calls 1000000`` makes a million. With ``--without escapes`` one of the :data:`RULES` of
keys is taken away, and two calls that share a key have to be found. ``--seed`` repeats a run.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple
from unittest.mock import patch

from nearcache import ConfigError, NearCache, NearCacheWarning
from nearcache.functions import cached, form, key, text
from tests.support.arguments import DISTINCT, WRAPS

PIECES = [*":::||/#-.@%({}='", "a", "b", "ab", "2", "é", "%h", "(x=", ")", "a.f", "None", ":b", "a:", ""]
FIELDS = [*["{}"] * 6, "{!s}", "{!r}"]
SIGNS = [":/|#%{}()[]'\"\\@.,=-+_ h25abNone", ":a", "/|#b", "{}:", "%37ABD:", "'\"\\", "0123.e+-", "ab"]
"""What the strings of a call are made of, one of these; few signs, so that what may meet does."""
MAX_KEY_BYTES = 72
FUNCTIONS = 200
HEARD = 2000
"""Keys of the latest calls, parts of which are the input of others."""


class Call(NamedTuple):
    """A call, its key, and what tells it from all others."""

    key: str
    identity: int
    """A hash of 64 bits in the place of what the call is: a million of those would fill the memory."""
    template: str | None
    function: str
    arguments: Mapping[str, Any]


def shared(calls: int, seed: int) -> tuple[Call, Call] | None:
    """The first two of so many calls that differ and share a key."""
    seen: dict[str, int] = {}
    for call in _calls(calls, seed):
        if seen.setdefault(call.key, call.identity) != call.identity:
            return next(first for first in _calls(calls, seed) if first.key == call.key), call
    return None


def _calls(calls: int, seed: int) -> Iterator[Call]:
    rng = random.Random(seed)
    functions = list(_functions(rng))
    heard = [""] * HEARD
    for number in range(calls):
        at = rng.randrange(len(functions))
        template, wrapper, parameters = functions[at]
        values = _arguments(rng, len(parameters), heard)
        arguments = {name: value for name, (value, _) in zip(parameters, values, strict=True)}
        by_position = rng.randrange(len(parameters) + 1)
        args, named = list(arguments.values())[:by_position], dict(list(arguments.items())[by_position:])
        made = wrapper.key(*args, **named)
        if not 0 < len(made.encode()) <= MAX_KEY_BYTES:
            raise AssertionError(f"{made!r} has {len(made.encode())} bytes")
        heard[number % HEARD] = made
        identity = hash((at, *(same for _, same in values)))
        yield Call(made, identity, template, f"{wrapper.__module__}.{wrapper.__name__}", arguments)


def _functions(rng: random.Random) -> Iterator[tuple[str | None, Any, Sequence[str]]]:
    """Functions of one cache, without those that it refuses."""
    cache = NearCache.from_url("memory://", max_key_bytes=MAX_KEY_BYTES)
    for number in range(FUNCTIONS):
        parameters = ["x", "y", "z"][: rng.choice((0, 1, 1, 1, 2, 2, 3))]
        template = None if rng.random() < 0.1 else _template(rng, parameters)
        name = rng.choice("fg") if template else f"f{number}"
        space: dict[str, Any] = {"__name__": rng.choice(["a", "b", "a.f"])}
        exec(f"def {name}({', '.join(parameters)}): return {number}", space)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", NearCacheWarning)  # of a new definition, which is another function here
                wrapper = cache.cached(template, version=rng.choice(["1.0", "2"]))(space[name])
                if rng.random() < 0.8:
                    wrapper = cache.cached(template)(space[name])
        except (ConfigError, TypeError, NearCacheWarning):
            continue
        yield template, wrapper, parameters


def _template(rng: random.Random, parameters: Sequence[str]) -> str:
    """A template over all parameters; every second one is of the plain kind."""
    fields = [rng.choice(FIELDS).replace("{", "{" + name, 1) for name in parameters]
    if rng.random() < 0.5:
        return rng.choice(":::|/#").join([rng.choice(["a", "b", "a:b"]), *fields, *rng.choice([(), (), ("b",)])])
    parts = ["".join(rng.choices(PIECES, k=rng.randrange(4))).replace("{", "{{").replace("}", "}}") for _ in "1234"]
    return parts[0] + "".join(field + part for field, part in zip(fields, parts[1:], strict=False))


def _arguments(rng: random.Random, count: int, heard: Sequence[str]) -> list[tuple[Any, object]]:
    """The arguments of a call, each with what tells it from all others."""
    signs = rng.choice(SIGNS)
    if count and rng.random() < 0.3:  # parts of one text, which another call has in other parts
        whole = "".join(rng.choices(signs, k=6))
        cuts = sorted(rng.sample(range(6), count - 1))
        parts = [whole[start:end] for start, end in zip([0, *(cut + 1 for cut in cuts)], [*cuts, 6], strict=True)]
        return [(part, (str, part)) for part in parts]
    return [_argument(rng, signs, heard) for _ in range(count)]


def _argument(rng: random.Random, signs: str, heard: Sequence[str]) -> tuple[Any, object]:
    dice = rng.random()
    if dice < 0.6:
        value = "".join(rng.choices(signs, k=rng.randrange(5)))
    elif dice < 0.75:  # a part of a key that was made before, as somebody who attacks would choose it
        source = rng.choice(heard)
        start = rng.randrange(len(source) + 1)
        value = source[start : start + rng.choice((3, 9, 99))]
    elif dice < 0.8:
        value = rng.choice("ab\ud800é") * rng.randrange(200)
    elif dice < 0.85:
        number = rng.randrange(-3, 30)
        return number, (int, number)
    elif dice < 0.9:
        value = str(rng.choice(DISTINCT[:11] + DISTINCT[-40:]))
    else:
        at = rng.randrange(len(DISTINCT))
        if type(DISTINCT[at]) in {str, int}:
            return DISTINCT[at], (type(DISTINCT[at]), DISTINCT[at])
        if rng.random() < 0.2:
            wrap = rng.randrange(len(WRAPS))
            return WRAPS[wrap]((DISTINCT[at],)), (wrap, at)
        return DISTINCT[at], at
    return value, (str, value)


# ------------------------------------------------------------------------------------------ with a rule taken away


def _joined(literals: Sequence[str], _version: str, max_bytes: int) -> Any:
    return lambda texts: form.tag_of(literals, texts, max_bytes)


RULES: Mapping[str, AbstractContextManager[object]] = {
    "": nullcontext(),
    "escapes": patch.object(form, "_escape", lambda match: match.group()),
    "quotes": patch.object(text, "_READS_AS_ANOTHER", re.compile("(?!)")),
    "braces": patch.object(key, "writer", _joined),
    "registry": patch.object(cached, "register", lambda *_: None),
    "digest": patch.object(
        form, "fit", lambda whole, _name, size: whole.encode(errors="ignore")[:size].decode(errors="ignore")
    ),
}
"""By name: what holds keys apart, taken away."""


def main() -> int:
    """Run it as the command line says; 0 if what is expected was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.key_calls", description=__doc__)
    parser.add_argument("calls", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--without", choices=sorted(RULES), default="")
    given = parser.parse_args()
    began = time.monotonic()
    with RULES[given.without]:
        found = shared(given.calls, given.seed)
    for call in found or ():
        print(call)
    what = "two calls share a key" if found else "no shared key but for equal calls"
    print(f"{given.calls} calls, seed {given.seed}, {time.monotonic() - began:.0f} s: {what}")
    return int(bool(found) != bool(given.without))


if __name__ == "__main__":
    sys.exit(main())
