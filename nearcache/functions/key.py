"""A function's calls become keys and tags."""

from __future__ import annotations

import hashlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from nearcache.errors import ConfigError
from nearcache.functions.memo import ShortKeys, memoised
from nearcache.functions.naming import refuse_nameless, warn_of_main
from nearcache.functions.parameters import Function, binder, label_of, names_of, signature_of
from nearcache.functions.template import Template, parse_template
from nearcache.functions.text import canonical, explained

_DIGEST_BYTES = 32
_LEAST_KEY_BYTES = 1 + 2 * _DIGEST_BYTES

_SURROGATES = re.compile("[\ud800-\udfff]")


class KeyFunction(NamedTuple):
    """A function from a call to its key; see :func:`make_key_function`.

    ``short.kept`` and ``memo`` are quick ways for who counts nanoseconds: the key, or any Exception, whereupon
    ``learn`` decides.
    """

    short: ShortKeys
    memo: Callable[..., str]
    build: Callable[..., str]

    def __call__(self, /, *args: object, **kwargs: object) -> str:
        """The key of the call.

        Raises:
            UncacheableArgument: an argument that is part of the key has no canonical text.
            TypeError: the function cannot be called like this.
        """
        try:
            return self.memo(*args, **kwargs)
        except Exception:  # noqa: BLE001, S110  # an argument's __hash__ may raise anything; build raises what is true
            pass
        return self.build(*args, **kwargs)

    def learn(self, /, *args: object, **kwargs: object) -> str:
        """The key of the call, built anew, and kept where the next such call looks first."""
        key = self.build(*args, **kwargs)
        self.short.keep(args, kwargs, key)
        return key


def make_key_function(
    fn: Function, template: str | None = None, ignore: Sequence[str] = (), max_key_bytes: int = 1024
) -> KeyFunction:
    """Make the function that turns calls of ``fn`` into keys.

    Without a template the key is the module, the qualified name and the canonical text of the arguments, however they
    were passed. With one it is the template, filled; parameters that it does not show do not count.

    Args:
        fn: the function; it is never called.
        template: for example ``"user:{id}"``; None: the key is made from all arguments.
        ignore: the names of parameters that do not count.
        max_key_bytes: a key without template that is longer in UTF-8 ends in a BLAKE2b digest (RFC 7693) instead.

    Raises:
        TypeError: keys of this function, or from this template, would not tell its calls apart.
        ConfigError: ``max_key_bytes`` has no room for a digest.

    >>> import textwrap
    >>> def user(id: int, *, full: bool = False) -> str: ...
    >>> make_key_function(user, "user:{id}")(7, full=True)
    'user:7'
    >>> make_key_function(textwrap.dedent)([1, (2.0,)])
    'textwrap.dedent(text=[1, (2.0,)])'
    """
    label, signature = label_of(fn), signature_of(fn)
    counted = _counted(label, signature, names_of("ignore", ignore))
    if template is not None:
        filled = _key_template(template, label, signature, counted)
        return _key_function(label, signature, filled.names, filled.render)
    refuse_nameless(fn, label, counted)
    warn_of_main(fn, label)
    if max_key_bytes < _LEAST_KEY_BYTES:
        raise ConfigError(f"max_key_bytes={max_key_bytes}: keys of functions need at least {_LEAST_KEY_BYTES}")

    def compose(arguments: Mapping[str, Any]) -> str:
        texts = ", ".join(f"{name}={_argument(label, name, arguments[name])}" for name in counted)
        return _fit(label, f"({texts})", max_key_bytes)

    return _key_function(label, signature, counted, compose)


def _counted(label: str, signature: inspect.Signature, ignore: Sequence[str]) -> list[str]:
    """The parameters that are part of the key."""
    for name in ignore:
        if name not in signature.parameters:
            known = ", ".join(signature.parameters) or "none"
            raise TypeError(f"{label}: ignore names {name!r}, which is not a parameter; parameters are: {known}")
    return [name for name in signature.parameters if name not in ignore]


def _key_template(text: str, label: str, signature: inspect.Signature, counted: Sequence[str]) -> Template:
    template = parse_template(text, label, signature.parameters)
    for name in sorted(template.names.difference(counted)):
        raise TypeError(f"{label}: the template {text!r} shows {name!r}, which ignore leaves out; choose one")
    if counted and not template.names:
        raise TypeError(
            f"{label}: the template {text!r} names no parameter, so that all calls would share one value; parameters "
            f"are: {', '.join(counted)}. Name one, as in '{text}:{{{counted[0]}}}', or ignore=[...] them all"
        )
    return template


def _argument(label: str, name: str, value: object) -> str:
    way_out = (
        f"leave it out by ignore=({name!r},), or show a part of it by a template, as in cached('name:{{{name}.id}}')"
    )
    return explained(label, f"the argument {name!r}", way_out, lambda: canonical(value))


def _fit(name: str, text: str, max_bytes: int) -> str:
    """The key, or as much of the name as fits and the digest of all, so that names cut short still differ."""
    whole = name + text
    # A str from a file name may hold surrogates, which are no UTF-8.
    encoded = whole.encode("utf-8", "surrogatepass")
    if len(encoded) <= max_bytes and not _SURROGATES.search(whole):
        return whole
    cut = name.encode()[: max_bytes - _LEAST_KEY_BYTES].decode("utf-8", "ignore")
    return f"{cut}:{hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).hexdigest()}"


def _key_function(
    label: str, signature: inspect.Signature, used: Iterable[str], compose: Callable[[Mapping[str, Any]], str]
) -> KeyFunction:
    bind = binder(label, signature)

    def build(*args: object, **kwargs: object) -> str:
        return compose(bind(*args, **kwargs))

    return KeyFunction(*memoised(label, signature, frozenset(used), compose), build)


def make_tags_function(fn: Function, tags: Sequence[str]) -> Callable[..., tuple[str, ...]]:
    """Make the function that renders tags, each a :class:`Template`, with the arguments of a call.

    Raises:
        TypeError: a tag is not a template over the function's parameters.

    >>> def profile(id: int) -> str: ...
    >>> make_tags_function(profile, ["users", "user:{id}"])(id=7)
    ('users', 'user:7')
    """
    label, signature = label_of(fn), signature_of(fn)
    templates = [parse_template(tag, label, signature.parameters) for tag in names_of("tags", tags)]
    bind = binder(label, signature)
    if not any(template.fields for template in templates):
        static = tuple(template.render({}) for template in templates)
        return lambda *_args, **_kwargs: static

    def render(*args: object, **kwargs: object) -> tuple[str, ...]:
        arguments = bind(*args, **kwargs)
        return tuple(template.render(arguments) for template in templates)

    return render
