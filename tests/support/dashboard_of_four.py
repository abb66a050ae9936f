"""The Grafana dashboard of four instances on a cluster, drawn from what a Prometheus has scraped of them."""

from __future__ import annotations

import io
import json
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from redis.crc import key_slot

import nearcache.observe
from nearcache import NearCache
from nearcache.protocol.names import Names
from nearcache.transport.embedded import HOST, free_port
from tests.support.clusters import LocalCluster
from tests.support.fleet_of_four import INSTANCES, NAMESPACE, Shop
from tests.support.monitoring import PROMETHEUS
from tests.support.processes import Crew, serve

DASHBOARD = json.loads((Path(nearcache.observe.__file__).parent / "dashboard.json").read_text())
STEP, RATE = 1.0, "10s"
COLOURS = ("#0b7a75", "#e07a1f", "#4457a5", "#a33b6f", "#7a8b1c", "#2b2d42")
UNITS = {"percentunit": (100, "%"), "s": (1000, "ms"), "bytes": (1 / 1024, "KiB")}
"""What a unit of Grafana is shown as."""


async def attend(url: str, name: str, settings: dict[str, Any], port: int, pipe: Connection) -> None:
    """Run one instance, with its metrics at a port."""
    from prometheus_client import start_http_server  # in the process alone

    from nearcache.observe.prometheus import register  # as above

    start_http_server(port, HOST)
    with NearCache.from_url(url, namespace=NAMESPACE, audit_fraction=0.01, **settings) as cache:
        register(cache)
        await serve(pipe, Shop(cache, name))


@contextmanager
def prometheus(ports: Sequence[int]) -> Iterator[str]:
    """The address of a Prometheus that scrapes these ports every second."""
    own = free_port()
    with TemporaryDirectory() as folder:
        targets = [f"{HOST}:{port}" for port in ports]
        scrape = {"job_name": "shop", "scrape_interval": "1s", "static_configs": [{"targets": targets}]}
        configuration = Path(folder) / "prometheus.yml"
        configuration.write_text(json.dumps({"scrape_configs": [scrape]}))  # JSON is YAML
        options = [f"--config.file={configuration}", f"--storage.tsdb.path={folder}/data"]
        with (Path(folder) / "log").open("wb") as log:
            command = [str(PROMETHEUS), *options, f"--web.listen-address={HOST}:{own}"]
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield f"http://{HOST}:{own}"
        finally:
            process.kill()
            process.wait()


def worked(seconds: float) -> tuple[list[tuple[dict[str, Any], list[Any]]], float]:
    """Each panel with its series after so many seconds of work; and when the work began.

    A primary stands still for a while; then a foreign message makes every L1 flush one bucket, whose counter is lost at
    last.
    """
    with LocalCluster("valkey") as cluster:
        ports = {name: free_port() for name in INSTANCES}
        arguments = {name: (cluster.url, name, settings, ports[name]) for name, settings in INSTANCES.items()}
        with Crew(attend, arguments) as crew, prometheus(list(ports.values())) as url:
            begun = time.time()
            crew.tell("work", seconds)
            names = Names(NAMESPACE)
            node = cluster.owner(key_slot(names.counters))
            time.sleep(seconds / 4)
            node.server.pause()
            time.sleep(seconds / 12)
            node.server.resume()
            time.sleep(seconds / 6)
            node("SPUBLISH", names.channel, b"garbage")
            time.sleep(seconds / 6)
            node("DEL", names.counters)
            crew.answers()
            return [(panel, list(_series(url, panel, begun, time.time()))) for panel in DASHBOARD["panels"]], begun


def _series(url: str, panel: Mapping[str, Any], start: float, end: float) -> Iterator[tuple[str, list[Any]]]:
    for target in panel["targets"]:
        query = target["expr"].replace("$namespace", NAMESPACE).replace("$__rate_interval", RATE)
        asked = urlencode({"query": query, "start": start, "end": end, "step": STEP})
        with urlopen(f"{url}/api/v1/query_range?{asked}", timeout=10) as answer:
            told = json.load(answer)
        for result in told["data"]["result"]:
            legend = target["legendFormat"]
            for label, value in result["metric"].items():
                legend = legend.replace(f"{{{{{label}}}}}", value)
            yield legend, result["values"]


def picture(seconds: float = 60.0) -> bytes:
    """The dashboard as PNG."""
    from matplotlib.figure import Figure  # only here, as for the charts of benchmarks

    panels, begun = worked(seconds)
    rows = 1 + max(panel["gridPos"]["y"] for panel, _ in panels) // 8
    figure = Figure(figsize=(15, 2.3 * rows), dpi=90, layout="constrained", facecolor="#f4f6f8")
    for panel, series in panels:
        place = panel["gridPos"]
        plot = figure.add_subplot(rows, 3, 1 + 3 * (place["y"] // 8) + place["x"] // 8)
        factor, unit = UNITS.get(panel["fieldConfig"]["defaults"]["unit"], (1, ""))
        for number, (legend, values) in enumerate(series):
            times, heights = [at - begun for at, _ in values], [factor * float(value) for _, value in values]
            plot.plot(times, heights, color=COLOURS[number % len(COLOURS)], linewidth=1.4, label=legend)
        plot.set_title(panel["title"] + (f", {unit}" if unit else ""), fontsize=9, loc="left")
        plot.set_xlim(0, seconds)
        plot.set_ylim(0, 1.3 * plot.get_ylim()[1])  # with room for the legend
        plot.tick_params(labelsize=7)
        plot.grid(color="#e3e7ec", linewidth=0.6)
        if series:
            plot.legend(fontsize=6.5, frameon=False, loc="upper left")
        else:
            plot.text(seconds / 2, 0.5, "nothing to show", ha="center", va="center", fontsize=8, color="#6b7685")
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png")
    return drawn.getvalue()
