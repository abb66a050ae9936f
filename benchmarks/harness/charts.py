"""Draws the charts of a report with matplotlib, as SVG for the page and PNG for the docs.

All of them look alike: ours in colour and peers in grey, names beside what they name instead of a legend, as few lines
as can be. What is drawn comes from the JSON of a report alone.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.tables import duration, figure

INK, FAINT, RULE, PEER = "#1f2733", "#6b7685", "#e3e7ec", "#b3bcc7"
OURS = ("#0b7a75", "#e07a1f", "#4457a5", "#a33b6f", "#7a8b1c", "#2b2d42")
PEERS = ("#8a95a3", "#a9977f", "#9fb0a0", "#b59fb0")
WIDTH = 8.6
"""Inches."""
STYLE: dict[str, Any] = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.labelcolor": FAINT,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",  # text stays text: small, and it can be searched and selected
    "svg.hashsalt": "nearcache",
    "figure.facecolor": "white",
}
Points = Sequence[Sequence[Any]]


def svg(chart: Mapping[str, Any]) -> str:
    """The chart as an <svg> element."""
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context(STYLE):  # it is asked for when a figure is written, too
        draw(chart).savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    text = buffer.getvalue()
    element = text[text.index("<svg") :]
    # Several charts stand in one document, where ids have to differ; and the width is the page's.
    element = re.sub(r'(id="|href="#|url\(#)', lambda found: f"{found[1]}{chart['name']}-", element)
    return re.sub(r'<svg (.*?)width="[^"]*"(.*?)height="[^"]*"', r"<svg \1\2", element, count=1, flags=re.DOTALL)


def png(chart: Mapping[str, Any], folder: Path) -> Path:
    """The chart as a file of its name in a folder, which is made if need be."""
    path = _path(chart, folder, "png")
    draw(chart).savefig(path, format="png", dpi=160, metadata={"Software": None})
    return path


def svg_file(chart: Mapping[str, Any], folder: Path) -> Path:
    """As ``png``, of the other form: a fraction of the bytes, and sharp at any size."""
    import matplotlib as mpl

    path = _path(chart, folder, "svg")
    with mpl.rc_context(STYLE):
        draw(chart).savefig(path, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return path


def _path(chart: Mapping[str, Any], folder: Path, form: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{chart['name']}.{form}"


def draw(chart: Mapping[str, Any]) -> Any:
    """The chart as matplotlib's Figure."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        bars = chart["kind"] == "bars"
        height = 0.34 * len(chart["series"]) + 1.0 if bars else 4.4
        made = Figure(figsize=(WIDTH, height))
        axes = made.add_subplot()
        (_bars if bars else _lines)(axes, chart)
        size = 12.5 * min(1.0, 76 / len(chart["title"]))
        made.text(0.012, 1 - 0.24 / height, chart["title"], size=size, weight="bold", va="center")
        made.text(0.012, 1 - 0.52 / height, chart["subtitle"], size=9, color=FAINT, va="center")
        left = 0.02 + 0.0108 * max(map(len, chart["series"])) if bars else 0.095
        bottom, right = (0.06, 0.9) if bars else (0.62, 0.76)
        made.subplots_adjust(left=min(left, 0.45), right=right, top=1 - 0.78 / height, bottom=bottom / height)
    return made


def written(value: float, unit: str) -> str:
    """A figure with its unit.

    >>> written(1234.0, "ns"), written(262.4, "bytes"), written(1_400_000.0, "reads a second")
    ('1.23 µs', '262', '1.40 M')
    """
    if unit == "ns":
        return duration(value)
    for size, letter in ((1e6, " M"), (1e3, " k")):
        if abs(value) >= 10 * size or (abs(value) >= size and letter == " M"):
            return f"{figure(value / size)}{letter}"
    return figure(value)


def _bars(axes: Any, chart: Mapping[str, Any]) -> None:
    """One bar below the other, the figure at its end."""
    names = list(chart["series"])
    points = [chart["series"][name][0] for name in names]
    values = [float(point[1]) for point in points]
    colours = {name: OURS[number % len(OURS)] for number, name in enumerate(chart["ours"])}
    places = range(len(names))
    start = 10 ** math.floor(math.log10(min(values)) - 0.15) if chart["log"] else 0
    lengths = [value - start for value in values]
    axes.barh(places, lengths, left=start, height=0.62, color=[colours.get(name, PEER) for name in names])
    if chart["log"]:
        axes.set_xscale("log")
        axes.set_xlim(start, max(values) * 1.6)
    for place, (name, point, value) in enumerate(zip(names, points, values, strict=True)):
        end = value
        if len(point) > 3:
            axes.plot(point[2:4], [place, place], color=INK, linewidth=1, alpha=0.55, solid_capstyle="butt")
            end = max(value, float(point[3]))
        weight = "bold" if name in colours else "normal"
        axes.annotate(
            written(value, chart["unit"]),
            (end, place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            weight=weight,
            color=colours.get(name, INK),
        )
    axes.set_yticks(list(places), names)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_color(colours.get(name, INK))
        label.set_weight("bold" if name in colours else "normal")
    axes.invert_yaxis()
    axes.tick_params(axis="both", length=0)
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)


def _lines(axes: Any, chart: Mapping[str, Any]) -> None:
    """Lines, each with its name at its end."""
    from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

    ends: list[tuple[float, str, str]] = []
    colours = _colours(chart)
    for name, points in chart["series"].items():
        across, up = [float(point[0]) for point in points], [float(point[1]) for point in points]
        look = {"linewidth": 2.2, "zorder": 3} if name in chart["ours"] else {"linewidth": 1.6, "zorder": 2}
        axes.plot(across, up, color=colours[name], marker="o", markersize=4, **look)
        if all(len(point) > 3 for point in points):
            lower, upper = ([float(point[at]) for point in points] for at in (2, 3))
            axes.fill_between(across, lower, upper, color=colours[name], alpha=0.13, linewidth=0)
        ends.append((up[-1], name, colours[name]))
    if chart["log"]:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    if chart["log_x"]:
        axes.set_xscale("log")
    ticks = sorted({float(point[0]) for points in chart["series"].values() for point in points})
    ticks = ticks[:: max(1, len(ticks) // 8)]
    axes.set_xticks(ticks, [_count(tick) for tick in ticks])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: written(value, chart["unit"])))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.tick_params(axis="both", which="both", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(chart["axis"])
    if chart["unit"] != "ns":
        axes.set_ylabel(chart["unit"])
    _name_ends(axes, ends, ticks[-1])


def _colours(chart: Mapping[str, Any]) -> dict[str, str]:
    ours = [name for name in chart["ours"] if name in chart["series"]]
    peers = [name for name in chart["series"] if name not in chart["ours"]]
    return {name: OURS[number % len(OURS)] for number, name in enumerate(ours)} | {
        name: PEERS[number % len(PEERS)] for number, name in enumerate(peers)
    }


def _name_ends(axes: Any, ends: Sequence[tuple[float, str, str]], last: float) -> None:
    """Write the names beside the ends of their lines, moved apart where they would touch."""
    least = 0.052
    place = axes.transAxes.inverted().transform
    wanted = sorted((float(place(axes.transData.transform((last, up)))[1]), name, colour) for up, name, colour in ends)
    lowest = -math.inf
    heights = []
    for height, _, _ in wanted:
        lowest = max(height, lowest + least)
        heights.append(lowest)
    ceiling = 1.0
    for at in reversed(range(len(heights))):  # a pile at the top moves down
        heights[at] = min(heights[at], ceiling)
        ceiling = heights[at] - least
    for (_, name, colour), height in zip(wanted, heights, strict=True):
        axes.text(1.015, height, name, transform=axes.transAxes, color=colour, va="center", weight="bold", size=9)


def _count(number: float) -> str:
    """The number of a tick, short.

    >>> [_count(number) for number in (16, 1_000, 100_000, 1_000_000)]
    ['16', '1k', '100k', '1M']
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"
