"""What two workers read around a lost connection: this library beside others with a local cache that is invalidated.

Worker A is connected to a real Valkey, worker B through a proxy. B's connections are lost; a second later A changes the
row and invalidates it, as its library documents. Each read of B is recorded, for seven seconds.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from benchmarks.pictures.svg import BAD, GOOD, GOOD_SOFT, GREY, WARM, Drawing
from nearcache.testing import EmbeddedServer, FaultProxy

LIBRARIES = {
    "nearcache": ("nearcache", "nearcache"),
    "glide": ("valkey-glide", "Valkey GLIDE"),
    "cashews": ("cashews", "cashews"),
    "cachekit": ("cachekit", "cachekit"),
}
"""By the worker's name: the distribution, and the name in the picture."""
BEFORE, WRITE, BACK, AFTER = 1.5, 1.0, 2.0, 7.0
"""Seconds from the fault: reads that are shown before it, the write, the end of a cut, the end of the run."""
FAULTS = {
    "closed": "B's connections are closed, and refused for two seconds",
    "silent": "B's connections go silent, as when a firewall forgets them; new ones work",
}


class NotRun(Exception):
    """A library can not be run here."""


@dataclass
class Track:
    """What B read, with times in seconds from the fault."""

    reads: list[tuple[float, str]] = field(default_factory=list)
    written: float = 0.0

    @property
    def stale_for(self) -> float | None:
        """Seconds from the acknowledged write to B's last old value; None: B served it to the end."""
        old = [at for at, value in self.reads if value == "old" and at > self.written]
        if old and old[-1] >= max(at for at, value in self.reads if value in {"old", "new"}):
            return None
        return old[-1] - self.written if old else 0.0


@contextmanager
def lost(proxy: FaultProxy, fault: str) -> Iterator[None]:
    """B's connections are lost."""
    if fault == "silent":
        with proxy.not_reading():
            yield
    else:
        proxy.cut()
        yield


def run(library: str, fault: str) -> Track:
    """Run both workers of a library.

    Raises:
        NotRun: it is not installed, or its workers do not read.
    """
    try:
        metadata.version(LIBRARIES[library][0])
    except metadata.PackageNotFoundError:
        raise NotRun(f"{LIBRARIES[library][0]} is not installed") from None
    with ExitStack() as stack:
        server = stack.enter_context(EmbeddedServer())
        proxy = stack.enter_context(FaultProxy(server.port))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "row").write_text("old")
        command = [sys.executable, "-m", "benchmarks.pictures.worker", library]

        def start(name: str, url: str) -> subprocess.Popen[str]:
            out, err = (stack.enter_context((folder / f"{name}.{kind}").open("w")) for kind in ("out", "err"))
            more = [url, str(folder / "row"), str(60)]
            worker = subprocess.Popen([*command, *more], stdin=subprocess.PIPE, stdout=out, stderr=err, text=True)
            stack.callback(worker.wait)
            stack.callback(worker.kill)
            return worker

        def lines(name: str) -> list[list[object]]:
            return [json.loads(line) for line in (folder / f"{name}.out").read_text().splitlines() if line[:1] == "["]

        first, _ = start("a", server.url), start("b", proxy.url)
        patience = time.monotonic() + 30
        while min(len(lines("a")), len(lines("b"))) < BEFORE / 0.02:
            if time.monotonic() > patience or first.poll() is not None:
                raise NotRun(((folder / "a.err").read_text().strip().splitlines() or ["its workers do not read"])[-1])
            time.sleep(0.1)
        begin = time.monotonic()
        with lost(proxy, fault):
            time.sleep(WRITE)
            assert first.stdin is not None
            first.stdin.write("write\n")
            first.stdin.flush()
            time.sleep(BACK - WRITE)
            proxy.heal()
            time.sleep(AFTER - BACK)
        track = Track()
        track.written = next(float(str(at)) - begin for what, at in lines("a") if what == "written")
        for at, value in lines("b"):
            if isinstance(at, float) and at - begin >= -BEFORE:
                track.reads.append((at - begin, str(value)))
        return track


def draw(path: Path) -> bool:
    """Run all libraries under both faults, print what was found, and write the picture; whether ours was right."""
    found: dict[str, dict[str, Track | str]] = {fault: {} for fault in FAULTS}
    for fault in FAULTS:
        with ThreadPoolExecutor(len(LIBRARIES)) as pool:
            runs = {library: pool.submit(run, library, fault) for library in LIBRARIES}
            for library, one in runs.items():
                try:
                    track: Track | str = one.result()
                except NotRun as why:
                    track = f"NOT RUN: {why}"
                found[fault][library] = track
                print(f"{fault:8} {library:10} {track if isinstance(track, str) else _says(track)}")
    _picture(found).write(path)
    return all(
        isinstance(mine := tracks["nearcache"], Track) and mine.stale_for is not None for tracks in found.values()
    )


def _says(track: Track) -> str:
    seconds = track.stale_for
    if seconds is None:
        return "the old value to the end"
    return f"the old value for {seconds:.1f} s" if seconds >= 0.05 else "no old value"


LEFT, RIGHT, LANE = 150, 700, 34


def _picture(found: dict[str, dict[str, Track | str]]) -> Drawing:
    lanes = len(LIBRARIES)
    panel = 74 + lanes * LANE
    drawing = Drawing(900, 66 + 2 * panel, "What worker B reads after its connection was lost and A changed the row")
    drawing.text(24, 32, "Worker A changes a row. What does worker B read?", size=18, bold=True)
    drawing.legend(24, 56, {GOOD_SOFT: "the row as it is", BAD: "the old row, after the write", WARM: "an error"})

    def x(at: float) -> float:
        return LEFT + (at + BEFORE) / (AFTER + BEFORE) * (RIGHT - LEFT)

    for number, (fault, tracks) in enumerate(found.items()):
        top = 74 + number * panel
        drawing.text(24, top + 20, FAULTS[fault], bold=True)
        base = top + 30
        for row, (library, track) in enumerate(tracks.items()):
            y = base + row * LANE
            drawing.text(24, y + 20, LIBRARIES[library][1], bold=library == "nearcache")
            if isinstance(track, str):
                drawing.text(LEFT, y + 20, track, size=12, fill=GREY)
                continue
            for begin, end, fill in _stretches(track):
                drawing.bar(x(begin), y + 6, x(end) - x(begin), LANE - 14, fill)
            right = track.stale_for is not None
            drawing.text(RIGHT + 12, y + 20, _says(track), size=13, fill=GOOD if right else BAD, bold=not right)
        end = base + lanes * LANE
        marks = {0.0: "lost", WRITE: "A writes"} | {float(at): f"{at} s" for at in range(3, int(AFTER) + 1)}
        drawing.axis(LEFT, RIGHT, end, {x(at): name for at, name in marks.items()})
        for at in (0.0, WRITE):
            drawing.line(x(at), base, x(at), end, dash="3 3")
    return drawing


def _stretches(track: Track) -> list[tuple[float, float, str]]:
    """Reads of one colour, from the first to the next one's begin."""
    stretches: list[tuple[float, float, str]] = []
    for (at, value), following in zip(track.reads, [*(at for at, _ in track.reads[1:]), AFTER], strict=True):
        old = at > track.written if value == "old" else False
        fill = BAD if old else GOOD_SOFT if value in {"old", "new"} else WARM
        end = min(following, AFTER)
        if stretches and stretches[-1][2] == fill:
            stretches[-1] = (stretches[-1][0], end, fill)
        elif at < AFTER:
            stretches.append((at, end, fill))
    return stretches
