"""Django's own tests of caches, from its source distribution, run against the backend with either codec."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from tempfile import gettempdir, mkdtemp

import django
import pytest

from nearcache.transport.embedded import EmbeddedServer
from tests.support.report import SUMMARY

ROOT = Path(__file__).parents[2]

SETTINGS = """
import json, os
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3"}, "other": {"ENGINE": "django.db.backends.sqlite3"}}
SECRET_KEY = "for tests"
USE_TZ = False
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
CACHES = {"default": json.loads(os.environ["NEARCACHE_CACHE"])}
"""

TESTS = """
import json, os
from django.conf import settings
from django.core.cache import cache, caches
from django.test import SimpleTestCase, TestCase, override_settings
from cache import tests
from sessions_tests import tests as sessions

near = json.loads(os.environ["NEARCACHE_CACHE"])
several = tests.caches_setting_for_tests(exclude={"cull", "zero_cull"}, **near)


@override_settings(CACHES=several)
class Backend(tests.BaseCacheTests, TestCase):
    incr_decr_type_error = TypeError


def on_ours(kind):
    # Their own settings name caches in memory, with a place of its own for each alias.
    ours = {}
    for alias, params in kind._overridden_settings["CACHES"].items():
        options = {**near["OPTIONS"], "namespace": f"{near['OPTIONS']['namespace']}-{alias}"}
        ours[alias] = {**params, **near, "OPTIONS": options}
    return override_settings(CACHES=ours)(type("Our" + kind.__name__, (kind,), {}))


CacheUtils = on_ours(tests.CacheUtils)
PrefixedCacheUtils = on_ours(tests.PrefixedCacheUtils)
CacheHEADTest = on_ours(tests.CacheHEADTest)
CacheI18nTest = on_ours(tests.CacheI18nTest)
PrefixedCacheI18nTest = on_ours(tests.PrefixedCacheI18nTest)
CacheMiddlewareTest = on_ours(tests.CacheMiddlewareTest)
TestWithTemplateResponse = on_ours(tests.TestWithTemplateResponse)


class CacheSessions(sessions.CacheSessionTests):
    pass


class CacheDBSessions(sessions.CacheDBSessionTests):
    pass
"""

ONLY_PICKLED = {
    "test_data_types": "a function and a class are carried by their names alone, and no name is imported",
    "test_cache_read_for_model_instance": "a model instance: which fields it has is known to the application alone",
    "test_cache_write_for_model_instance_with_deferred": "a QuerySet is a question, and not a value",
    "test_cache_read_for_model_instance_with_deferred": "a QuerySet, too",
    "test_set_fail_on_pickleerror": "it expects an error of pickle: it is refused by CodecError",
    "test_add_fail_on_pickleerror": "the same",
}
"""What can't pass without pickle, and why; one of them fails for two types."""


@pytest.fixture(scope="session")
def django_tests() -> Path:
    """The folder of the tests of the very version that is installed: fetched once, kept among temporary files."""
    kept = Path(gettempdir()) / f"nearcache-django-{django.__version__}-{os.getuid()}"
    if not (kept / "tests").is_dir():
        own = Path(mkdtemp())
        asked = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        fetched = subprocess.run(
            [*asked, "--dest", str(own), f"django=={django.__version__}"],
            capture_output=True,
            text=True,
            check=False,
            timeout=100,
        )
        archives = list(own.glob("*.tar.gz"))
        if not archives:
            pytest.skip(
                f"NOT RUN: Django's own tests of caches: no source distribution: {fetched.stderr.strip()[-300:]}"
            )
        with tarfile.open(archives[0]) as archive:
            archive.extractall(own, filter="data")
        (unpacked,) = (each for each in own.iterdir() if each.is_dir())
        if not kept.exists():  # else another process was faster
            shutil.move(unpacked, kept)
        shutil.rmtree(own)
    return kept / "tests"


@pytest.mark.parametrize("codec", ["DjangoCodec", "PickleCodec"])
def test_djangos_own_tests_pass(
    codec: str,
    django_tests: Path,
    valkey: EmbeddedServer,
    namespace: str,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> None:
    """All of them with pickle; without it, all but those that cache types that only pickle carries."""
    (tmp_path / "near_settings.py").write_text(SETTINGS)
    (tmp_path / "near_suite").mkdir()
    (tmp_path / "near_suite" / "__init__.py").touch()
    (tmp_path / "near_suite" / "tests.py").write_text(TESTS)
    cache = {
        "BACKEND": "nearcache.integrations.django.NearCacheBackend",
        "LOCATION": valkey.url,
        "OPTIONS": {"namespace": namespace, "codec": f"nearcache.integrations.django.{codec}"},
    }
    path = os.pathsep.join([str(tmp_path), str(ROOT), str(django_tests)])
    command = [sys.executable, str(django_tests / "runtests.py"), "--settings=near_settings", "--parallel=1", "-v2"]
    done = subprocess.run(
        [*command, "near_suite", "cache.models", "sessions_tests.models"],
        cwd=django_tests,
        env={**os.environ, "PYTHONPATH": path, "NEARCACHE_CACHE": json.dumps(cache)},
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    failed = set(re.findall(r"^(?:FAIL|ERROR): (\w+)", done.stderr, re.MULTILINE))
    (ran,) = re.findall(r"^Ran (\d+) tests", done.stderr, re.MULTILINE) or ["0"]
    skipped = len(re.findall(r"\.\.\. skipped ", done.stderr))
    passed = len(re.findall(r"\.\.\. ok$", done.stderr, re.MULTILINE))
    told = f"Django {django.__version__}'s own tests of caches, {codec}: of {ran}, {passed} passed, {skipped} skipped"
    record_property(SUMMARY, f"{told}; failed: {', '.join(sorted(failed)) or 'none'}")
    assert failed == (set(ONLY_PICKLED) if codec == "DjangoCodec" else set()), done.stderr[-20000:]
    assert int(ran) > 200
