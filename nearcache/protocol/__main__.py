"""``python -m nearcache.protocol NAME`` prints a script, for callers without this library: docs/recipes.md."""

from __future__ import annotations

import sys

from nearcache.protocol.scripts import Script

sys.stdout.write(Script.load(sys.argv[1]).text.decode())
