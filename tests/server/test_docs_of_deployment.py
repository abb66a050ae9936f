"""What docs/deployment.md says can be run is run: its Compose file, its URLs, and its links."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from nearcache import NearCache
from nearcache.cli.doctor.command import diagnose
from nearcache.transport.embedded import EmbeddedServer
from tests.support import servers

PAGE = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text()
(COMPOSE,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
SERVICES: Any = yaml.safe_load(COMPOSE)["services"]


def configuration() -> dict[str, str]:
    """The options of the server, as lines of its configuration file."""
    program, *words = shlex.split(SERVICES["cache"]["command"])
    assert program == "valkey-server"
    names = words[::2]
    assert all(name.startswith("--") for name in names)
    return {name[2:]: value or '""' for name, value in zip(names, words[1::2], strict=True)}


@pytest.mark.parametrize("kind", servers.KINDS)
def test_the_server_of_the_compose_file_is_good(kind: str) -> None:
    """It starts with these options, and doctor finds nothing to mend."""
    with EmbeddedServer(binary=servers.REDIS if kind == "redis" else None, config=configuration()) as server:
        report = diagnose(server.url, "shop")
        assert [one for one in report.findings if one.level != "note"] == []
        assert report.server is not None
        assert (report.server.info or {})["maxmemory_policy"] == "volatile-lru"


def test_the_settings_of_the_compose_file_are_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """from_env takes them."""
    environment = SERVICES["app"]["environment"]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    cache = NearCache.from_env()
    assert cache.url == environment["NEARCACHE_URL"]
    assert (cache.settings.namespace, cache.settings.ttl) == ("shop", 300)


@pytest.mark.parametrize("url", re.findall(r"^    (rediss?\+sentinel://\S+)$", PAGE, re.MULTILINE))
def test_the_urls_of_sentinel_are_taken(url: str) -> None:
    """Each example."""
    assert "/main/0" in NearCache.from_url(url, namespace="shop").url
