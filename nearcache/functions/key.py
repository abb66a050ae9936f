"""A function's calls become keys and tags."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from nearcache.errors import ConfigError
from nearcache.functions.form import check_room, fit, tag_of, writer
from nearcache.functions.memo import ShortKeys, memoised
from nearcache.functions.naming import Function, label_of, refuse_nameless
from nearcache.functions.parameters import BY_POSITION, binder, names_of
from nearcache.functions.template import Template, parse_template
from nearcache.functions.text import canonical, explained
from nearcache.functions.wrapped import signature_of

_VERSION = re.compile(r"[A-Za-z0-9_.-]{1,64}")


class KeyFunction(NamedTuple):
    """A function from a call to its key; see :func:`make_key_function`.

    ``short.kept`` and ``memo`` are quick ways for who counts nanoseconds: the key, or any Exception, whereupon
    ``learn`` decides.
    """

    short: ShortKeys
    memo: Callable[..., str]
    build: Callable[..., str]
    shape: tuple[str, ...]
    """What its keys have in common; functions of different shapes have no key in common."""
    signature: inspect.Signature

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
    fn: Function,
    template: str | None = None,
    ignore: Sequence[str] = (),
    max_key_bytes: int = 1024,
    version: str | None = None,
) -> KeyFunction:
    """Make the function that turns calls of ``fn`` into keys.

    Without a template the key is the module, the qualified name and the canonical text of the arguments, however they
    were passed. With one it is the template, filled; see :mod:`nearcache.functions.form`.

    Args:
        fn: the function; it is never called.
        template: for example ``"user:{id}"``; None: the key is made from all arguments.
        ignore: the names of parameters that do not count.
        max_key_bytes: a key that is longer in UTF-8 ends in a digest instead.
        version: another one, another key: for a function whose meaning has changed.

    Raises:
        TypeError: keys of this function, or from this template, would not tell its calls apart.
        UncacheableArgument: the default of a parameter cannot become part of a key.
        ConfigError: ``max_key_bytes`` has no room for a digest, or version or ignore are none.

    >>> import textwrap
    >>> def user(id: int, *, full: bool = False) -> str: ...
    >>> make_key_function(user, "user:{id}", ignore=["full"])(7, full=True)
    'user:7'
    >>> make_key_function(textwrap.dedent)([1, (2.0,)])
    'textwrap.dedent(text=[1, (2.0,)])'
    """
    check_room(max_key_bytes)
    if version is not None and not (isinstance(version, str) and _VERSION.fullmatch(version)):
        raise ConfigError(f"version={version!r}: must be 1 to 64 of A-Z a-z 0-9 _ . -, as in version='2'")
    ignore = names_of("ignore", ignore)
    label, signature = label_of(fn), signature_of(fn, ignore)
    counted = [name for name in signature.parameters if name not in ignore]
    _check_ignore(label, fn, signature, ignore)
    stamp = f"{version}@" if version else ""
    if template is None:
        refuse_nameless(fn, label, counted)
        name = stamp + label

        def compose(arguments: Mapping[str, Any]) -> str:
            texts = ", ".join(f"{each}={_argument(label, each, arguments[each])}" for each in counted)
            return fit(f"{name}({texts})", name, max_key_bytes)

        for each in counted:
            if (default := signature.parameters[each].default) is not inspect.Parameter.empty:
                _argument(label, each, default, "the default of ")
        return _key_function(label, signature, counted, compose, (name,))

    filled = _key_template(template, label, signature, counted)
    write = writer(filled.literals, version or "", max_key_bytes)
    shape = (stamp, *filled.literals)
    return _key_function(label, signature, filled.names, lambda arguments: write(filled.texts(arguments)), shape)


def _check_ignore(label: str, fn: Function, signature: inspect.Signature, ignore: Sequence[str]) -> None:
    known = list(signature.parameters)
    if not set(ignore) <= set(known):  # or of the function inside a decorator
        known += inspect.signature(fn).parameters
    for name in ignore:
        if name not in known:
            shown = ", ".join(signature.parameters) or "none"
            raise TypeError(f"{label}: ignore names {name!r}, which is not a parameter; parameters are: {shown}")


def _key_template(text: str, label: str, signature: inspect.Signature, counted: Sequence[str]) -> Template:
    template = parse_template(text, label, signature.parameters)
    for name in sorted(template.names.difference(counted)):
        raise TypeError(f"{label}: the template {text!r} shows {name!r}, which ignore leaves out; choose one")
    first = next(iter(signature.parameters.values()), None)
    bound = first.name if first is not None and first.name in {"self", "cls"} and first.kind in BY_POSITION else None
    for name in counted:
        if name not in template.names and name != bound:
            raise TypeError(
                f"{label}: the template {text!r} leaves out {name!r}, so that calls which differ in it would share one "
                f"value; show it, as in '{text}:{{{name}}}', or say that it makes no difference by ignore=({name!r},)"
            )
    _check_defaults(template, signature)
    return template


def _check_defaults(template: Template, signature: inspect.Signature) -> None:
    """Tell now what each call that leaves the argument out would tell."""
    for field in template.fields:
        default = signature.parameters[field.name].default
        if field.path == field.name and default is not inspect.Parameter.empty:
            template.show(field, {field.name: default})


def _argument(label: str, name: str, value: object, what: str = "the argument ") -> str:
    way_out = (
        f"leave it out by ignore=({name!r},), or show a part of it by a template, as in cached('name:{{{name}.id}}')"
    )
    return explained(label, f"{what}{name!r}", way_out, lambda: canonical(value))


def _key_function(
    label: str,
    signature: inspect.Signature,
    used: Iterable[str],
    compose: Callable[[Mapping[str, Any]], str],
    shape: tuple[str, ...],
) -> KeyFunction:
    bind = binder(label, signature)

    def build(*args: object, **kwargs: object) -> str:
        return compose(bind(*args, **kwargs))

    return KeyFunction(*memoised(label, signature, frozenset(used), compose), build, shape, signature)


def make_tags_function(
    fn: Function, tags: Sequence[str], ignore: Sequence[str] = (), max_key_bytes: int = 1024
) -> tuple[str, ...] | Callable[..., tuple[str, ...]]:
    """Make the function that renders tags, each a :class:`Template`, with the arguments of a call.

    A tag is what an f-string would make of it, for it is named by hand, in ``invalidate_tags(f"user:{id}")``: tags that
    two values share drop more than they must, but never serve what is another's. One that is too long is digested.

    Returns:
        The function; or the tags themselves if they depend on no argument.

    Raises:
        TypeError: a tag is not a template over the function's parameters.
        ConfigError: they are no sequence of strings.

    >>> def profile(id: int) -> str: ...
    >>> make_tags_function(profile, ["users", "user:{id}"])(id=7)
    ('users', 'user:7')
    """
    label, signature = label_of(fn), signature_of(fn, ignore)
    templates = [parse_template(tag, label, signature.parameters) for tag in names_of("tags", tags)]
    for template in templates:
        _check_defaults(template, signature)
    bind = binder(label, signature)

    def tag(template: Template, arguments: Mapping[str, Any]) -> str:
        return tag_of(template.literals, template.texts(arguments, by_hand=True), max_key_bytes)

    if not any(template.fields for template in templates):
        return tuple(tag(template, {}) for template in templates)

    def render(*args: object, **kwargs: object) -> tuple[str, ...]:
        arguments = bind(*args, **kwargs)
        return tuple(tag(template, arguments) for template in templates)

    return render
