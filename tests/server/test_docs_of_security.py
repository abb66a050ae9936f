"""What docs/security.md says of rights, of forged records and of the embedded server is true of real servers."""

from __future__ import annotations

import re
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from nearcache import CoherenceFailed, ConfigError, NearCache, NearCacheWarning
from nearcache.events import Event
from nearcache.protocol.records import HEAD_BYTES
from nearcache.transport.embedded import EmbeddedServer
from tests.support.waiting import Heard, redis_of, value_name

PAGE = (Path(__file__).parents[2] / "docs" / "security.md").read_text()
(RIGHTS,) = re.findall(r"^ +(~\{shop:\*.*)$", PAGE, re.MULTILINE)


EACH = [right for right in RIGHTS.split() if right != "-@all"]


def user_with(server: EmbeddedServer, *rules: str) -> str:
    """The URL of a user with these rights."""
    with redis_of(server.url) as client:
        client.execute_command("ACL", "SETUSER", "app", "reset", "on", ">pw", *rules)
    return server.url.replace("//", "//app:pw@")


def test_the_rights_on_the_page_are_enough_and_reach_no_other_namespace(fresh_server: EmbeddedServer) -> None:
    """A user with them has L1 and every operation, and in another namespace nothing."""
    url = user_with(fresh_server, *RIGHTS.split())
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


@pytest.mark.parametrize("missing", EACH)
def test_each_right_on_the_page_is_needed(fresh_server: EmbeddedServer, missing: str) -> None:
    """A user without one of them, in a namespace that is new: what happens is what the table says."""
    url = user_with(fresh_server, *(right for right in RIGHTS.split() if right != missing))
    cache = NearCache.from_url(url, namespace="shop", reconnect_max=0.05)
    heard = Heard(cache)
    if missing == "+subscribe":
        with pytest.warns(NearCacheWarning, match="subscribe"):
            cache.__enter__()
        assert not cache.healthy
        assert "subscribe" in heard.of(CoherenceFailed)[0].reason
        cache.close()
    elif missing in ("+info", "+evalsha"):
        with cache:
            assert cache.healthy
            assert cache.set("a", 1)
            with redis_of(fresh_server.url) as client:
                assert missing[1:] in [entry["object"] for entry in client.acl_log()]
    else:
        words = {"~{shop:*": "access", "&{shop:*": "publish"}.get(missing, missing[1:])
        with pytest.raises(ConfigError, match=f"(?i){words}"), cache:
            pass
    with warnings.catch_warnings(), cache_in_use(url) as cache:
        warnings.simplefilter("ignore", NearCacheWarning)
        assert cache.get_or_set("b", lambda: 2) == 2
        wrote = cache.set("a", 1)
        if missing not in ("+subscribe", "+info", "+evalsha"):
            assert wrote is False
            assert cache.health().journal == 0 or missing in ("+time", "~{shop:*")


@contextmanager
def cache_in_use(url: str) -> Iterator[NearCache]:
    """Without `with`, which would raise."""
    cache = NearCache.from_url(url, namespace="shop", reconnect_max=0.05)
    try:
        yield cache
    finally:
        cache.close()


def test_another_database_needs_select(fresh_server: EmbeddedServer) -> None:
    """As the page says."""
    url = user_with(fresh_server, *RIGHTS.split()).removesuffix("/0") + "/1"
    with pytest.raises(ConfigError, match="select"), NearCache.from_url(url, namespace="shop"):
        pass
    user_with(fresh_server, *RIGHTS.split(), "+select")
    with NearCache.from_url(url, namespace="shop") as cache:
        assert cache.healthy
        assert cache.set("a", 1)


def test_a_record_does_not_contain_its_key_without_encryption(server: EmbeddedServer, namespace: str) -> None:
    """Somebody who may write to Redis can swap two values."""
    with NearCache.from_url(server.url, namespace=namespace) as cache, redis_of(server.url) as client:
        assert cache.set_many({"a": "of a", "b": "of b"})
        names = [value_name(namespace, key) for key in "ab"]
        first, second = client.mget(names)
        client.mset(dict(zip(names, (second, first), strict=True)))
        with NearCache.from_url(server.url, namespace=namespace) as reader:
            assert reader.get_many(["a", "b"]) == {"a": "of b", "b": "of a"}


def test_an_old_value_of_a_key_may_be_brought_back(server: EmbeddedServer, namespace: str) -> None:
    """Encryption does not tell it from a new one, behind the head of the new one; nor does it sign tags."""
    keys = [("1", bytes(32))]
    with (
        NearCache.from_url(server.url, namespace=namespace, encryption_keys=keys) as cache,
        redis_of(server.url) as client,
    ):
        name = value_name(namespace, "a")
        assert cache.set("a", "old")
        old = client.get(name)
        assert cache.set("a", "new")
        client.set(name, client.get(name)[:HEAD_BYTES] + old[HEAD_BYTES:])
        cache.clear_local()
        assert cache.get("a") == "old"


def test_the_example_of_encryption_runs() -> None:
    """As it stands on the page."""
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["cache"].settings.encryption_keys.first == "2026-02"


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "Europe/../../secret"])
def test_the_name_of_a_time_zone_leads_nowhere_else(name: str) -> None:
    """The standard library refuses names that lead out of its folders."""
    with pytest.raises(ValueError, match="ZoneInfo keys"):
        ZoneInfo(name)


def test_the_folder_of_the_embedded_server_is_its_owners(server: EmbeddedServer) -> None:
    """Nobody else can reach the Unix socket in it."""
    folder = Path(server.unix_url.removeprefix("unix://").partition("?")[0]).parent
    assert stat.S_IMODE(folder.stat().st_mode) == stat.S_IRWXU
