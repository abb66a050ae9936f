"""Debian's Prometheus, where it is installed: to run alert rules and queries of the dashboard on a real scrape."""

from __future__ import annotations

import shutil

PROMTOOL = shutil.which("promtool")
PROMETHEUS = shutil.which("prometheus")

NOT_RUN = (
    ""
    if PROMTOOL and PROMETHEUS
    else "the alert rules and the dashboard's queries on a real scrape: prometheus is not on the PATH "
    "(apt-get install --no-install-recommends prometheus)"
)
"""What is left out here, and why; told at the end of a run."""
