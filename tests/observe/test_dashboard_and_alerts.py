"""The dashboard and the alert rules: their names are metrics, and Prometheus itself runs them on a real scrape."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import pytest
import yaml
from prometheus_client import CollectorRegistry, start_http_server

import nearcache.observe
from nearcache import NearCache
from nearcache.observe.metrics import METRICS
from nearcache.observe.prometheus import register
from nearcache.transport.embedded import HOST, EmbeddedServer, free_port
from tests.support.monitoring import NOT_RUN, PROMETHEUS, PROMTOOL
from tests.support.waiting import channel_name, redis_of

FOLDER = Path(nearcache.observe.__file__).parent
ALERTS = FOLDER / "alerts.yaml"
PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
RULES = [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]
QUERIES = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
NAMES = {metric.prometheus: {"namespace", *metric.labels} for metric in METRICS}
TARGET_LABELS = {"instance", "job"}
needs_prometheus = pytest.mark.skipif(bool(NOT_RUN), reason=NOT_RUN)

FIRING = {
    "NearCacheUnproven": {"nearcache_healthy": "0x30"},
    "NearCacheBreakerOpen": {"nearcache_breaker_open": "1x30"},
    "NearCacheDown": {"nearcache_healthy": "0x30", "nearcache_breaker_open": "1x30"},
    "NearCacheRefused": {"nearcache_refused_operations": "1x30"},
    "NearCacheJournal": {"nearcache_journal_entries": "5x30"},
    "NearCacheFlushes": {'nearcache_flushes_total{reason="gap"}': "0+1x200"},
    "NearCacheErrors": {'nearcache_l2_errors_total{code="timeout"}': "0+100x200"},
    "NearCacheLoadErrors": {"nearcache_load_errors_total": "0+20x200", "nearcache_loads_total": "0+100x200"},
    "NearCacheCorruptValues": {"nearcache_corrupt_values_total": "0 0 0 1x100"},
    "NearCacheUncachedValues": {"nearcache_uncached_values_total": "0+60x200"},
    "NearCacheChurn": {
        "nearcache_l1_evictions_total": "0+60x200",
        'nearcache_gets_total{result="l1_hit"}': "0+100x200",
        'nearcache_gets_total{result="l2_hit"}': "0+20x200",
    },
    "NearCacheStale": {"nearcache_audit_stale_total": "0 0 0 1x100"},
    "NearCacheMixedProtocols": {
        'nearcache_build_info{protocol="1"}': "1x200",
        'nearcache_build_info{protocol="2/1"}': "1x200",
    },
}
"""Series, a value a minute, at which each alert goes off."""


def test_each_expression_is_of_the_metrics() -> None:
    """Each name is a metric's, each label is one of its own; each panel has a title and a legend of its labels."""
    for expression in [*QUERIES, *(rule["expr"] for rule in RULES)]:
        names = set(re.findall(r"\bnearcache_\w+", expression))
        assert names
        assert names <= set(NAMES), expression
        labels = set().union(*(NAMES[name] for name in names)) | TARGET_LABELS
        used = {one.strip() for group in re.findall(r"by \(([^)]*)\)", expression) for one in group.split(",")}
        used |= set(re.findall(r"[{,](\w+)(?:=|!=|=~|!~)\"", expression))
        assert used <= labels, expression
    for panel in DASHBOARD["panels"]:
        assert panel["title"]
        for target in panel["targets"]:
            assert set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"])) <= set().union(*NAMES.values())


def test_each_metric_is_on_the_dashboard_and_each_alert_on_the_page() -> None:
    """Nothing is measured in vain; docs/operations.md has a section of each alert."""
    shown = {name for query in QUERIES for name in re.findall(r"\bnearcache_\w+", query)}
    assert shown == set(NAMES)
    for rule in RULES:
        assert f"\n### {rule['alert']}\n" in PAGE, rule["alert"]
    assert [rule["alert"] for rule in RULES] == list(FIRING)
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


@needs_prometheus
def test_each_alert_goes_off(tmp_path: Path) -> None:
    """Promtool takes the rules, each goes off at its series, and none at those of a cache that is well."""
    well = {"nearcache_healthy": "1x200", "nearcache_breaker_open": "0x200", "nearcache_loads_total": "0+100x200"}
    tests = []
    for alert, series in [*FIRING.items(), ("", well)]:
        given = [{"series": _labelled(name), "values": values} for name, values in series.items()]
        wanted = [{"expr": f'count(ALERTS{{alertstate="firing",alertname="{alert}"}}) > bool 0', "eval_time": "100m"}]
        if not alert:
            wanted = [{"expr": "count(ALERTS) or vector(0)", "eval_time": "100m"}]
        if alert and series[next(iter(series))].endswith("x30"):
            wanted[0]["eval_time"] = "20m"
        if alert in ("NearCacheCorruptValues", "NearCacheStale"):
            wanted[0]["eval_time"] = "10m"
        value = 1 if alert else 0
        expected = [{**one, "exp_samples": [{"labels": "{}", "value": value}]} for one in wanted]
        tests.append({"interval": "1m", "input_series": given, "promql_expr_test": expected})
    file = tmp_path / "tests.yaml"
    file.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}))
    for words in (["check", "rules", str(ALERTS)], ["test", "rules", str(file)]):
        done = subprocess.run([str(PROMTOOL), *words], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout + done.stderr


def _labelled(name: str) -> str:
    name, _, labels = name.partition("{")
    return f'{name}{{namespace="shop",instance="a"{"," + labels if labels else "}"}'


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[tuple[str, CollectorRegistry]]:
    """The address of a Prometheus that scrapes this process every 0.2 s, and the registry that it scrapes."""
    registry, port, own = CollectorRegistry(), free_port(), free_port()
    exporter, thread = start_http_server(port, HOST, registry)
    configuration = tmp_path / "prometheus.yml"
    scrape = {"job_name": "nearcache", "scrape_interval": "200ms", "scrape_timeout": "200ms"}
    scrape_configs = [{**scrape, "static_configs": [{"targets": [f"{HOST}:{port}"]}]}]
    configuration.write_text(yaml.safe_dump({"rule_files": [str(ALERTS)], "scrape_configs": scrape_configs}))
    options = [f"--config.file={configuration}", f"--storage.tsdb.path={tmp_path}/data"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(PROMETHEUS), *options, f"--web.listen-address={HOST}:{own}"], stdout=log, stderr=log
        )
    try:
        yield f"http://{HOST}:{own}", registry
    finally:
        process.kill()
        process.wait()
        exporter.shutdown()
        exporter.server_close()
        thread.join()


def queried(url: str, expression: str) -> list[Any]:
    """What Prometheus answers; nothing as long as it does not."""
    try:
        with urlopen(f"{url}/api/v1/query?{urlencode({'query': expression})}", timeout=10) as answer:
            told = json.load(answer)
    except (URLError, ConnectionError):
        return []
    assert told["status"] == "success", expression
    result: list[Any] = told["data"]["result"]
    return result


@needs_prometheus
@pytest.mark.one_server
def test_the_dashboard_shows_a_real_scrape(
    prometheus: tuple[str, CollectorRegistry], server: EmbeddedServer, namespace: str
) -> None:
    """Prometheus takes every query and every rule; those that have something to show show it."""
    url, registry = prometheus
    with NearCache.from_url(server.url, namespace=namespace) as cache:
        register(cache, registry)
        until = time.monotonic() + 30
        gets = f'increase(nearcache_gets_total{{namespace="{namespace}",result="l1_hit"}}[1m]) > 0'
        flushes = "sum(nearcache_flushes_total) > 0"
        with redis_of(server.url) as client:
            client.publish(channel_name(namespace), b"garbage")
        number = 0
        while not (queried(url, gets) and queried(url, flushes)):
            assert time.monotonic() < until
            number += 1
            for _ in range(2):
                cache.get_or_set(f"a:{number}", lambda: 1)
            time.sleep(0.1)
        empty = []
        for query in QUERIES:
            expression = query.replace("$namespace", namespace).replace("$__rate_interval", "1m")
            if not queried(url, expression):
                empty.append(query)
        assert all(re.search("== 0|== 1|> 0|l2_errors", query) for query in empty), empty
        for rule in RULES:
            queried(url, rule["expr"])
        with urlopen(f"{url}/api/v1/rules", timeout=10) as answer:
            (group,) = json.load(answer)["data"]["groups"]
        assert {rule["name"]: rule["health"] for rule in group["rules"]}.keys() == FIRING.keys()
        assert all(rule["health"] != "err" for rule in group["rules"])
