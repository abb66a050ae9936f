"""A free-threaded build of Python is not supported yet, and the import says so."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("free_threaded", [False, True])
def test_the_import_warns(free_threaded: bool) -> None:
    """By what such a build says of itself."""
    version = "3.13.0 experimental free-threading build (main)" if free_threaded else "3.13.0 (main)"
    script = f"import sys; sys.version = {version!r}; import nearcache"
    ran = subprocess.run([sys.executable, "-W", "always", "-c", script], capture_output=True, text=True, check=True)
    assert ("NearCacheWarning: nearcache does not support free-threaded builds" in ran.stderr) is free_threaded
