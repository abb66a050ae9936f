"""The command `nearcache doctor`: its options, its output and its exit code."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from nearcache.advice import kind_of
from nearcache.cli.connect import AsJson, Namespace, Url, fail, settings_of
from nearcache.cli.doctor.cluster import Examination, Examined
from nearcache.cli.doctor.judge import judge
from nearcache.cli.doctor.trial import Trial
from nearcache.engine.ports import RemoteFailed, RemoteMisconfigured
from nearcache.errors import ConfigError
from nearcache.findings import Finding
from nearcache.primaries import named
from nearcache.protocol.names import acl
from nearcache.settings import Settings
from nearcache.transport.examine import Server, examine
from nearcache.transport.open import open_url
from nearcache.transport.urls import CLUSTERS, redact, scheme_of

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
    primaries: list[Examined] = field(default_factory=list)
    """Those of a cluster that have buckets."""

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
            examination = Examination(address, settings)
            report.primaries = examination.primaries
            yield from examination.findings()
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


def _plain(report: Report) -> dict[str, Any]:
    findings = [
        {"kind": one.kind, "level": one.level, "detail": one.detail, "todo": one.todo, "page": one.anchor}
        for one in report.findings
    ]
    plain: dict[str, Any] = {"ok": report.ok, "url": report.url, "namespace": report.namespace, "echo": report.echo}
    if report.server is not None:
        plain["server"] = _of_server(report.server)
    if report.primaries:
        plain["primaries"] = [
            {"address": one.address, "buckets": one.buckets, "echo": one.echo, "server": _of_server(one.server)}
            for one in report.primaries
        ]
    return plain | {"findings": findings}


def _of_server(server: Server | None) -> dict[str, Any] | None:
    if server is None:
        return None
    return {name: value for name, value in asdict(server).items() if name != "info"}


def _show(report: Report, console: Console) -> None:
    console.print(f"{escape(report.url) or 'no URL'}, namespace {escape(report.namespace)}")
    server = report.server
    for primary in report.primaries:
        said = "not examined" if primary.server is None else _line(primary.server)
        echo = "" if primary.echo is None else f", echo {primary.echo * 1000:.2f} ms"
        console.print(f"{escape(named(primary.address, primary.buckets))}: {said}{echo}")
    if server is not None:
        console.print(_line(server))
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


def _line(server: Server) -> str:
    return (
        f"{server.product} {escape(server.version)}, {escape(server.mode)}, {escape(server.role)}, "
        f"RESP{server.protocol}; round trip {server.round_trip * 1000:.2f} ms, clock {server.clock_offset:+.3f} s"
    )
