"""What classes say of themselves: where they are, and their annotations as text for a fingerprint."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath
from typing import Any, ForwardRef, get_args, get_origin


def module_of(named: Any) -> str:
    """The module of a function or class; every script's is ``__main__``, so there it is the name of the file."""
    module = str(named.__module__)
    if module not in MAIN:
        return module
    main = sys.modules.get(module)
    spec, file = getattr(main, "__spec__", None), getattr(main, "__file__", None)
    if spec is not None:  # python -m name
        return str(spec.name)
    return re.sub(r"\W", "_", PurePath(file).stem) if file and not file.startswith("<") else module


MAIN = frozenset({"__main__", "__mp_main__"})  # the second in a child that multiprocessing spawned


def annotations_of(cls: Any, only: Iterable[str] | None = None) -> dict[str, Any]:
    """The annotations of a class and its bases, as they are written."""
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        found |= written_annotations(base)
    return found if only is None else {name: found[name] for name in only if name in found}


def written_annotations(base: Any) -> dict[str, Any]:
    """The annotations of a class, without its bases, or of a function, as they are written."""
    if sys.version_info >= (3, 14):
        from annotationlib import Format  # noqa: PLC0415  # there only

        return inspect.get_annotations(base, format=Format.FORWARDREF)
    found: dict[str, Any] = inspect.get_annotations(base)
    return found


def form_of(sort: str, fields: Sequence[tuple[str, object]]) -> Callable[[], str]:
    """The text of which a fingerprint is made: names and types, in order."""
    return lambda: "\n".join([sort, *(f"{name}:{text_of(annotation)}" for name, annotation in fields)])


def text_of(annotation: Any) -> str:
    """A type as text that is the same in every process, whether or not names in quotes are known yet.

    >>> text_of(dict[str, "User | None"])
    'dict[str,User|None]'
    """
    if isinstance(annotation, str):
        return re.sub(r"\s", "", annotation)
    if isinstance(annotation, ForwardRef):
        return text_of(annotation.__forward_arg__)
    if hasattr(annotation, "__metadata__"):  # Annotated
        return text_of(annotation.__origin__)
    origin = get_origin(annotation)
    if origin is not None:
        parts = [text_of(part) for part in get_args(annotation)]
        name = getattr(origin, "__qualname__", str(origin))
        return "|".join(parts) if name.rpartition(".")[2] in {"Union", "UnionType"} else f"{name}[{','.join(parts)}]"
    if isinstance(annotation, list | tuple):  # the arguments of a Callable
        return f"[{','.join(map(text_of, annotation))}]"
    if annotation is type(None):
        return "None"
    name = getattr(annotation, "__qualname__", None) or getattr(annotation, "__name__", None)
    return name if isinstance(name, str) else re.sub(r" at 0x[0-9a-f]+", "", repr(annotation))
