"""What docs/security.md says of rights, of forged records and of the embedded server is true of real servers."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from nearcache import ConfigError, NearCache
from nearcache.events import Event
from nearcache.transport.embedded import EmbeddedServer
from tests.support.waiting import redis_of, value_name

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
(RIGHTS,) = re.findall(r"^ +(~\{shop:\*.*)$", PAGE, re.MULTILINE)


def test_the_rights_on_the_page_are_enough_and_reach_no_other_namespace(fresh_server: EmbeddedServer) -> None:
    """A user with them has L1 and every operation, and in another namespace nothing."""
    with redis_of(fresh_server.url) as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", *RIGHTS.split())
    url = fresh_server.url.replace("//", "//app:pw@")
    heard: list[Event] = []
    with NearCache.from_url(url, namespace="shop") as cache:
        cache.on_event(heard.append)
        assert cache.wait_healthy(5)
        assert cache.set("a", 1, tags=["t"])
        assert cache.set("a", 2, tags=["t"])
        assert cache.set_many({"b": 1, "c": 2})
        assert cache.get_many(["a", "b"]) == {"a": 2, "b": 1}
        assert cache.mark_stale("a")
        assert cache.get_or_set("a", lambda: 3, tags=["t"]) == 3
        assert cache.invalidate_tags("t")
        assert cache.delete("b", hold=0.1)
        assert cache.clear()
        assert cache.stats().l2_errors == 0
        assert not heard
    with (
        pytest.raises(ConfigError, match="has the rights"),
        NearCache.from_url(url, namespace="shop2"),
    ):
        pass
    other = NearCache.from_url(url, namespace="shop2")
    assert other.set("a", 1) is False
    assert not other.healthy
    other.close()


def test_a_record_does_not_contain_its_key(server: EmbeddedServer, namespace: str) -> None:
    """Somebody who may write to Redis can swap two values."""
    with NearCache.from_url(server.url, namespace=namespace) as cache, redis_of(server.url) as client:
        assert cache.set_many({"a": "of a", "b": "of b"})
        names = [value_name(namespace, key) for key in "ab"]
        first, second = client.mget(names)
        client.mset(dict(zip(names, (second, first), strict=True)))
        with NearCache.from_url(server.url, namespace=namespace) as reader:
            assert reader.get_many(["a", "b"]) == {"a": "of b", "b": "of a"}


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "Europe/../../secret"])
def test_the_name_of_a_time_zone_leads_nowhere_else(name: str) -> None:
    """The standard library refuses names that lead out of its folders."""
    with pytest.raises(ValueError, match="ZoneInfo keys"):
        ZoneInfo(name)


def test_the_folder_of_the_embedded_server_is_its_owners(server: EmbeddedServer) -> None:
    """Nobody else can reach the Unix socket in it."""
    folder = Path(server.unix_url.removeprefix("unix://").partition("?")[0]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IRWXU
