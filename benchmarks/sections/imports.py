"""What ``import nearcache`` costs beside ``import redis``: in fresh processes by turns, with ratios of neighbours."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile

from tests.support.report import Report
from tests.support.tables import Spread, Table

BUDGET = 1.3
PEER = "redis"
MODULES = (PEER, "nearcache")
_CODE = "import time; before = time.process_time(); import {}; print(time.process_time() - before)"


def show(report: Report) -> bool:
    """Measure, print and keep, against its budget."""
    rounds = 7 if report.quick else 31
    with tempfile.TemporaryDirectory() as compiled:
        for module in MODULES:
            _seconds(module, compiled)
        took = [{module: _seconds(module, compiled) for module in MODULES} for _ in range(rounds)]
    ratio = Spread.of([one["nearcache"] / one[PEER] for one in took])
    rows = []
    for module in MODULES:
        ms = Spread.of([one[module] * 1e3 for one in took])
        rows.append([f"import {module}", f"{ms.median:.0f}", ms.range(".0f")])
    note = f"Ratio, median of {rounds} pairs: {ratio.median:.2f} ({ratio.range()}). Processor time."
    report.budget("import nearcache", ratio, BUDGET, "×", "import redis")
    report.show(Table("Imports in fresh processes", ["", "ms", "least–greatest"], rows, [note]))
    report.keep("imports", {"rounds": took, "ratio": vars(ratio)})
    return True


def _seconds(module: str, compiled: str) -> float:
    """The time of the import in a new process, which keeps compiled code in this folder."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPYCACHEPREFIX"] = compiled
    command = [sys.executable, "-c", _CODE.format(module)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout)
