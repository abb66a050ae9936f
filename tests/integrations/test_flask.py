"""The backend for Flask-Caching, and the cache of a Flask application."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask, Response, make_response, render_template_string
from flask_caching import Cache
from markupsafe import Markup

from nearcache import CodecError, ConfigError, NearCache
from nearcache.integrations.flask import Backend, FlaskCodec, cache_of, init_app
from nearcache.transport.embedded import EmbeddedServer


@pytest.fixture
def caching(valkey: EmbeddedServer, namespace: str) -> Iterator[tuple[Flask, Cache]]:
    """An application with Flask-Caching on the backend."""
    app = Flask(__name__)
    app.config.update(
        CACHE_TYPE="nearcache.integrations.flask.Backend",
        CACHE_NEARCACHE_URL=valkey.url,
        CACHE_OPTIONS={"namespace": namespace},
        CACHE_DEFAULT_TIMEOUT=100,
    )
    own = Cache(app)
    with app.app_context():
        yield app, own
    app.extensions["cache"][own].near.close()


def backend_of(app: Flask, own: Cache) -> Backend:
    """What stands behind Flask-Caching."""
    found = app.extensions["cache"][own]
    assert isinstance(found, Backend)
    return found


def test_its_interface(caching: tuple[Flask, Cache]) -> None:
    """Each word of it."""
    _, cache = caching
    assert cache.set("a", 1) is True
    assert (cache.get("a"), cache.get("absent"), cache.has("a"), cache.has("absent")) == (1, None, True, False)
    assert cache.add("a", 2) is False
    assert cache.add("b", 2) is True
    assert cache.get_many("b", "absent", "a") == [2, None, 1]
    assert cache.get_dict("b", "absent") == {"b": 2, "absent": None}
    assert cache.set_many({"c": 3, "d": 4}) == ["c", "d"]
    assert cache.delete("a") is True
    assert cache.delete("a") is False
    assert cache.delete_many("b", "c") == ["b", "c"]
    assert cache.unlink("d") == ["d"]
    assert cache.get_many("a", "b", "c", "d") == [None] * 4
    cache.set("none", None)
    assert cache.has("none")
    assert cache.clear() is True
    assert not cache.has("none")


def test_timeouts(caching: tuple[Flask, Cache]) -> None:
    """0 is for ever, None the default, below 0 over."""
    _, cache = caching
    backend = backend_of(*caching)

    def left(key: str) -> float:
        found = backend.near.explain(f"flask_cache_{key}").remaining
        assert found is not None
        return found

    cache.set("a", 1)
    assert 99 < left("a") <= 100
    cache.set("a", 1, timeout=0)
    assert left("a") > 9 * 365 * 86400
    cache.set("a", 1, timeout=timedelta(seconds=20))
    assert 19 < left("a") <= 20
    assert cache.add("a", 1, timeout=-1) is False
    cache.set("a", 2, timeout=-1)
    assert cache.get("a") is None
    assert cache.add("a", 1, timeout=-1) is True
    assert cache.get("a") is None


def test_numbers(caching: tuple[Flask, Cache]) -> None:
    """One that was set, and one that begins."""
    backend = backend_of(*caching)
    assert [backend.inc("new"), backend.inc("new", 5), backend.dec("new")] == [1, 6, 5]
    backend.set("old", 40)
    assert backend.inc("old", 2) == 42
    assert backend.get("old") == 42
    backend.set("old", "text")
    with pytest.raises(TypeError, match="no int"):
        backend.inc("old")


def test_views_functions_and_fragments(caching: tuple[Flask, Cache]) -> None:
    """What Flask-Caching makes of them comes back, without pickle."""
    app, cache = caching
    calls: list[str] = []

    @app.get("/text")
    @cache.cached(timeout=50)
    def text() -> str:
        calls.append("text")
        return "Hello"

    @app.get("/response")
    @cache.cached(timeout=50)
    def response() -> Response:
        calls.append("response")
        made = make_response("Grüße", 203, {"X-A": "1"})
        made.set_cookie("c", "v")
        return made

    @cache.memoize(timeout=50)
    def double(number: int) -> dict[str, int]:
        calls.append("double")
        return {"doubled": 2 * number}

    client = app.test_client()
    for _ in range(2):
        assert client.get("/text").text == "Hello"
        answer = client.get("/response")
        assert (answer.text, answer.status_code, answer.headers["X-A"]) == ("Grüße", 203, "1")
        assert "c=v" in answer.headers["Set-Cookie"]
        assert double(2) == {"doubled": 4}
        assert render_template_string("{% cache 50, 'key' %}<b>{% endcache %}") == "<b>"
    assert calls == ["text", "response", "double"]
    cache.delete_memoized(double)
    assert double(2) == {"doubled": 4}
    assert calls[3:] == ["double"]


def test_the_codec() -> None:
    """Types stay; streams are refused; damaged bytes are a codec error."""
    codec = FlaskCodec()
    assert type(codec.decode(codec.encode(Markup("<b>")))) is Markup
    assert type(codec.decode(codec.encode("<b>"))) is str
    with pytest.raises(CodecError, match="streams"):
        codec.encode(Response(iter(["a"])))
    data = codec.encode(Response("a", headers={"X-A": "1"}))
    for at in range(len(data)):
        for byte in (0, data[at] ^ 1, 255):
            try:
                codec.decode(data[:at] + bytes([byte]) + data[at + 1 :])
            except CodecError:
                continue


def test_all_of_a_process_share_one_cache(valkey: EmbeddedServer, namespace: str) -> None:
    """Two applications, and the cache itself."""
    apps = [Flask("one"), Flask("two")]
    for app in apps:
        app.config.update(NEARCACHE_URL=valkey.url, NEARCACHE_NAMESPACE=namespace, NEARCACHE_TTL=20)
    one, two = map(init_app, apps)
    assert one is two is NearCache.shared(valkey.url, namespace=namespace, ttl=20)
    assert cache_of(apps[0]) is one
    with apps[1].app_context():
        assert cache_of().get_or_set("a", lambda: 1) == 1
    one.close()
    own = NearCache.from_url("memory://")
    assert init_app(Flask("three"), own) is own


@pytest.mark.parametrize(
    ("config", "message"),
    [({}, "NEARCACHE_URL"), ({"NEARCACHE_URL": "memory://", "NEARCACHE_NONSENSE": 1}, "nonsense")],
)
def test_what_can_never_work_is_refused(config: dict[str, Any], message: str) -> None:
    """When the application is made."""
    app = Flask(__name__)
    app.config.update(config)
    with pytest.raises(ConfigError, match=message):
        init_app(app)
    with pytest.raises(ConfigError, match="init_app"):
        cache_of(app)
    with pytest.raises(ConfigError, match="CACHE_NEARCACHE_URL"):
        Cache(Flask(__name__), config={"CACHE_TYPE": "nearcache.integrations.flask.Backend"})
