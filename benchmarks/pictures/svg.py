"""A drawing as SVG: text, boxes, bars and arrows on a light card, which reads on a light and on a dark page."""

from __future__ import annotations

from html import escape
from pathlib import Path

INK, GREY, LINE, PAPER = "#1f2933", "#5f6c7b", "#c9d1d9", "#ffffff"
GOOD, GOOD_SOFT, BAD, WARM, COOL = "#1a7f5a", "#d7efe4", "#c8372d", "#e0a030", "#2f6fb5"
FONT = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif"


class Drawing:
    """Shapes in the order in which they are drawn; coordinates are pixels of a card that scales to the page.

    Args:
        width: of the card.
        height: of the card.
        title: what a reader who does not see the picture is told.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self.width, self.height, self.title = width, height, title
        self._parts: list[str] = []

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: int = 14,
        fill: str = INK,
        anchor: str = "start",
        bold: bool = False,
    ) -> None:
        """A line of text; ``y`` is its base line."""
        weight = ' font-weight="600"' if bold else ""
        self._parts.append(
            f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}" text-anchor="{anchor}"{weight}>'
            f"{escape(text)}</text>"
        )

    def bar(self, x: float, y: float, width: float, height: float, fill: str, *, stroke: str = "none") -> None:
        """A rectangle with round corners."""
        round_ = min(4.0, width / 2, height / 2)
        self._parts.append(
            f'<rect x="{x:.1f}" y="{y:g}" width="{max(width, 0):.1f}" height="{height:g}" rx="{round_:.1f}" '
            f'fill="{fill}" stroke="{stroke}"/>'
        )

    def box(self, x: float, y: float, width: float, height: float, lines: list[str], fill: str = "#f4f6f8") -> None:
        """A named box; the first line is its name."""
        self.bar(x, y, width, height, fill, stroke=LINE)
        top = y + height / 2 - 9 * (len(lines) - 1) + 5
        for number, line in enumerate(lines):
            first = number == 0
            self.text(
                x + width / 2,
                top + 18 * number,
                line,
                size=14 if first else 12,
                fill=INK if first else GREY,
                anchor="middle",
                bold=first,
            )

    def line(self, x: float, y: float, x2: float, y2: float, *, stroke: str = GREY, dash: str = "") -> None:
        """A thin line, dashed where ``dash`` says how."""
        more = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(f'<path d="M{x:.1f} {y:g}L{x2:.1f} {y2:g}" stroke="{stroke}" fill="none"{more}/>')

    def arrow(self, x: float, y: float, x2: float, y2: float, *, stroke: str = GREY, dash: str = "") -> None:
        """A line that ends in an arrow head."""
        more = f' stroke-dasharray="{dash}"' if dash else ""
        self._parts.append(
            f'<path d="M{x:.1f} {y:g}L{x2:.1f} {y2:g}" stroke="{stroke}" stroke-width="1.5" fill="none" '
            f'marker-end="url(#head)"{more}/>'
        )

    def axis(self, left: float, right: float, y: float, marks: dict[float, str]) -> None:
        """A line with named marks, by their x."""
        self.line(left, y, right, y, stroke=LINE)
        for x, name in marks.items():
            self.line(x, y, x, y + 5)
            self.text(x, y + 19, name, size=12, fill=GREY, anchor="middle")

    def legend(self, x: float, y: float, entries: dict[str, str]) -> None:
        """Colours and what they mean, in a row."""
        for fill, name in entries.items():
            self.bar(x, y - 10, 14, 12, fill)
            self.text(x + 20, y, name, size=12, fill=GREY)
            x += 34 + 6.4 * len(name)

    def write(self, path: Path) -> None:
        """Write the file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" '
            f'width="{self.width}" height="{self.height}" role="img" font-family="{FONT}">\n'
            f"<title>{escape(self.title)}</title>\n"
            '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" '
            f'orient="auto-start-reverse"><path d="M0 0L8 4L0 8z" fill="{GREY}"/></marker></defs>\n'
            f'<rect x="0.5" y="0.5" width="{self.width - 1}" height="{self.height - 1}" rx="8" fill="{PAPER}" '
            f'stroke="{LINE}"/>'
        )
        path.write_text("\n".join([head, *self._parts, "</svg>\n"]))
