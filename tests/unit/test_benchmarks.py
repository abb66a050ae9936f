"""The benchmarks' report: verdicts decide the exit code, peers that could not be run are named, the page needs nothing.

This is the one test that imports ``benchmarks``: tests, the checker and the benchmarks import ``tests.support`` and the
library, and not each other, which is tested here too.
"""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks.harness import charts, page
from benchmarks.harness.timing import Case, compare
from benchmarks.rivals.base import HIT, Cases, NotRun, Rival, Stage, case
from benchmarks.sections import capacity, memory, peers
from benchmarks.sections import scripts as server_times
from nearcache.protocol import scripts
from tests.support.report import Chart, Report
from tests.support.tables import Spread, Table

BARS = Chart(
    "cost",
    "A hit costs 120 ns <at most>",
    "bars",
    {"ours": [["ours", 120.0, 110.0, 130.0]], "theirs": [["theirs", 4_000.0, 3_900.0, 4_200.0]]},
    unit="ns",
    ours=["ours"],
    log=True,
)
LINES = Chart(
    "growth",
    "It is flat",
    "lines",
    {"ours": [[1, 10.0], [100, 10.0]], "theirs": [[1, 20.0], [100, 2_000.0]]},
    unit="reads a second",
    axis="entries",
    ours=["ours"],
    log=True,
    log_x=True,
)


def section(report: Report) -> bool:
    """A section that keeps everything a report can keep; its name is one that the page does not know."""
    report.show(Table("Speed & size", ["what", "ns"], [["get <key>", "120"]], ["a note"]))
    report.chart(BARS)
    report.chart(LINES)
    report.keep("fast", {"ns": 120})
    report.budget("get", Spread.of([3.0, 3.5, 3.6]), 4.0, control="lru_cache")
    return True


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run the command with these sections only."""

    def running(*arguments: str, **sections: Callable[[Report], bool]) -> int:
        monkeypatch.setattr(command, "SECTIONS", sections)
        return command.main(list(arguments))

    return running


def budgeting(*measured: float | None, excused: bool = False) -> Callable[[Report], bool]:
    """A section that holds these figures against a limit of 1."""

    def show(report: Report) -> bool:
        for one in measured:
            report.budget("what it takes", one, 1.0, excused=excused)
        return True

    return show


@pytest.mark.parametrize(
    ("show", "code", "said"),
    [
        (budgeting(0.9, 1.0), 0, "kept"),
        (budgeting(0.9, 1.1), 1, "MISSED: what it takes"),
        (budgeting(None), 1, "NOT RUN: what it takes"),
        (budgeting(None, excused=True), 0, "NOT RUN"),
        (lambda _: False, 1, "FAILED: only"),
    ],
)
def test_the_exit_code_tells_of_each_line_that_is_not_kept(
    run: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
    show: Callable[[Report], bool],
    code: int,
    said: str,
) -> None:
    """A limit that is missed, or not measured without an excuse, fails the run, and is named."""
    assert run(only=show) == code
    assert said in "".join(capsys.readouterr())


def test_a_section_that_raises_fails_alone(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """The others run all the same, and their figures are kept."""

    def raising(_report: Report) -> bool:
        raise RuntimeError("the server is gone")

    assert run(first=raising, second=section) == 1
    told = capsys.readouterr()
    assert "the server is gone" in told.err
    assert "FAILED: first\n" in told.err
    assert "Speed & size" in told.out


def test_a_floor_is_missed_from_below() -> None:
    """What is to be at least so much is judged the other way round."""
    report = Report({})
    assert report.budget("throughput", 12.0, 10.0, at_least=True).kept
    assert not report.budget("throughput", 9.0, 10.0, at_least=True).kept
    assert [one.measured for one in report.missed] == [9.0]


def test_what_the_quick_form_leaves_out_is_named(run: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    """It runs the short sections; a section that is named runs whatever it is."""
    assert set(command.QUICK) < set(command.SECTIONS)
    short = dict.fromkeys(command.QUICK, section)
    run("--quick", **short, slow=section)
    assert "NOT RUN with --quick: slow" in capsys.readouterr().out
    run("--quick", "slow", **short, slow=section)
    assert "  slow: 0 s" in capsys.readouterr().out


def test_the_page_is_made_of_the_json_alone(run: Callable[..., int], tmp_path: Path) -> None:
    """What an earlier run has written is drawn again, without a section being run."""
    run("--quick", "--json", str(tmp_path / "run.json"), "fast", fast=section)
    assert run("--from", str(tmp_path / "run.json"), "--html", str(tmp_path / "page.html")) == 0
    made = (tmp_path / "page.html").read_text()
    assert "1 of 1 lines of the budget are kept" in made
    assert "beside lru_cache" in made
    assert "3.50 ×" in made
    assert "Speed &amp; size" in made
    assert "get &lt;key&gt;" in made


def whole() -> dict[str, Any]:
    """The JSON of a run of the section."""
    report = Report({"python": "CPython"}, section="fast")
    section(report)
    made: dict[str, Any] = json.loads(json.dumps(report.whole()))
    return made


def test_without_matplotlib_the_page_says_that_charts_are_missing() -> None:
    """The tables are there, in the open."""
    made = page.render(whole(), None)
    assert "matplotlib is not installed: A hit costs 120 ns &lt;at most&gt;; It is flat" in made
    assert "<details>" not in made


def test_pictures_without_matplotlib_are_refused_before_anything_is_measured(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nobody measures for an hour to be told at the end; the page is made without charts."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(SystemExit):
        run("--png", str(tmp_path), fast=section)
    told = capsys.readouterr()
    assert "--png needs matplotlib" in told.err
    assert "Speed" not in told.out
    assert run("--html", str(tmp_path / "page.html"), fast=section) == 0
    assert "without charts" in capsys.readouterr().out


def test_the_page_fetches_nothing() -> None:
    """No address is loaded, and every link stays on the page."""
    made = page.render(whole(), lambda chart: f"<svg>{chart['name']}</svg>")
    assert "<svg>cost</svg>" in made
    assert not re.search(r"<(script|link|img|iframe)|@import|url\((?!#)", made)
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', made))


def test_charts_are_drawn_with_names_and_figures(tmp_path: Path) -> None:
    """Titles, names and figures are text in the SVG; a picture is written under the chart's name."""
    pytest.importorskip("matplotlib", reason="the extra `bench` is not installed: make bench does it")
    bars, lines = whole()["shown"]["fast"]["charts"]
    for said in ("A hit costs 120 ns", "ours", "theirs", "4.00 µs"):
        assert said in charts.svg(bars)
    for said in ("It is flat", "ours", "theirs", "entries"):
        assert said in charts.svg(lines)
    assert "http" not in re.sub(r'xmlns(:\w+)?="[^"]*"', "", charts.svg(lines).split("</metadata>")[-1])
    assert charts.png(bars, tmp_path / "pictures").stat().st_size > 1_000


@asynccontextmanager
async def present(stage: Stage) -> AsyncIterator[Cases]:
    """Peers that are here."""
    yield {HIT: case("held.get", "get(key)", get=dict(stage.values).get)}


@asynccontextmanager
async def missing(_stage: Stage) -> AsyncIterator[Cases]:
    """A peer that is not installed."""
    import a_peer_that_nobody_has  # type: ignore[import-not-found]

    yield {HIT: a_peer_that_nobody_has}


@asynccontextmanager
async def refused(stage: Stage) -> AsyncIterator[Cases]:
    """A peer whose server does not want it."""
    if stage.values:
        raise NotRun("the server is too old", excused=True)
    yield {}


@asynccontextmanager
async def broken(stage: Stage) -> AsyncIterator[Cases]:
    """A peer that raises what it likes."""
    if stage.values:
        raise OSError("no luck")
    yield {}


def test_a_peer_that_can_not_be_run_is_named_and_the_others_run() -> None:
    """Only a refusal of the server is an excuse."""
    rivals = [Rival(one.__name__, "", one) for one in (missing, present, refused, broken)]
    server: Any = None
    found = asyncio.run(peers.measure(server, rivals, rounds=1, seconds=0.0001))
    assert found.labels[HIT] == {"present": "held.get"}
    assert found.times[HIT].ns("held.get").median > 0
    assert {name: error.excused for name, error in found.absent.items()} == {
        "missing": False,
        "refused": True,
        "broken": False,
    }
    assert "not installed" in str(found.absent["missing"])
    assert "OSError: no luck" in str(found.absent["broken"])


def test_slow_statements_run_as_often_as_fits_and_fast_ones_more() -> None:
    """With `seconds`, a statement that is a hundred times as slow is not run a hundred times as long."""
    calls = {"fast": 0, "slow": 0}

    def fast(_key: str) -> None:
        calls["fast"] += 1

    def slow(_key: str) -> None:
        calls["slow"] += 1
        sum(range(20_000))

    cases = [Case("fast", "call(key)", {"call": fast}), Case("slow", "call(key)", {"call": slow})]
    asyncio.run(compare(cases, ["a", "b"], rounds=2, seconds=0.002))
    assert calls["fast"] > 5 * calls["slow"]


def test_memory_is_measured_in_a_process_of_its_own_and_its_errors_come_back() -> None:
    """A dict's entry costs tens of bytes; a peer that can't be imported there is an error with its last line."""
    assert 15 < memory.ask("dict", 2_000, memory.TRACED) < 150
    with pytest.raises(RuntimeError, match="KeyError: 'nobody'"):
        memory.ask("nobody", 10, memory.TRACED)


def test_capacity_is_worked_out_from_what_the_bus_measured(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten times the instances at the same rate are almost a hundred times the work; without figures it says so."""
    report = Report({})
    assert capacity.show(report)
    assert "NOT RUN" in capsys.readouterr().out
    spent = {"1": {"NearCache.set": [20.0, 19.0, 21.0]}, "11": {"NearCache.set": [70.0]}}
    report.keep("bus", {"server µs per write": spent, "intake, ns per key": {"held, one key": [900.0]}})
    assert capacity.show(report)
    model = capacity.Model(10.0, 5.0, 0.9)
    assert report.sections["capacity"]["µs"] == pytest.approx(vars(model))
    assert model.load(1_000, 1.0) / model.load(100, 1.0) == pytest.approx(98.2, abs=0.1)
    assert model.load(100, model.rate(100)) == pytest.approx(capacity.BUSY)


ROOT = Path(__file__).parents[2]
MAY_IMPORT = {"tests/unit/test_benchmarks.py": {"benchmarks"}}
"""What a file outside a folder may import of it all the same: the tests of the benchmarks' own code."""


def imports_of(path: Path) -> set[str]:
    """The modules that a file imports, also within its functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize(
    ("folder", "allowed"),
    [("benchmarks", ("benchmarks", "tests.support")), ("tests/support", ("tests.support",)), ("tests", ("tests",))],
)
def test_there_is_no_circle_of_imports(folder: str, allowed: tuple[str, ...]) -> None:
    """What benchmarks and tests share is in tests.support, which imports neither of them."""
    wrong = [
        f"{name} imports {module}"
        for path in sorted((ROOT / folder).rglob("*.py"))
        for module in sorted(imports_of(path))
        if module.split(".")[0] in {"tests", "benchmarks"} - MAY_IMPORT.get(name := str(path.relative_to(ROOT)), set())
        and not any(module == one or module.startswith(f"{one}.") for one in allowed)
    ]
    assert wrong == []


def test_every_script_is_measured() -> None:
    """By its name, in one situation or more."""
    measured = {case.name.partition(",")[0] for case in server_times._cases(bytes(40))}
    known = {name.lower() for name, script in vars(scripts).items() if isinstance(script, scripts.Script)}
    assert {"clear" if name == "invalidate_tags" else name for name in measured} == known
