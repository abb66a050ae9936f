"""The report as one HTML file that needs no network: verdicts first, then charts, with every table behind them.

It is made of a report's JSON alone, so that an earlier run can be looked at again, and takes whatever sections were
run. Without matplotlib the charts are missing, and the page says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from tests.support.report import Budget
from tests.support.tables import figure

HEADINGS = {
    "hits": "L1 hits",
    "tiers": "The tiers",
    "peers": "Beside the peers",
    "concurrency": "Concurrency",
    "l2": "Reads and writes over the server",
    "cluster": "Three primaries beside one server",
    "bus": "The bus",
    "hitratio": "Hit ratios",
    "local": "L1 alone",
    "imports": "What the import costs",
    "memory": "Memory",
    "scale": "Growth",
    "races": "Races",
    "fleet": "A fleet of instances",
    "capacity": "How many instances a server carries",
    "frameworks": "Applications of each framework",
    "away": "Redis is away",
    "uncacheable": "Values that are never kept",
    "pauses": "Pauses",
}
STYLE = """
:root { --ink: #1f2733; --faint: #6b7685; --rule: #e3e7ec; --ours: #0b7a75; --missed: #b3261e; --paper: #fff; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f8; color: var(--ink); font: 15px/1.55 system-ui, "DejaVu Sans", sans-serif; }
main { max-width: 1020px; margin: 0 auto; padding: 40px 20px 80px; }
h1 { font-size: 32px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -.02em; }
h2 { font-size: 21px; margin: 48px 0 14px; letter-spacing: -.01em; }
.lead { font-size: 17px; color: var(--faint); margin: 0 0 24px; max-width: 46em; }
.card { background: var(--paper); border: 1px solid var(--rule); border-radius: 12px; padding: 18px 22px;
  margin: 0 0 18px; }
.card svg { display: block; width: 100%; height: auto; }
nav { display: flex; flex-wrap: wrap; gap: 8px; margin: 0 0 24px; }
nav a { color: var(--ink); background: var(--paper); border: 1px solid var(--rule); border-radius: 99px;
  padding: 3px 13px; text-decoration: none; font-size: 14px; }
nav a:hover { border-color: var(--ours); color: var(--ours); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 14px; font-variant-numeric: tabular-nums; }
th { color: var(--faint); font-weight: 500; }
th, td { text-align: right; padding: 5px 10px; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; white-space: normal; }
tr:last-child td { border-bottom: 0; }
td small { color: var(--faint); display: block; font-size: 12.5px; }
.gauge { position: relative; width: 150px; height: 10px; background: #eef1f4; border-radius: 5px; }
.gauge i { position: absolute; left: 0; top: 0; bottom: 0; border-radius: 5px; background: var(--ours); }
.gauge b { position: absolute; top: -4px; bottom: -4px; width: 2px; left: 66.6%; background: var(--ink); }
.MISSED .gauge i { background: var(--missed); }
.verdict { font-weight: 600; color: var(--ours); }
.MISSED .verdict { color: var(--missed); }
.NOT .verdict { color: var(--faint); }
details { margin: 0 0 10px; } summary { cursor: pointer; color: var(--faint); font-size: 14px; }
details .card { margin-top: 10px; }
.notes { color: var(--faint); font-size: 13px; margin: 10px 0 0; padding: 0; list-style: none; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 0; font-size: 14px; }
dt { color: var(--faint); } dd { margin: 0; }
"""


def render(whole: Mapping[str, Any], drawn: Callable[[Mapping[str, Any]], str] | None) -> str:
    """The page.

    Args:
        whole: what ``Report.whole`` gives, or its JSON.
        drawn: makes an <svg> of a chart; None where there is no matplotlib.
    """
    sections = [name for name in (*HEADINGS, *whole["shown"]) if name in whole["shown"]]
    sections = list(dict.fromkeys(sections))
    links = "".join(f'<a href="#{escape(name)}">{escape(heading(name))}</a>' for name in sections)
    body = [
        "<h1>What nearcache costs</h1>",
        f'<p class="lead">{escape(_lead(whole))}</p>',
        f'<nav><a href="#budget">Budget</a>{links}</nav>' if sections else "",
        _budget(whole["budget"]),
        *(_section(name, whole["shown"][name], drawn) for name in sections),
        '<h2 id="facts">Where and what</h2>',
        '<div class="card"><dl>',
        *(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in whole["facts"].items()),
        "</dl></div>",
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>nearcache benchmarks</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def heading(section: str) -> str:
    """The heading of a section, also of one that is not known here.

    >>> heading("tiers"), heading("import")
    ('The tiers', 'Import')
    """
    return HEADINGS.get(section, section.capitalize())


def _lead(whole: Mapping[str, Any]) -> str:
    verdicts = [line["verdict"] for line in whole["budget"]]
    told = f"{verdicts.count('kept')} of {len(verdicts)} lines of the budget are kept" if verdicts else "No budget here"
    missed, absent = verdicts.count("MISSED"), verdicts.count("NOT RUN")
    told += f", {missed} missed" if missed else ""
    told += f", {absent} could not be measured here" if absent else ""
    quick = " A quick run: for a look, not for a record." if whole["quick"] else ""
    return f"{told}. Ratios are made within one run, side by side; microseconds are this machine's.{quick}"


def _budget(lines: Sequence[Mapping[str, Any]]) -> str:
    if not lines:
        return ""
    rows = []
    for line in lines:
        given = {name: value for name, value in line.items() if name != "verdict"}
        budget = Budget(**given)
        _, limit, measured, spread, verdict = budget.row()
        beside = f"beside {budget.control}" if budget.control else ""
        small = ". ".join(part for part in (beside, budget.note) if part)
        rows.append(
            f'<tr class="{escape(verdict)}"><td>{escape(budget.line)}<small>{escape(small)}</small></td>'
            f"<td>{escape(limit)}</td><td><strong>{escape(measured)}</strong><small>{escape(spread)}</small></td>"
            f"<td>{_gauge(budget)}</td><td class=verdict>{escape(verdict)}</td></tr>"
        )
    head = "<tr><th>what</th><th>budget</th><th>measured</th><th></th><th>verdict</th></tr>"
    table = f'<div class="card scroll"><table>{head}{"".join(rows)}</table></div>'
    return f'<h2 id="budget">Budget</h2>\n{table}'


def _gauge(budget: Budget) -> str:
    """How much of the budget is used: the mark is the limit."""
    if budget.measured is None or not budget.limit:
        return ""
    share = min(1.0, budget.measured / budget.limit / 1.5)
    title = f"{figure(budget.measured / budget.limit)} of the limit"
    return f'<div class="gauge" title="{escape(title)}"><i style="width:{share:.1%}"></i><b></b></div>'


def _section(name: str, shown: Mapping[str, Any], drawn: Callable[[Mapping[str, Any]], str] | None) -> str:
    charts = shown["charts"]
    tables = "".join(_table(table) for table in shown["tables"])
    pictures, figures = "", tables
    if charts and drawn is not None:
        pictures = "".join(f'<div class="card">{drawn(chart)}</div>' for chart in charts)
        figures = f"<details><summary>All figures</summary>{tables}</details>"
    elif charts:
        titles = "; ".join(chart["title"] for chart in charts)
        pictures = f'<p class="notes">Not drawn, as matplotlib is not installed: {escape(titles)}</p>'
    return f'<h2 id="{escape(name)}">{escape(heading(name))}</h2>\n{pictures}{figures}'


def _table(table: Mapping[str, Any]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table["head"])
    rows = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in table["rows"])
    notes = "".join(f"<li>{escape(note)}</li>" for note in table["notes"])
    return (
        f'<div class="card scroll"><strong>{escape(table["title"])}</strong><table><tr>{head}</tr>{rows}</table>'
        f'<ul class="notes">{notes}</ul></div>'
    )
