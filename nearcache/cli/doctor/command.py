"""The command `nearcache doctor`: its options, its output and its exit code."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from nearcache.advice import kind_of
from nearcache.cli.connect import AsJson, Namespace, Url, fail, settings_of
from nearcache.cli.doctor.judge import judge
from nearcache.cli.doctor.trial import Trial
from nearcache.engine.ports import RemoteFailed, RemoteMisconfigured
from nearcache.errors import ConfigError, NearCacheWarning
from nearcache.findings import Finding
from nearcache.protocol.names import acl
from nearcache.settings import Settings
from nearcache.sync import NearCache
from nearcache.transport.endpoint import CLUSTERS, redact, scheme_of
from nearcache.transport.examine import Server, examine
from nearcache.transport.open import open_url

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan"}


@dataclass
class Report:
    """What doctor has found."""

    url: str
    namespace: str
    findings: list[Finding] = field(default_factory=list)
    server: Server | None = None
    echo: float | None = None
    """Seconds that a message took from one connection to another, the median."""

    @property
    def ok(self) -> bool:
        """Whether nothing but notes was found."""
        return all(finding.level == "note" for finding in self.findings)


def doctor(
    url: Url = None,
    namespace: Namespace = None,
    *,
    acl_only: Annotated[
        bool, typer.Option("--acl", help="Print the rights that the user needs, as ACL SETUSER takes them, and end.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Examine the server and the rights of the user, and try the bus.

    Writes one scratch name of the namespace, which it deletes, and publishes messages that change nothing.
    Exit code 0: nothing but notes was found. 1: errors or warnings.
    """
    if acl_only:
        somewhere = url or os.environ.get("NEARCACHE_URL") or os.environ.get("NEARCACHE_URL_FILE")
        try:
            address, settings = settings_of(url if somewhere else "null://", namespace)
        except ConfigError as error:
            fail(str(error))
        rights = acl(settings.namespace, cluster=scheme_of(address) in CLUSTERS)
        typer.echo(f"ACL SETUSER <user> on ><password> {rights}")
        return
    report = diagnose(url, namespace)
    if as_json:
        typer.echo(json.dumps(_plain(report), indent=2))
    else:
        _show(report, Console(highlight=False, soft_wrap=True))
    raise typer.Exit(0 if report.ok else 1)


def diagnose(url: str | None, namespace: str | None) -> Report:
    """Examine and try one server."""
    report = Report(redact(url or ""), namespace or Settings().namespace)
    report.findings += _found(report, url, namespace)
    return report


def _found(report: Report, url: str | None, namespace: str | None) -> Iterator[Finding]:
    try:
        address, settings = settings_of(url, namespace)
        report.url, report.namespace = redact(address), settings.namespace
        if address in ("memory://", "null://"):
            return
        if address == "embedded://":
            raise ConfigError("embedded:// starts a server of its own; there is nothing to examine")
        if scheme_of(address) in CLUSTERS:
            yield from _tried(address, settings)
            return
        report.server = examine(address, settings)
        yield from judge(report.server, settings)
        if report.server.problem is None and report.server.role in ("", "master"):
            trial = Trial(open_url(address, settings, asynchronous=False), settings)
            already = {finding.kind for finding in report.findings}
            yield from (finding for finding in trial.findings() if finding.kind not in already)
            report.echo = trial.echo
    except ConfigError as error:
        yield Finding("url", str(error))
    except RemoteMisconfigured as failure:
        yield Finding(kind_of(str(failure), "set-up"), str(failure))
    except RemoteFailed as failure:
        yield Finding(kind_of(str(failure), "unreachable"), str(failure))


def _tried(address: str, settings: Settings) -> Iterator[Finding]:
    """What a cache on a cluster says of itself after its first attempt to prove all buckets."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NearCacheWarning)
        cache = NearCache._make(address, settings)  # from_url takes no Settings
        try:
            proven = cache.wait_healthy(settings.redis_connect_timeout + settings.max_staleness)
            health = cache.health()
        finally:
            cache.close()
    yield from health.reasons
    if not proven and not health.reasons:
        yield Finding("unreachable", health.reason or "not every bucket was proven")


def _plain(report: Report) -> dict[str, Any]:
    findings = [
        {"kind": one.kind, "level": one.level, "detail": one.detail, "todo": one.todo, "page": one.anchor}
        for one in report.findings
    ]
    plain: dict[str, Any] = {"ok": report.ok, "url": report.url, "namespace": report.namespace, "echo": report.echo}
    if report.server is not None:
        plain["server"] = {name: value for name, value in asdict(report.server).items() if name != "info"}
    return plain | {"findings": findings}


def _show(report: Report, console: Console) -> None:
    console.print(f"{escape(report.url) or 'no URL'}, namespace {escape(report.namespace)}")
    server = report.server
    if server is not None:
        console.print(
            f"{server.product} {escape(server.version)}, {escape(server.mode)}, {escape(server.role)}, "
            f"RESP{server.protocol}; round trip {server.round_trip * 1000:.2f} ms, clock {server.clock_offset:+.3f} s"
        )
        if server.watched is not None:
            watched = server.watched
            console.print(
                f"Sentinel: {watched.answering} answer, service {escape(watched.service)}, primary {watched.primary}"
            )
    if report.echo is not None:
        console.print(f"bus: messages come before later answers, echo {report.echo * 1000:.2f} ms")
    for one in report.findings:
        console.print(f"[{COLOURS[one.level]}]{one.level}[/] {one.kind}: {escape(one.detail)}")
        console.print(f"    {escape(one.todo)} ({one.anchor})")
    console.print("all is well" if report.ok else "something is to be done")
