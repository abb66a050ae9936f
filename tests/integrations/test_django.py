"""The backend for Django's CACHES, beyond what Django's own tests ask: one L1, responses, counters, commits."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.cookies import CookieError
from typing import Any

import django
import pytest
from asgiref.sync import sync_to_async
from django import http
from django.conf import settings
from django.core.cache import caches
from django.core.cache.backends.base import InvalidCacheBackendError
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import request_finished
from django.db import connection, transaction
from django.template import engines
from django.template.response import SimpleTemplateResponse
from django.test import override_settings
from django.utils.safestring import SafeString, mark_safe

from nearcache import CodecError, ConfigError, InvalidKey, NearCache
from nearcache.integrations.django import DjangoCodec, NearCacheBackend, PickleCodec, invalidate_on_commit
from nearcache.integrations.django import backend as module
from nearcache.testing import FakeServer
from nearcache.transport.embedded import EmbeddedServer

BACKEND = "nearcache.integrations.django.NearCacheBackend"

if not settings.configured:
    settings.configure(
        SECRET_KEY="for tests",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    )
    django.setup()


def config(url: str, namespace: str, **options: Any) -> dict[str, Any]:
    """The entry of an alias."""
    return {"BACKEND": BACKEND, "LOCATION": url, "OPTIONS": {"namespace": namespace, **options}}


@pytest.fixture
def backend(valkey: EmbeddedServer, namespace: str) -> Iterator[NearCacheBackend]:
    """The default alias; another one, "short", has a prefix and a timeout of its own."""
    entry = config(valkey.url, namespace)
    with override_settings(CACHES={"default": entry, "short": {**entry, "KEY_PREFIX": "s", "TIMEOUT": 5}}):
        own = caches["default"]
        own.near.wait_healthy(5)
        yield own
        own.near.close()


def test_every_alias_and_thread_has_the_same_cache(backend: NearCacheBackend) -> None:
    """Django makes a backend for each of them."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.extend((caches["default"], caches["short"])))
    thread.start()
    thread.join()
    assert found[0] is not backend
    assert {each.near for each in found} == {backend.near}
    backend.set("a", 1)
    assert caches["short"].get("a") is None
    assert found[0].get("a") == 1


def test_the_end_of_a_request_closes_nothing(backend: NearCacheBackend) -> None:
    """L1 would be empty at each request."""
    backend.set("a", 1)
    backend.close()
    request_finished.send(None)
    assert backend.near.peek(backend.make_key("a")) == 1


async def test_set_and_aget_agree_each_way(backend: NearCacheBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a hit of L1 costs no thread."""
    await sync_to_async(backend.set)("a", 1)
    await backend.aset("b", 2)
    assert await sync_to_async(backend.get)("b") == 2
    with monkeypatch.context() as patched:
        patched.setattr(module, "sync_to_async", None)
        assert await backend.aget("a") == 1
        assert await backend.aget_many(["a", "b"]) == {"a": 1, "b": 2}
        assert await backend.aget_or_set("a", lambda: 3) == 1
        assert await backend.ahas_key("a")
    assert backend.near.stats().l1_hits >= 5
    await sync_to_async(backend.delete)("a")
    assert await backend.aget("a", "gone") == "gone"
    await backend.adelete("b")
    assert await sync_to_async(backend.get)("b") is None


async def test_each_asynchronous_method(backend: NearCacheBackend) -> None:
    """As its twin, by one question each."""
    assert await backend.aadd("a", 1) is True
    assert await backend.aadd("a", 2) is False
    assert await backend.aincr("a", 5) == 6
    assert await backend.adecr("a") == 5
    assert await backend.atouch("a", 30) is True
    assert await backend.aset_many({"b": 2, "c": 3}, 30) == []
    assert await backend.aget_many(["b", "c", "d"]) == {"b": 2, "c": 3}
    await backend.adelete_many(["b", "c"])
    assert await backend.aget_many(["b", "c"]) == {}
    assert await backend.aget_or_set("e", lambda: 4) == 4
    assert await backend.aincr_version("e") == 2
    await backend.aclear()
    assert await backend.aget("a") is None


def test_timeouts(backend: NearCacheBackend) -> None:
    """Exact; None is for ever, 0 and less not at all; the alias has a default."""

    def left(key: str, cache: Any = backend) -> float:
        found: float = cache.near.explain(cache.make_key(key)).remaining
        return found

    backend.set("a", 1)
    assert 299 < left("a") <= 300
    backend.set("a", 1, None)
    assert left("a") > 9 * 365 * 86400
    caches["short"].set("a", 1)
    assert 4 < left("a", caches["short"]) <= 5
    assert backend.touch("a", 20)
    assert 19 < left("a") <= 20
    for timeout in (0, -1):
        backend.set("a", 1)
        backend.set("a", 2, timeout)
        assert backend.get("a") is None
        assert backend.add("a", 2, timeout) is True
        assert backend.get_or_set("a", lambda: 3, timeout) == 3
        assert backend.get("a") is None
        backend.set("a", 1)
        assert backend.add("a", 2, timeout) is False
        assert backend.touch("a", timeout) is True
        assert backend.get("a") is None


def test_get_or_set_loads_once(backend: NearCacheBackend) -> None:
    """Django's own would call each of them."""
    loads: list[int] = []
    ready = threading.Barrier(8)

    def load() -> int:
        loads.append(1)
        return 42

    def ask(_number: int) -> Any:
        ready.wait()
        return caches["default"].get_or_set("a", load)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {42}
    assert len(loads) == 1


def test_a_number_that_was_set_can_be_counted(backend: NearCacheBackend) -> None:
    """Its timeout stays; nothing is lost once it counts; other types are refused."""
    assert backend.add("n", 0, 50) is True
    assert backend.incr("n") == 1
    left = backend.near.explain(backend.make_key("n")).remaining
    assert left is not None
    assert 48 < left <= 50
    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(lambda _: caches["default"].incr("n"), range(40))) == list(range(2, 42))
    assert backend.get("n") == 41
    with pytest.raises(ValueError, match="not found"):
        backend.incr("absent")
    for wrong in ("text", True, 1.5):
        backend.set("n", wrong)
        with pytest.raises(TypeError, match="no int"):
            backend.incr("n")


def test_nothing_is_lost_while_a_number_becomes_a_counter(backend: NearCacheBackend) -> None:
    """Many call incr first, at the same time."""
    ready = threading.Barrier(8)

    def count(key: str) -> int:
        ready.wait()
        return int(caches["default"].incr(key))

    with ThreadPoolExecutor(8) as pool:
        for turn in range(10):
            backend.set(f"n{turn}", 100)
            assert sorted(pool.map(count, [f"n{turn}"] * 8)) == list(range(101, 109))


def test_values_may_carry_tags(backend: NearCacheBackend) -> None:
    """Beyond what Django's interface has."""
    backend.set("a", 1, tags=["t"])
    backend.get_or_set("b", lambda: 2, tags=["t"])
    backend.add("c", 3, tags=["t"])
    backend.near.invalidate_tags("t")
    assert backend.get_many(["a", "b", "c"]) == {}


# ----------------------------------------------------------------------------------------------------- the codec


def made_response() -> http.HttpResponse:
    """With all that is sent of a response."""
    response = http.HttpResponse("Grüße", status=203, reason="Odd", charset="latin-1", headers={"X-A": "1"})
    response.set_cookie("c", "v;1", max_age=5, samesite="Lax", httponly=True)
    return response


RESPONSES = {
    "all": made_response(),
    "json": http.JsonResponse({"a": 1}),
    "redirect": http.HttpResponseRedirect("/there"),
    "not modified": http.HttpResponseNotModified(),
    "not allowed": http.HttpResponseNotAllowed(["GET"]),
    "not found": http.HttpResponseNotFound(b"\xff"),
}


@pytest.mark.parametrize("response", RESPONSES.values(), ids=RESPONSES)
def test_a_response_comes_back_as_it_was_sent(response: Any, backend: NearCacheBackend) -> None:
    """Without pickle; a new one for each hit."""
    backend.set("a", response)
    for _ in range(2):
        back = backend.get("a")
        assert back.serialize() == response.serialize()
        assert back.cookies.output() == response.cookies.output()
        assert (back.status_code, back.reason_phrase, back.charset) == (
            response.status_code,
            response.reason_phrase,
            response.charset,
        )
        assert type(back) is (http.HttpResponse if isinstance(response, http.JsonResponse) else type(response))
        back["X-B"] = "a middleware's"


def test_a_template_response_once_it_is_rendered(backend: NearCacheBackend) -> None:
    """Before that there is nothing to keep; a stream is nothing to keep at any time."""
    response = SimpleTemplateResponse(engines["django"].from_string("Hello"))
    with pytest.raises(CodecError, match="not rendered"):
        backend.set("a", response)
    backend.set("a", response.render())
    assert backend.get("a").content == b"Hello"
    with pytest.raises(CodecError):
        backend.set("a", http.StreamingHttpResponse(["a"]))


def test_markup_stays_safe(backend: NearCacheBackend) -> None:
    """A fragment that came back as plain text would be escaped; and text must not become markup."""
    backend.set_many({"safe": mark_safe("<b>"), "text": "<b>"})
    backend.near.clear_local()
    assert type(backend.get("safe")) is SafeString
    assert type(backend.get("text")) is str


def test_damaged_bytes_are_a_codec_error() -> None:
    """And so a miss."""
    codec = DjangoCodec()
    for value in (made_response(), mark_safe("<b>")):
        data = codec.encode(value)
        for at in range(len(data)):
            for byte in (0, data[at] ^ 1, 255):
                try:
                    codec.decode(data[:at] + bytes([byte]) + data[at + 1 :])
                except CodecError:
                    continue
                except CookieError as error:
                    pytest.fail(repr(error))
    with pytest.raises(CodecError):
        PickleCodec().decode(b"x")


def test_pickle_is_asked_for_by_name(valkey: EmbeddedServer, namespace: str) -> None:
    """With a new object for each hit, and no other way."""
    with override_settings(
        CACHES={"default": config(valkey.url, namespace, codec="nearcache.integrations.django.PickleCodec")}
    ):
        near = caches["default"].near
        assert near.settings.codec == PickleCodec()
        assert near.settings.copy == "serialized"
        caches["default"].set("a", {1, 2}.union)
        near.close()
    with (
        override_settings(CACHES={"default": config(valkey.url, namespace, codec=PickleCodec(), copy="none")}),
        pytest.raises(ImproperlyConfigured, match="serialized"),
    ):
        _ = caches["default"]


@pytest.mark.parametrize(
    ("entry", "error", "message"),
    [
        ({"LOCATION": ""}, ImproperlyConfigured, "one URL"),
        ({"LOCATION": ["redis://a", "redis://b"]}, ImproperlyConfigured, "one URL"),
        ({"LOCATION": "memory://", "OPTIONS": {"nonsense": 1}}, ConfigError, "nonsense"),
        ({"LOCATION": "memory://", "OPTIONS": {"namespace": "b", "codec": "no.such"}}, ImportError, "no"),
    ],
)
def test_what_can_never_work_is_refused(entry: Any, error: type[Exception], message: str) -> None:
    """When the alias is first used."""
    with override_settings(CACHES={"default": {"BACKEND": BACKEND, **entry}}), pytest.raises(error, match=message):
        _ = caches["default"]


# ----------------------------------------------------------------------------------------------------- commits


def test_a_commit_invalidates_before_all_other_hooks(backend: NearCacheBackend) -> None:
    """Also before those that were added earlier, as one that sends a task."""
    backend.set_many({"a": 1, "b": 2})
    backend.set("c", 3, tags=["t"])
    backend.near.set("near", 4)
    seen: list[Any] = []
    with transaction.atomic():
        transaction.on_commit(lambda: seen.append(backend.get_many(["a", "b", "c"])))
        invalidate_on_commit(["a"], near_keys=["near"])
        transaction.on_commit(lambda: seen.append("last"))
        invalidate_on_commit(["b"], tags=["t"])
        assert backend.get_many(["a", "b", "c"]) == {"a": 1, "b": 2, "c": 3}
        names = [type(hook[1]).__name__ for hook in connection.run_on_commit]
        assert names == ["_Hook", "_Hook", "function", "function"]
    assert seen == [{}, "last"]
    assert backend.near.get("near") is None


def test_what_is_rolled_back_invalidates_nothing(backend: NearCacheBackend) -> None:
    """To a savepoint, too."""
    backend.set_many({"a": 1, "b": 2, "c": 3})
    with transaction.atomic():
        invalidate_on_commit(["a"])
        with transaction.atomic():
            invalidate_on_commit(["b"])
            transaction.set_rollback(True)
        with transaction.atomic():
            invalidate_on_commit(["c"])
    assert backend.get_many(["a", "b", "c"]) == {"b": 2}
    with transaction.atomic():
        invalidate_on_commit(["b"])
        transaction.set_rollback(True)
    assert backend.get("b") == 2
    invalidate_on_commit(["b"])  # no transaction
    assert backend.get("b") is None
    backend.set("b", 2, version=2)
    invalidate_on_commit(["b"], version=2)
    assert backend.get("b", version=2) is None


def test_wrong_names_are_told_where_they_are_given(backend: NearCacheBackend) -> None:
    """And not after the commit."""
    with transaction.atomic():
        with pytest.raises(InvalidKey):
            invalidate_on_commit(near_keys=[""])
        with pytest.raises(InvalidCacheBackendError):
            invalidate_on_commit(["a"], cache="absent")
    with (
        override_settings(CACHES={"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}),
        pytest.raises(ImproperlyConfigured, match="DummyCache"),
    ):
        invalidate_on_commit(["a"])


def test_redis_away_is_no_error_of_a_commit() -> None:
    """Nor of a view: what is not acknowledged is journalled."""
    with override_settings(CACHES={"default": config("redis://cache.example", "away", on_unavailable="raise")}):
        near: NearCache = caches["default"].near
        with FakeServer().behind(near) as server:
            caches["default"].set("a", 1)
            with server.away(), transaction.atomic():
                invalidate_on_commit(["a"], tags=["t"])
            server.settle()
            assert caches["default"].get("a") is None
