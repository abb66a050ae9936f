"""What the commands share: the options of where the server is, and a cache that asks it without starting a bus."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any, NoReturn, TypeAlias

import typer

from nearcache.cli.servers import connect_all, named_failures, rights_lacking
from nearcache.engine.core import Core
from nearcache.engine.ports import RemoteFailed
from nearcache.environment import from_env
from nearcache.errors import ConfigError, NearCacheError, NearCacheWarning
from nearcache.settings import Settings, SettingsOptions
from nearcache.sync import NearCache

Url: TypeAlias = Annotated[
    str | None, typer.Option("--url", help="Where the server is; else NEARCACHE_URL, or NEARCACHE_URL_FILE, says it.")
]
Namespace: TypeAlias = Annotated[
    str | None, typer.Option("--namespace", help="The namespace; else NEARCACHE_NAMESPACE says it.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print one JSON document only.")]


def settings_of(url: str | None, namespace: str | None) -> tuple[str, Settings]:
    """URL and settings from the options, else from the environment.

    Raises:
        ConfigError: there is no URL, or something is wrong.
    """
    environ = dict(os.environ)
    if url is not None:
        environ.pop("NEARCACHE_URL_FILE", None)
        environ["NEARCACHE_URL"] = url
    with warnings.catch_warnings():  # a command prints what it finds, in its own way
        warnings.simplefilter("ignore", NearCacheWarning)
        given: SettingsOptions = {} if namespace is None else {"namespace": namespace}
        return from_env(environ, **given)


@contextmanager
def opened(
    url: str | None, namespace: str | None, *, writes: bool = False, keys: Iterable[str] | None = None
) -> Iterator[NearCache]:
    """A cache without a bus: it asks the server, and listens to nobody. What goes wrong ends the program with 2.

    Args:
        url: None: from the environment.
        namespace: the same.
        writes: try every right first: a write that is refused in its middle would make all others drop their L1.
        keys: what is asked for; the servers that have them have to answer. None: those of all keys.
    """
    with opened_partly(url, namespace, writes=writes, keys=keys) as (cache, failures):
        core = cache._core  # noqa: SLF001  # as below
        check_reached(failures, core.all if keys is None else map(core.of, keys))
        yield cache


@contextmanager
def opened_partly(
    url: str | None, namespace: str | None, *, writes: bool = False, keys: Iterable[str] | None = None
) -> Iterator[tuple[NearCache, Mapping[Core, RemoteFailed]]]:
    """As ``opened``, with why some of the buckets can't be asked, or written to; of all of them it ends the program."""
    try:
        address, settings = settings_of(url, namespace)
        if address.startswith(("memory:", "null:", "embedded:")):
            raise ConfigError(f"{address} has nothing that another process could see")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NearCacheWarning)
            cache = NearCache._make(address, settings)  # from_url takes no Settings
        core = cache._core  # noqa: SLF001  # the library offers no cache without a bus
        core.new_bus = None
        try:
            failures = connect_all(cache)
            if writes:
                failures |= rights_lacking(cache, core.all if keys is None else map(core.of, keys), failures)
            if len(failures) == len(core.all):
                fail("; ".join(named_failures(failures)))
            yield cache, failures
        finally:
            cache.close()
    except (NearCacheError, RemoteFailed) as error:
        fail(str(error))


def check_reached(failures: Mapping[Core, RemoteFailed], needed: Iterable[Core]) -> None:
    """End the program if one of these buckets can't be asked: name its server, with all buckets there."""
    places = {core.place for core in needed if core in failures}
    if places:
        fail("; ".join(named_failures({core: why for core, why in failures.items() if core.place in places})))


def fail(problem: str) -> NoReturn:
    """End the program: it could not be asked, or not answered."""
    typer.echo(f"nearcache: {problem}", err=True)
    raise typer.Exit(2)


def check_answered(cache: NearCache) -> None:
    """End the program if Redis did not answer: a miss would say that there is no value."""
    if cache.stats().l2_errors:
        fail(cache.health().reason or "Redis did not answer")


def finish(outcome: dict[str, Any], text: str, *, as_json: bool, ok: bool) -> NoReturn:
    """Print the outcome, and end the program with 0 if all is well, else with 1."""
    typer.echo(json.dumps(outcome, default=repr) if as_json else text)
    raise typer.Exit(0 if ok else 1)
