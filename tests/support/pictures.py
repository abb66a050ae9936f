"""Draws the pictures of docs/operations.md: ``python -m tests.support.pictures``, or with ``top`` or ``dashboard``.

The dashboard needs matplotlib, which `make bench` installs, and Debian's prometheus.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

from tests.support import dashboard_of_four, fleet_of_four
from tests.support.monitoring import NOT_RUN

IMAGES = Path(__file__).parents[2] / "docs" / "img"


def main(wanted: list[str]) -> None:
    """Draw them."""
    if "top" in wanted:
        (IMAGES / "top.svg").write_text(fleet_of_four.picture())
    if "dashboard" in wanted:
        missing = NOT_RUN or ("" if find_spec("matplotlib") else "matplotlib is not installed")
        if missing:
            sys.stdout.write(f"NOT RUN: {missing}\n")
        else:
            (IMAGES / "dashboard.png").write_bytes(dashboard_of_four.picture())


if __name__ == "__main__":
    main(sys.argv[1:] or ["top", "dashboard"])
