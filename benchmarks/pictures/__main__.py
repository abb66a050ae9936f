"""Draw the pictures: ``python -m benchmarks.pictures [--out DIR] [name ...]``, all by default."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from benchmarks.pictures import concepts, dropped

PICTURES: dict[str, Callable[[Path], bool]] = {**concepts.PICTURES, "dropped": dropped.draw}
"""Each draws itself into a file, and returns whether the run was as the text beside it says."""


def main() -> int:
    """Draw what was asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.pictures", description=(__doc__ or "").split("\n", 1)[0]
    )
    parser.add_argument("names", nargs="*", metavar="name", choices=[*PICTURES, []], help=f"of {', '.join(PICTURES)}")
    parser.add_argument("--out", type=Path, default=Path("docs/img"), help="the folder; docs/img by default")
    asked = parser.parse_args()
    right = [PICTURES[name](asked.out / f"{name}.svg") for name in asked.names or PICTURES]
    return 0 if all(right) else 1


if __name__ == "__main__":
    raise SystemExit(main())
