"""Draws docs/img/top.svg from four instances that work: ``python -m tests.support.pictures``."""

from __future__ import annotations

from pathlib import Path

from tests.support import fleet_of_four

IMAGES = Path(__file__).parents[2] / "docs" / "img"

if __name__ == "__main__":
    (IMAGES / "top.svg").write_text(fleet_of_four.picture())
